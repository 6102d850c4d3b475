"""Sending the messages that were written: each is made from its run, and tried until it is taken."""

import time
from collections.abc import Hashable, Mapping
from functools import partial

import anyio
import anyio.to_thread
from sqlalchemy import Connection, and_, func, select, update

from runner.folder import RunFolder
from runner.server import targets as known
from runner.server.courier import send
from runner.server.database import notifications, runs
from runner.server.feedback import run_link
from runner.server.fleet import Fleet
from runner.server.messages import message_on
from runner.server.outbox import MOST_TRIES, Entry, Outbox, after
from runner.server.projects import while_standing
from runner.server.reading import state_of
from runner.server.registry import Registry
from runner.state import RunState

__all__ = ["Notifier"]

AT_ONCE = 8
"""Messages under way at once, of all projects."""
_OF_RUN = ("project", "place", "pipeline", "number", "ref", "commit", "trigger", "outcome", "note", "started", "ended")


class Notifier:
    """Works the messages, of each target one after the other."""

    def __init__(self, registry: Registry, url: str) -> None:
        """`url` is how people reach the server; empty: messages have no links."""
        self._registry = registry
        self._url = url
        self._slots = anyio.Semaphore(AT_ONCE)
        self._outbox = Outbox(registry.database, partial(_due, fleet=registry.fleet), self._send, _told)
        self.wake = self._outbox.wake

    async def work(self) -> None:
        """Work until cancelled."""
        await self._outbox.work()

    async def _send(self, entry: Entry) -> str:
        """Send one message; what went wrong, empty if it was taken."""
        project = await self._registry.at(entry.project, entry.place)
        if project is None:
            return ""  # removed a moment ago, and the message with it
        find = partial(known.url_of, seal=self._registry.seal, project=project.name, name=entry.target)
        url = await self._registry.database.read(while_standing(project, find))
        if url is None:
            return ""  # so was the target
        shown = self._registry.layout.shown
        folder = RunFolder(shown(entry.place, entry.pipeline, entry.number, entry.run))
        state = await anyio.to_thread.run_sync(_state, folder, entry.run)
        async with self._slots:
            return await send(url, message_on(entry, entry.told_of, state, run_link(self._url, entry.run)))


def _state(folder: RunFolder, run: str) -> RunState:
    """The fold of a run's journal; nothing of one that is gone, spoiled, or another run's."""
    state = state_of(folder)
    return state if state.id == run else RunState()


def _due(connection: Connection, fleet: Fleet) -> Mapping[Hashable, Entry]:
    """The oldest message that each target is to be told now."""
    receiver = (notifications.c.project, notifications.c.target)
    open_ = and_(
        notifications.c.told.is_(False), notifications.c.due <= time.time(), notifications.c.tries < MOST_TRIES
    )
    ours = select(*receiver, func.min(notifications.c.run).label("run")).join(runs, runs.c.id == notifications.c.run)
    oldest = ours.where(open_, fleet.tells(connection)).group_by(*receiver).subquery()
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
