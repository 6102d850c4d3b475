"""Tokens for the API: made for a person or for a program, shown once, kept as digests."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update
from ulid_transform import ulid_now

from pipeline.errors import PipeError, hinted
from runner.server import people
from runner.server.database import tokens
from runner.server.rights import MEMBER, ROLES, Grant, within
from runner.server.sessions import TOUCHED_EVERY, digest_of

__all__ = ["Token", "find", "known", "make", "must_find", "revoke", "touch"]


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

    @property
    def stale(self) -> bool:
        """Whether the table should hear that it was used."""
        return time.time() - self.used > TOUCHED_EVERY


def make(connection: Connection, name: str, person: str = "", grant: Grant = _MEMBER, *, expires: float = 0.0) -> str:
    """Make one and return it; only its digest is kept.

    Raises:
        PipeError: it has no name, there is no such role, or the person may not do what it is to do.
    """
    if grant.role not in ROLES:
        raise PipeError(hinted(f"there is no role '{grant.role}'", grant.role, ROLES))
    if person and not within(grant, people.must_find(connection, person).grants):
        raise PipeError(f"{person} may not do all of what a token of the role {grant} may: give it a smaller one")
    people.check(connection, [grant])  # not before: whoever may not see a project is not told whether it is there
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
    return _token(row) if row else None


def known(connection: Connection, person: str | None = None) -> list[Token]:
    """All tokens or those of a person, the newest first; those that are over too."""
    wanted = select(tokens).order_by(tokens.c.id.desc())
    wanted = wanted if person is None else wanted.where(tokens.c.person == person)
    return [_token(row) for row in connection.execute(wanted)]


def must_find(connection: Connection, id_: str) -> Token:
    """The token of that id.

    Raises:
        PipeError: there is none.
    """
    row = connection.execute(select(tokens).where(tokens.c.id == id_)).one_or_none()
    if row is None:
        raise PipeError(f"there is no token '{id_}'")
    return _token(row)


def revoke(connection: Connection, id_: str) -> None:
    """Forget a token: whoever has it is let in no more."""
    connection.execute(delete(tokens).where(tokens.c.id == id_))


def touch(connection: Connection, id_: str) -> None:
    """Note that it was used."""
    connection.execute(update(tokens).where(tokens.c.id == id_).values(used=time.time()))


def _token(row: Any) -> Token:
    return Token(row.id, row.name, row.person, Grant(row.role, row.scope), row.created, row.expires, row.used)
