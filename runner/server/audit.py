"""The audit log: who did what, when, and from where; a line is written in the transaction of what it tells."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from runner.server.database import audit

__all__ = ["Actor", "Line", "lines", "machine", "note", "run_started"]


class Actor(NamedTuple):
    """Who acts, by which way in (`session`, `token NAME`, `machine`), and from which address."""

    who: str
    by: str
    address: str = ""


def machine() -> Actor:
    """Whoever has a shell on the server's machine."""
    who = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"
    return Actor(who, "machine")


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `at` in seconds since the epoch, `what` a person, run, token or delivery that it was done to."""

    id: int
    at: float
    who: str
    by: str
    address: str
    action: str
    what: str
    project: str
    detail: str


def note(
    connection: Connection, actor: Actor, action: str, what: str = "", *, project: str = "", detail: str = ""
) -> None:
    """Add a line."""
    words = {"action": action, "what": what[:200], "project": project, "detail": detail[:500]}
    row = {"at": time.time(), **actor._asdict(), **words}
    connection.execute(insert(audit).values(row))


def run_started(actor: Actor, project: str, pipeline: str) -> Callable[[Connection, int, str], None]:
    """What adds the line on a run that somebody starts, by the run's number and id."""

    def add(connection: Connection, number: int, id_: str) -> None:
        note(connection, actor, "start run", id_, project=project, detail=f"{pipeline}#{number}")

    return add


def lines(connection: Connection, before: int, limit: int, who: str = "", project: str = "") -> list[Line]:
    """Lines, the newest first; `before` is the id of the last one of the page before."""
    wanted = select(audit).order_by(audit.c.id.desc()).limit(limit)
    for column, value in ((audit.c.who, who), (audit.c.project, project)):
        wanted = wanted.where(column == value) if value else wanted
    wanted = wanted.where(audit.c.id < before) if before else wanted
    return [Line(**row) for row in connection.execute(wanted).mappings()]
