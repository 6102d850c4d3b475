"""One-time links: by one of them the first administrator is made, by another a person chooses a password."""

import secrets
import time

from sqlalchemy import Connection, delete, insert, select

from runner.server.database import links
from runner.server.sessions import digest_of

__all__ = ["FIRST", "LIVES", "look", "make", "take"]

FIRST = ""
"""Whom the link is for that makes the first administrator."""
LIVES = 24 * 3600.0


def make(connection: Connection, person: str) -> str:
    """Make the code of a link for a person, which lives for a day; earlier ones for the same are void."""
    now = time.time()
    connection.execute(delete(links).where((links.c.person == person) | (links.c.expires < now)))
    code = secrets.token_urlsafe(32)
    connection.execute(insert(links).values(digest=digest_of(code), person=person, expires=now + LIVES))
    return code


def look(connection: Connection, code: str) -> str | None:
    """Whom a code is for, while it lives."""
    wanted = select(links.c.person).where(links.c.digest == digest_of(code), links.c.expires > time.time())
    return connection.execute(wanted).scalar_one_or_none()


def take(connection: Connection, code: str) -> str | None:
    """The same, and the code is used up."""
    person = look(connection, code)
    connection.execute(delete(links).where(links.c.digest == digest_of(code)))
    return person
