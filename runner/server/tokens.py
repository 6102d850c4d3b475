"""Tokens for the API: made for a person or for a program, shown once, kept as digests."""

import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, insert, or_, select
from ulid_transform import ulid_now

from pipeline.errors import PipeError
from runner.server.database import tokens
from runner.server.rights import MEMBER, Grant
from runner.server.sessions import digest_of

__all__ = ["Token", "find", "make"]


_MEMBER = Grant(MEMBER)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; without a person it belongs to a program. `expires` and `used`: 0 is never."""

    id: str
    name: str
    person: str
    grant: Grant
    created: float
    expires: float
    used: float


def make(connection: Connection, name: str, person: str = "", grant: Grant = _MEMBER, *, expires: float = 0.0) -> str:
    """Make one and return it; only its digest is kept.

    Raises:
        PipeError: it has no name.
    """
    if not name.strip() or len(name) > 100:
        raise PipeError("give the token a name of at most 100 characters, so that people know what it is for")
    token = f"pipe_{secrets.token_urlsafe(32)}"
    row = {
        "id": ulid_now(),
        "digest": digest_of(token),
        "name": name.strip(),
        "person": person,
        "role": grant.role,
        "scope": grant.scope,
        "created": time.time(),
        "expires": expires,
    }
    connection.execute(insert(tokens).values(row))
    return token


def find(connection: Connection, token: str) -> Token | None:
    """What is known of a token that is good."""
    live = or_(tokens.c.expires == 0, tokens.c.expires > time.time())
    row = connection.execute(select(tokens).where(tokens.c.digest == digest_of(token), live)).one_or_none()
    if row is None:
        return None
    return Token(row.id, row.name, row.person, Grant(row.role, row.scope), row.created, row.expires, row.used)
