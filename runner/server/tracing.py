"""The traces of runs that the server started, sent when they have ended, if the standard variables name a collector."""

import os
import sys
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import anyio.to_thread
from sqlalchemy import Connection, and_, select, update

from runner import telemetry
from runner.folder import RunFolder
from runner.server.database import Database, runs
from runner.server.feedback import run_link
from runner.server.fleet import Fleet
from runner.server.layout import Layout
from runner.server.outbox import Entry, Outbox, pause_after
from runner.server.users import as_run

__all__ = ["Tracer"]

MOST_TRIES = 8
"""Of one run; after some ten minutes its trace is given up."""
NO_OLDER = 86400.0
"""Seconds since a run's end: a server that is told of a collector today sends no trace of last year."""


@dataclass
class Tracer:
    """Sends one trace after the other. A collector that does not answer holds up nothing else."""

    database: Database
    layout: Layout
    fleet: Fleet
    url: str

    def __post_init__(self) -> None:
        """Open the box."""
        self._outbox = Outbox(self.database, self._due, self._send, self._told)
        self.wake = self._outbox.wake

    async def work(self) -> None:
        """Work until cancelled; not at all when nobody wants traces."""
        if telemetry.wanted(os.environ):
            await self._outbox.work()

    def _due(self, connection: Connection) -> Mapping[Hashable, Entry]:
        """The oldest run whose trace is still to be sent; the collector is the only receiver."""
        now = time.time()
        open_ = and_(runs.c.state == "ended", runs.c.traced.is_(False), runs.c.ended > now - NO_OLDER)
        ours = and_(self.fleet.tells(connection), runs.c.trace_due <= now)
        wanted = select(runs, runs.c.trace_tries.label("tries")).where(open_, ours).order_by(runs.c.ended).limit(1)
        entry = connection.execute(wanted).one_or_none()
        return {"collector": entry} if entry else {}

    async def _send(self, entry: Entry) -> str:
        folder = RunFolder(self.layout.shown(entry.place, entry.pipeline, entry.number, entry.id))
        if not entry.started or not await anyio.to_thread.run_sync(folder.plan.exists):
            return ""  # it never began
        return await anyio.to_thread.run_sync(_exported, folder, run_link(self.url, entry.id))

    def _told(self, connection: Connection, entry: Entry, note: str) -> None:
        tries = entry.tries + 1
        if note and tries == MOST_TRIES:
            name = f"{entry.project} {entry.pipeline}#{entry.number}"
            sys.stderr.write(f"pipe: the trace of {name} is given up after {tries} tries: {note}\n")
        due = time.time() + pause_after(entry.tries)
        values = {"traced": not note or tries >= MOST_TRIES, "trace_tries": tries, "trace_due": due}
        connection.execute(update(runs).where(runs.c.id == entry.id).values(values))


def _exported(folder: RunFolder, url: str) -> str:
    with as_run(folder):  # a thread that it starts begins with these rights, too
        return telemetry.export(folder, url=url)
