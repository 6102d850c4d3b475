"""Pull requests of forks: where their commit really lies, and whether somebody has to let it run.

Nothing that a delivery claims is taken for true: the base is the branch as the project's own repository has it, and
the head is what the forge, or the fork on the same forge, shows for that very pull request now.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from pipeline.errors import PipeError
from runner.server.database import runs
from runner.server.ends import WAITS, Ended, finish, tell
from runner.server.payloads import Change
from runner.server.projects import Project
from runner.server.repositories import RepositoryError, Strangers
from stages.clients.git.address import Address, check_ref, parse_url

__all__ = [
    "APPROVE_WITHIN",
    "Head",
    "Refused",
    "approve",
    "expire",
    "find",
    "named",
    "needs_approval",
    "waiting",
    "withdraw",
]

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
APPROVE_WITHIN = 7 * 86400.0
"""Seconds after which nobody is waited for any more."""


class Refused(Exception):
    """Nothing is run of a pull request; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a pull request: its commit, which the copy for strangers has."""

    commit: str
    fetched_from: str = ""
    """The fork's URL, if its forge shows the head in no ref of the project."""


async def find(project: Project, strangers: Strangers, change: Change) -> Head:
    """Where the head of a pull request stands. The project's own copy has to be brought before.

    Raises:
        Refused: the head is another one by now, or cannot be had at all.
        RepositoryError: a host does not answer, or does not show the head yet; it can be tried again.
    """
    told = change.event.trigger
    if not _COMMIT.fullmatch(told.commit):
        raise Refused("the delivery names no commit")
    if change.ref and (stands := await strangers.bring_head(change.ref, told.number)):
        source = ""
    else:
        source = _fork(project, change)
        stands = await strangers.bring_head(f"refs/heads/{told.branch}", told.number, source)
    if not stands:
        raise Refused(f"the fork has no branch {told.branch} any more")
    if stands.startswith(told.commit):
        return Head(stands, source)
    if await strangers.has(told.commit):
        raise Refused(f"it came late: pull request {told.number} has moved on to {stands[:12]}")
    where = source or project.url
    raise RepositoryError(f"{where} shows pull request {told.number} at {stands[:12]}, not at {told.commit[:12]} yet")


def _fork(project: Project, change: Change) -> str:
    """The fork's URL, if it is one that may be asked: a fork lies where its base lies, so no other host is meant."""
    url = change.fork_url
    try:
        theirs, ours = parse_url(url), parse_url(project.url)
        check_ref(f"refs/heads/{change.event.trigger.branch}")
    except ValueError as error:
        raise Refused(f"its commit cannot be fetched: {error}") from None
    if not _together(theirs, ours):
        raise Refused(f"its commit cannot be fetched: the fork is said to lie at {url}, not where the project does")
    return url


def _together(fork: Address, project: Address) -> bool:
    """Whether both lie on one host; a fork is read without a login, so by http or https."""
    if project.scheme == "ssh":
        return fork.scheme == "https" and fork.host.partition(":")[0] == project.host.partition(":")[0]
    return fork.scheme in ("http", "https") and (fork.scheme, fork.host) == (project.scheme, project.host)


def needs_approval(project: Project, change: Change) -> bool:
    """Whether somebody must look at a commit before it runs: unless the project trusts who wrote and who sent it."""
    return not {change.event.trigger.author, change.actor} <= set(project.trusted)


# -- approval --------------------------------------------------------------------------------------


def approve(connection: Connection, id_: str, by: str) -> str:
    """Let a run start that waits for approval: this run, so this commit alone. Returns why not; empty if it may."""
    row = connection.execute(select(runs.c.state, runs.c.note).where(runs.c.id == id_)).one_or_none()
    if row is None:
        return "there is no such run"
    if row.state != "waiting":
        why = f": {row.note}" if row.note else ""
        return f"the run does not wait for approval, it is {row.state}{why}"
    connection.execute(update(runs).where(runs.c.id == id_).values(state="queued", approved_by=by))
    tell(connection, id_, "pending", WAITS["queued"])
    return ""


def waiting(connection: Connection) -> Sequence[Row[tuple[object, ...]]]:
    """The runs that wait for approval, the oldest first."""
    return connection.execute(select(runs).where(runs.c.state == "waiting").order_by(runs.c.id)).all()


def named(connection: Connection, words: str) -> str:
    """The id of the run that somebody means by its id or by `project/pipeline#number`.

    Raises:
        PipeError: there is none.
    """
    project, _, rest = words.partition("/")
    pipeline, _, number = rest.rpartition("#")
    by_name = and_(runs.c.project == project, runs.c.pipeline == pipeline, runs.c.number == _count(number))
    found = connection.execute(select(runs.c.id).where(or_(runs.c.id == words, by_name))).scalar_one_or_none()
    if found is None:
        raise PipeError(f"there is no run '{words}': give its id, or project/pipeline#number")
    return str(found)


def _count(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def withdraw(connection: Connection, project: str, number: str, event: str, why: str) -> None:
    """End what waits for approval of earlier events of a pull request: another commit, or base, has taken its place."""
    waiting = and_(runs.c.project == project, runs.c.state == "waiting")
    earlier = and_(runs.c.event.startswith(f"pull_request {number} "), runs.c.event != event)
    _end(connection, and_(waiting, earlier), Ended("cancelled", why))


def expire(connection: Connection, now: float) -> None:
    """End what nobody has approved in time."""
    old = and_(runs.c.state == "waiting", runs.c.created < now - APPROVE_WITHIN)
    days = APPROVE_WITHIN / 86400
    _end(connection, old, Ended("cancelled", f"nobody approved it within {days:g} days; a new push asks again"))


def _end(connection: Connection, which: ColumnElement[bool], ended: Ended) -> None:
    for id_ in connection.execute(select(runs.c.id).where(which)).scalars().all():
        finish(connection, id_, ended)
