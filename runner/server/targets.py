"""Targets: whom a project tells of its runs, and of what. Their URLs hold passwords: sealed, and never shown again."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.errors import PipeError, hinted
from runner.server.courier import look_at
from runner.server.database import notifications, targets
from runner.server.outbox import MOST_TRIES
from runner.server.projects import must_know
from runner.server.sealing import Seal

__all__ = ["EVENTS", "Standing", "add", "again", "check", "remove", "standings", "url_of"]

EVENTS = {
    "failed": "a run ended red: failed, errored or timed out",
    "fixed": "the first green run after a red one of the same pipeline and ref",
    "waiting": "a run waits for somebody's approval",
    "ended": "every end of a run, whatever it was",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Standing:
    """One target, and how its messages are. `note` is what went wrong last, empty if nothing did."""

    name: str
    service: str
    events: tuple[str, ...]
    waiting: int = 0
    given_up: int = 0
    note: str = ""


async def check(name: str, url: str, events: Sequence[str]) -> str:
    """The service that a target's URL addresses.

    Raises:
        PipeError: what is wrong with the target, all at once; its URL stands in no message.
    """
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(f"'{name}' is no name: letters, digits, '.', '_' and '-', beginning with one of the first two")
    problems += [hinted(f"there is no event '{each}'", each, EVENTS) for each in events if each not in EVENTS]
    if not events:
        problems.append(f"say of what it is to be told: {', '.join(EVENTS)}")
    look = await look_at(url)
    if look.note:
        problems.append(look.note)
    if problems:
        raise PipeError("\n".join(problems))
    return look.service


def add(connection: Connection, seal: Seal, project: str, url: str, target: Standing) -> None:
    """Keep a target that `check` found right.

    Raises:
        PipeError: there is no such project, or it has a target of that name.
    """
    must_know(connection, project)
    row = {
        "project": project,
        "name": target.name,
        "url": seal.close(url),
        "service": target.service,
        "events": ",".join(dict.fromkeys(target.events)),
        "created": time.time(),
    }
    try:
        connection.execute(insert(targets).values(row))
    except IntegrityError:
        raise PipeError(f"'{project}' has a target '{target.name}' already: remove it first") from None


def remove(connection: Connection, project: str, name: str) -> bool:
    """Forget a target and what it was still to be told; false if there is none."""
    gone = connection.execute(delete(targets).where(*_named(project, name))).rowcount
    mine = (notifications.c.project == project, notifications.c.target == name)
    connection.execute(delete(notifications).where(*mine))
    return bool(gone)


def url_of(connection: Connection, seal: Seal, project: str, name: str) -> str | None:
    """The URL of a target; None if there is none."""
    sealed = connection.execute(select(targets.c.url).where(*_named(project, name))).scalar_one_or_none()
    return None if sealed is None else seal.open(sealed)


def standings(connection: Connection, project: str) -> list[Standing]:
    """The targets of a project by name, and how their messages are."""
    mine = select(targets).where(targets.c.project == project).order_by(targets.c.name)
    return [_standing(connection, row) for row in connection.execute(mine).all()]


def again(connection: Connection, project: str, name: str) -> int:
    """Try once more what was given up; how many messages that is."""
    mine = and_(notifications.c.project == project, notifications.c.target == name)
    lost = and_(mine, notifications.c.told.is_(False), notifications.c.tries >= MOST_TRIES)
    return int(connection.execute(update(notifications).where(lost).values(tries=0, due=0.0)).rowcount)


def _named(project: str, name: str) -> "tuple[ColumnElement[bool], ColumnElement[bool]]":
    return targets.c.project == project, targets.c.name == name


def _standing(connection: Connection, row: "Row[Any]") -> Standing:
    mine = and_(notifications.c.project == row.project, notifications.c.target == row.name)
    untold = and_(mine, notifications.c.told.is_(False))
    lost = notifications.c.tries >= MOST_TRIES
    counted = select(lost, func.count(), func.max(notifications.c.note)).where(untold).group_by(lost)
    found = {bool(given_up): (count, note) for given_up, count, note in connection.execute(counted)}
    waiting, given_up = found.get(False, (0, "")), found.get(True, (0, ""))
    events = tuple(row.events.split(","))
    return Standing(row.name, row.service, events, waiting[0], given_up[0], waiting[1] or given_up[1])
