"""People: their names, their roles, and by what they sign in."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.errors import PipeError, hinted
from runner.server.database import grants, links, people, sessions, tokens
from runner.server.projects import strange
from runner.server.rights import ADMIN, ROLES, Grant
from runner.server.sessions import end_others

__all__ = [
    "Person",
    "add",
    "administered",
    "check",
    "find",
    "find_identity",
    "known",
    "must_find",
    "remove",
    "set_grants",
    "set_identity",
    "set_password",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in, or was asked to. `password` is a hash, `identity` who an OpenID provider says it is."""

    name: str
    grants: tuple[Grant, ...] = ()
    password: str = ""
    identity: str | None = None
    created: float = 0.0


def add(connection: Connection, name: str, granted: Iterable[Grant], *, password: str = "", identity: str = "") -> None:
    """Keep a new person; `password` is a hash.

    Raises:
        PipeError: the name is none, somebody has it, or there is no such role.
    """
    granted = tuple(granted)
    if not _NAME.fullmatch(name):
        raise PipeError(
            f"'{name}' is no name of a person: small letters, digits, '.', '_', '@' and '-', "
            "beginning with one of the first two"
        )
    _check(granted)
    row = {"name": name, "password": password, "identity": identity or None, "created": time.time()}
    try:
        connection.execute(insert(people).values(row))
    except IntegrityError:
        raise PipeError(f"there is a person '{name}' already") from None
    _grant(connection, name, granted)


def find(connection: Connection, name: str) -> Person | None:
    """A person by name."""
    found = _all(connection, people.c.name == name)
    return found[0] if found else None


def find_identity(connection: Connection, identity: str) -> Person | None:
    """The person whom an OpenID provider knows so."""
    found = _all(connection, people.c.identity == identity)
    return found[0] if found else None


def set_identity(connection: Connection, name: str, identity: str) -> None:
    """Let a person be known so.

    Raises:
        PipeError: another one is.
    """
    try:
        connection.execute(update(people).where(people.c.name == name).values(identity=identity))
    except IntegrityError:
        raise PipeError("that account of the provider belongs to another person here") from None


def must_find(connection: Connection, name: str) -> Person:
    """The same.

    Raises:
        PipeError: there is no such person.
    """
    found = find(connection, name)
    if found is None:
        names = connection.execute(select(people.c.name)).scalars().all()
        raise PipeError(hinted(f"there is no person '{name}'", name, names))
    return found


def known(connection: Connection) -> list[Person]:
    """Everybody, by name."""
    return _all(connection, people.c.name != "")


def administered(connection: Connection) -> bool:
    """Whether there is somebody who may do everything and can sign in."""
    admin = select(grants.c.person).where(grants.c.role == ADMIN, grants.c.scope == "")
    able = or_(people.c.password != "", people.c.identity.is_not(None))
    return connection.execute(select(people.c.name).where(able, people.c.name.in_(admin)).limit(1)).first() is not None


def set_password(connection: Connection, name: str, password: str, *, stays: str = "") -> None:
    """Keep the hash of a new password and end every session but that with the digest `stays`, and open links."""
    connection.execute(update(people).where(people.c.name == name).values(password=password))
    end_others(connection, name, stays)
    connection.execute(delete(links).where(links.c.person == name))


def set_grants(connection: Connection, name: str, granted: Iterable[Grant]) -> None:
    """Give a person these roles and no others.

    Raises:
        PipeError: there is no such person or role, or nobody would be left who can give roles.
    """
    granted = tuple(granted)
    _check(granted)
    must_find(connection, name)
    was = administered(connection)
    connection.execute(delete(grants).where(grants.c.person == name))
    _grant(connection, name, granted)
    _still(connection, name, was=was)


def remove(connection: Connection, name: str) -> None:
    """Forget a person with everything that opens a door for them.

    Raises:
        PipeError: there is no such person, or nobody would be left who can give roles.
    """
    must_find(connection, name)
    was = administered(connection)
    for table in (sessions, tokens, links, grants):
        connection.execute(delete(table).where(table.c.person == name))
    connection.execute(delete(people).where(people.c.name == name))
    _still(connection, name, was=was)


def _all(connection: Connection, which: ColumnElement[bool]) -> list[Person]:
    found = connection.execute(select(people).where(which).order_by(people.c.name)).all()
    held: dict[str, list[Grant]] = {row.name: [] for row in found}
    wanted = select(grants).where(grants.c.person.in_(held)).order_by(grants.c.role, grants.c.scope)
    for row in connection.execute(wanted):
        held[row.person].append(Grant(row.role, row.scope))
    return [Person(row.name, tuple(held[row.name]), row.password, row.identity, row.created) for row in found]


def check(connection: Connection, granted: Iterable[Grant]) -> None:
    """Go on only if there are these roles, and the projects in which they are to hold.

    Raises:
        PipeError: all of them that there are not.
    """
    granted = tuple(granted)
    scopes = dict.fromkeys(grant.scope for grant in granted if grant.scope)
    if problems := [*_no_roles(granted), *strange(connection, scopes)]:
        raise PipeError("\n".join(problems))


def _no_roles(granted: Iterable[Grant]) -> list[str]:
    roles = dict.fromkeys(grant.role for grant in granted)
    return [hinted(f"there is no role '{role}'", role, ROLES) for role in roles if role not in ROLES]


def _check(granted: Iterable[Grant]) -> None:
    if problems := _no_roles(granted):
        raise PipeError("\n".join(problems))


def _grant(connection: Connection, name: str, granted: Iterable[Grant]) -> None:
    rows = [{"person": name, "role": grant.role, "scope": grant.scope} for grant in set(granted)]
    if rows:
        connection.execute(insert(grants), rows)


def _still(connection: Connection, name: str, *, was: bool) -> None:
    if was and not administered(connection):
        raise PipeError(f"'{name}' is the last administrator: make another one first")
