"""Telling a project's targets of its runs: a message is written with what it tells of, and tried until it is taken."""

import time
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Row, and_, func, insert, select, update

from runner.folder import RunFolder
from runner.server import targets as known
from runner.server.courier import send
from runner.server.database import notifications, runs, targets
from runner.server.feedback import run_link
from runner.server.messages import GREEN, RED, message_on
from runner.server.outbox import MOST_TRIES, Entry, Outbox, after
from runner.server.registry import Registry
from runner.state import RunState, fold

__all__ = ["Notifier", "announce", "announce_end"]

AT_ONCE = 8
"""Messages under way at once, of all projects."""
_OF_RUN = ("project", "pipeline", "number", "ref", "commit", "trigger", "outcome", "note", "started", "ended")


def announce_end(connection: Connection, run: str) -> None:
    """Write the messages on a run that has just ended, in the transaction that ends it."""
    row = connection.execute(select(runs).where(runs.c.id == run)).one()
    if row.outcome in RED:
        announce(connection, run, "failed")
    elif row.outcome in GREEN and _was_red(connection, row):
        announce(connection, run, "fixed")
    else:
        announce(connection, run, "ended")


def announce(connection: Connection, run: str, event: str) -> None:
    """Write a message to each target of the run's project that is to be told of an event, once for each.

    Who wants `ended` is told of every end, by whichever of its words fits best.
    """
    project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one()
    wanted = {event} if event == "waiting" else {event, "ended"}
    for target in connection.execute(select(targets).where(targets.c.project == project)).all():
        row = {"run": run, "event": event, "target": target.name}
        there = select(notifications.c.run).where(*(notifications.c[name] == value for name, value in row.items()))
        if wanted & set(target.events.split(",")) and not connection.execute(there).one_or_none():
            connection.execute(insert(notifications).values({**row, "project": project}))


def _was_red(connection: Connection, row: "Row[Any]") -> bool:
    """Whether the news before was bad: of the older runs of its pipeline and ref, that which ended last.

    An older run that ends after a younger one has said how things are is no news.
    """
    line = and_(runs.c.project == row.project, runs.c.pipeline == row.pipeline, runs.c.ref == row.ref)
    telling = and_(line, runs.c.state == "ended", runs.c.outcome.in_((*RED, *GREEN)))
    if not row.ref or connection.execute(select(runs.c.id).where(telling, runs.c.number > row.number).limit(1)).first():
        return False
    before = select(runs.c.outcome).where(telling, runs.c.number < row.number).order_by(runs.c.ended.desc())
    return connection.execute(before.limit(1)).scalar_one_or_none() in RED


class Notifier:
    """Works the messages, of each target one after the other."""

    def __init__(self, registry: Registry, url: str) -> None:
        """`url` is how people reach the server; empty: messages have no links."""
        self._registry = registry
        self._url = url
        self._slots = anyio.Semaphore(AT_ONCE)
        self._outbox = Outbox(registry.database, _due, self._send, _told)
        self.wake = self._outbox.wake

    async def work(self) -> None:
        """Work until cancelled."""
        await self._outbox.work()

    async def _send(self, entry: Entry) -> str:
        """Send one message; what went wrong, empty if it was taken."""
        find = partial(known.url_of, seal=self._registry.seal, project=entry.project, name=entry.target)
        url = await self._registry.database.read(find)
        if url is None:
            return ""  # removed a moment ago, and the message with it
        folder = RunFolder(self._registry.layout.store(entry.project) / entry.pipeline / str(entry.number))
        state = await anyio.to_thread.run_sync(_state, folder, entry.run)
        async with self._slots:
            return await send(url, message_on(entry, entry.told_of, state, run_link(self._url, entry.run)))


def _state(folder: RunFolder, run: str) -> RunState:
    """The fold of a run's journal; nothing of one that is gone, spoiled, or another run's."""
    try:
        state = fold(folder.records())
    except ValueError:
        return RunState()
    return state if state.id == run else RunState()


def _due(connection: Connection) -> Mapping[Hashable, Entry]:
    """The oldest message that each target is to be told now."""
    receiver = (notifications.c.project, notifications.c.target)
    open_ = and_(
        notifications.c.told.is_(False), notifications.c.due <= time.time(), notifications.c.tries < MOST_TRIES
    )
    oldest = select(*receiver, func.min(notifications.c.run).label("run")).where(open_).group_by(*receiver).subquery()
    mine = and_(
        notifications.c.project == oldest.c.project,
        notifications.c.target == oldest.c.target,
        notifications.c.run == oldest.c.run,
    )
    told = (notifications.c.run, notifications.c.target, notifications.c.event.label("told_of"), notifications.c.tries)
    columns = (*told, *(runs.c[name] for name in _OF_RUN))
    wanted = select(*columns).join(oldest, mine).join(runs, runs.c.id == notifications.c.run).where(open_)
    return {(entry.project, entry.target): entry for entry in connection.execute(wanted)}


def _told(connection: Connection, entry: Entry, note: str) -> None:
    mine = (
        notifications.c.run == entry.run,
        notifications.c.event == entry.told_of,
        notifications.c.target == entry.target,
    )
    connection.execute(update(notifications).where(*mine).values(after(entry.tries, note)))
