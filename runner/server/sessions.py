"""Sessions of browsers: in a table, so that they end when somebody says so, and by themselves."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from runner.server.database import sessions

__all__ = ["Seen", "Session", "begin", "digest_of", "end", "end_others", "find", "known", "touch"]

IDLE = 12 * 3600.0
"""Seconds after the last request."""
LONGEST = 7 * 24 * 3600.0
"""Seconds after the sign-in."""
TOUCHED_EVERY = 300.0


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is signed in. `csrf` is what its forms carry to show that they are ours."""

    digest: str
    person: str
    csrf: str
    stale: bool
    """Whether the table should hear that it was seen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as its person sees it."""

    digest: str
    address: str
    created: float
    seen: float


def digest_of(secret: str) -> str:
    """What is kept of an id, a token or the code of a link; they are long and random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def begin(connection: Connection, person: str, address: str) -> str:
    """Begin one: its id, 256 random bits, which only the browser keeps. Those that are over are forgotten."""
    now = time.time()
    connection.execute(delete(sessions).where(_over(now)))
    id_ = secrets.token_urlsafe(32)
    row = {"digest": digest_of(id_), "person": person, "address": address, "created": now, "seen": now}
    connection.execute(insert(sessions).values(row))
    return id_


def find(connection: Connection, id_: str) -> Session | None:
    """The session of that id, unless it is over."""
    now = time.time()
    wanted = select(sessions).where(sessions.c.digest == digest_of(id_), ~_over(now))
    row = connection.execute(wanted).one_or_none()
    if row is None:
        return None
    csrf = hmac.new(id_.encode(), b"csrf", hashlib.sha256).hexdigest()
    return Session(row.digest, row.person, csrf, now - row.seen > TOUCHED_EVERY)


def known(connection: Connection, person: str) -> list[Seen]:
    """The sessions of a person, the one that was seen last first."""
    wanted = select(sessions).where(sessions.c.person == person, ~_over(time.time())).order_by(sessions.c.seen.desc())
    return [Seen(row.digest, row.address, row.created, row.seen) for row in connection.execute(wanted)]


def touch(connection: Connection, digest: str) -> None:
    """Note that it was seen."""
    connection.execute(update(sessions).where(sessions.c.digest == digest).values(seen=time.time()))


def end(connection: Connection, digest: str) -> None:
    """End it now."""
    connection.execute(delete(sessions).where(sessions.c.digest == digest))


def end_others(connection: Connection, person: str, stays: str) -> None:
    """End every session of a person but that with the digest `stays`."""
    connection.execute(delete(sessions).where(sessions.c.person == person, sessions.c.digest != stays))


def _over(now: float) -> ColumnElement[bool]:
    return or_(sessions.c.seen < now - IDLE, sessions.c.created < now - LONGEST)
