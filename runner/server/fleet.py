"""The servers of one database: who they are, which of them live, and which projects each one works."""

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.to_thread
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, text, true, update
from ulid_transform import ulid_now

from pipeline.errors import PipeError
from runner.ownership import HEARTBEAT, SILENT_AFTER
from runner.server.database import Database, leases, projects, runs, servers
from runner.server.layout import Layout
from runner.server.looks import until_next
from runner.server.sealing import Seal

__all__ = ["Fleet", "Member", "NotOurs", "holder_of", "identity", "member", "members", "others_alive", "prove"]

CHANNEL = "pipe"
FORGOTTEN_AFTER = 30 * 86400.0
TELL_EVERY, WATCH_EVERY = 0.1, 10.0
"""Seconds between two calls to the other servers, however much there is to tell."""


class NotOurs(Exception):
    """Another server works the project by now: this one was not heard of for too long."""


@dataclass(frozen=True, slots=True)
class Member:
    """A server, and for how many seconds nothing has been heard of it."""

    id: str
    host: str
    url: str
    silent: float

    @property
    def alive(self) -> bool:
        """Whether it has been heard of lately."""
        return self.silent < SILENT_AFTER

    def __str__(self) -> str:
        return f"the server on {self.host} ({self.url})"


class Fleet:
    """This server among those that share its database; with SQLite it is alone, and everything is its own."""

    def __init__(self, database: Database, layout: Layout, url: str) -> None:
        """`url` is where the others reach this one."""
        self._database = database
        self._url = url
        self._epoch = 0
        self._news = anyio.Event()
        self.id = identity(layout)

    def join(self, connection: Connection, seal: Seal) -> None:
        """Take this server's place.

        Raises:
            PipeError: the others seal with another key.
        """
        prove(connection, seal)
        mine = servers.c.id == self.id
        before = connection.execute(select(servers.c.epoch).where(mine)).scalar_one_or_none()
        self._epoch = (before or 0) + 1
        now, proof = _now(connection), seal.close(self.id)
        row = {"epoch": self._epoch, "host": socket.gethostname(), "url": self._url, "heard": now, "proof": proof}
        long_gone = (servers.c.heard < now - FORGOTTEN_AFTER, servers.c.id != self.id)
        with_runs = select(runs.c.server).where(runs.c.state == "running")
        connection.execute(delete(servers).where(*long_gone, servers.c.id.not_in(with_runs)))
        if before is None:
            connection.execute(insert(servers).values(id=self.id, **row))
        else:
            connection.execute(update(servers).where(mine).values(row))

    def leave(self, connection: Connection) -> None:
        """Let others have the projects at once; runs stay where they are."""
        mine = (servers.c.id == self.id, servers.c.epoch == self._epoch)
        if connection.execute(update(servers).where(*mine).values(heard=0.0)).rowcount:
            connection.execute(delete(leases).where(leases.c.server == self.id))

    async def beat(self, lost: Callable[[], None]) -> None:
        """Say that we live, until cancelled; `lost` is called when a copy of our folder has taken our place."""
        while self._database.shared:
            if not await self._database.write(self._beat):
                sys.stderr.write("pipe: another server with the same server-id has joined; was the folder copied?\n")
                lost()
                return
            await anyio.sleep(HEARTBEAT)

    def _beat(self, connection: Connection) -> bool:
        mine = (servers.c.id == self.id, servers.c.epoch == self._epoch)
        return bool(connection.execute(update(servers).where(*mine).values(heard=_now(connection))).rowcount)

    # -- projects ----------------------------------------------------------------------------------

    async def projects(self) -> list[str]:
        """The projects that this server works; those that no living server has are taken."""
        mine, free = await self._database.read(self._divided)
        return mine if not free else await self._database.write(self._take)

    def _divided(self, connection: Connection) -> tuple[list[str], list[str]]:
        """Which projects are ours, and which are nobody's."""
        joined = (
            select(projects.c.name, leases.c.server, servers.c.heard)
            .outerjoin(leases, leases.c.project == projects.c.name)
            .outerjoin(servers, servers.c.id == leases.c.server)
            .order_by(projects.c.name)
        )
        rows = connection.execute(joined).all()
        dead = _now(connection) - SILENT_AFTER
        mine = [row.name for row in rows if row.server == self.id]
        return mine, [row.name for row in rows if row.server != self.id and (row.heard or 0.0) < dead]

    def _take(self, connection: Connection) -> list[str]:
        mine, free = self._divided(connection)
        connection.execute(delete(leases).where(leases.c.project.in_(free)))
        for name in free:
            connection.execute(insert(leases).values(project=name, server=self.id))
        return sorted([*mine, *free])

    def hold(self, connection: Connection, project: str) -> None:
        """Make sure, inside of a transaction that writes, that a project is still ours.

        Raises:
            NotOurs: another server has taken it.
        """
        if holder_of(connection, project) != self.id:
            raise NotOurs(f"another server works {project} by now")

    def members(self, connection: Connection) -> list[Member]:
        """Everybody who has ever joined; of this one something is heard now."""
        found = members(connection)
        return [replace(each, silent=0.0) if each.id == self.id else each for each in found]

    def tells(self, connection: Connection) -> ColumnElement[bool]:
        """Of which `runs` this server tells others: of its own, and of those of its projects that no living one has."""
        if not self._database.shared:
            return true()
        alive = [each.id for each in members(connection) if each.alive]
        ours = select(leases.c.project).where(leases.c.server == self.id)
        nobodys = and_(runs.c.server.not_in(alive), runs.c.project.in_(ours))
        return or_(runs.c.server == self.id, nobodys)

    # -- telling each other ------------------------------------------------------------------------

    def tell(self) -> None:
        """There is something to do that another server may be waiting for. A hint: everybody looks now and then."""
        self._news.set()

    async def talk(self) -> None:
        """Pass on what `tell` was called for, until cancelled."""
        while self._database.shared:
            await self._news.wait()
            self._news = anyio.Event()
            await self._database.write(partial(_notify, id_=self.id))
            await anyio.sleep(TELL_EVERY)

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` for what other servers tell, or commands on this machine write, until cancelled."""
        if not self._database.shared:
            await self._watch(wake)
            return
        ear = await anyio.to_thread.run_sync(self._database.listener, CHANNEL)
        try:
            wake()
            while True:
                await anyio.wait_readable(ear.fileno())
                heard = await anyio.to_thread.run_sync(ear.heard)
                if any(id_ != self.id for id_ in heard):
                    wake()
        finally:
            ear.close()

    async def _watch(self, wake: Callable[[], None]) -> None:
        before = await anyio.to_thread.run_sync(self._database.written)
        while True:
            await anyio.sleep(until_next(WATCH_EVERY))
            now = await anyio.to_thread.run_sync(self._database.written)
            if now != before:
                before = now
                wake()


def identity(layout: Layout) -> str:
    """The id of the server that works in a folder, for as long as the folder lives."""
    file = layout.identity
    if not file.exists():
        part = file.with_name(f".{file.name}.part")
        part.write_text(f"{ulid_now()}\n")
        part.replace(file)
    return file.read_text().strip()


def prove(connection: Connection, seal: Seal) -> None:
    """Make sure that secrets are sealed as the servers of this database seal them.

    Raises:
        PipeError: they have another key.
    """
    newest = select(servers.c.host, servers.c.proof).order_by(servers.c.heard.desc()).limit(1)
    if (row := connection.execute(newest).one_or_none()) is not None:
        try:
            seal.open(row.proof)
        except PipeError as error:
            raise PipeError(
                f"the server on {row.host} seals secrets with another key: give this one the same, by PIPE_SERVER_KEY "
                "or as the file `key` in its folder"
            ) from error


def member(connection: Connection, id_: str) -> Member | None:
    """A server by its id."""
    return next((each for each in members(connection) if each.id == id_), None)


def members(connection: Connection) -> list[Member]:
    """Everybody who has ever joined, the one heard of last first."""
    now = _now(connection)
    rows = connection.execute(select(servers).order_by(servers.c.heard.desc()))
    return [Member(row.id, row.host, row.url, max(0.0, now - row.heard)) for row in rows]


def others_alive(connection: Connection, mine: str) -> str:
    """Who else works on the database now; empty if nobody does."""
    return ", ".join(str(each) for each in members(connection) if each.alive and each.id != mine)


def holder_of(connection: Connection, project: str) -> str:
    """The id of the server that works a project; empty if nobody does."""
    found = select(leases.c.server).where(leases.c.project == project)
    return connection.execute(found).scalar_one_or_none() or ""


def _now(connection: Connection) -> float:
    """The time by the one clock that all servers share, in seconds since the epoch."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _notify(connection: Connection, id_: str) -> None:
    connection.execute(select(func.pg_notify(CHANNEL, id_)))
