"""What the server itself knows, in SQL: people, projects, deliveries, runs, refs it has seen, what it has to report.

What happens *in* a run is in the run's folder alone. Tables change by migrations: see CONTRIBUTING.md.
"""

import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import anyio
import anyio.to_thread
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from pipeline.errors import PipeError
from runner.server.connections import MOST, Away, Listener, as_away, engine_for, for_reading, is_shared, writing
from runner.server.migrations import bring_up

__all__ = [
    "Database",
    "audit",
    "deliveries",
    "grants",
    "keeps",
    "leases",
    "links",
    "mirrors",
    "notifications",
    "people",
    "places",
    "projects",
    "refs",
    "runs",
    "secrets",
    "servers",
    "sessions",
    "statuses",
    "targets",
    "times",
    "tokens",
    "uids",
]

T = TypeVar("T")
READERS = MOST - 2
ASK_EVERY = 1.0
"""Seconds between two questions whether a database is back."""
LOOK_EVERY, LOOK_SELDOM = 10.0, 30.0
"""Seconds after which everybody looks who was told nothing: between servers a word may get lost, in one none does."""

_metadata = MetaData()

projects = Table(
    "projects",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("place", Text, nullable=False, server_default=""),
    Column("url", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("forge", Text, nullable=False),
    Column("created", Float, nullable=False),
    # sealed by `runner.server.sealing`
    Column("secret", LargeBinary, nullable=False),
    Column("login", LargeBinary, nullable=False),
    Column("token", LargeBinary, nullable=False),
    # who may do more than others, each name on a line
    Column("trusted", Text, nullable=False, default=""),
    Column("followers", Text, nullable=False, default=""),
    Column("public_badge", Boolean, nullable=False, default=False),
)
"""A repository whose deliveries start runs: hook secret, login for git, and token for the forge's API are sealed."""

places = Table(
    "places",
    _metadata,
    Column("place", Text, primary_key=True),
    Column("project", Text, nullable=False),
)
"""Where a project is on the disks of servers, or was: no other one gets it, for its files are there."""

secrets = Table(
    "secrets",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("changed", Float, nullable=False),
)
"""What the pipelines of a project are given by name; the value is sealed."""

mirrors = Table(
    "mirrors",
    _metadata,
    Column("run", Text, primary_key=True),
    Column("digest", Text, nullable=False),
)
"""By which token a run reports its files: SHA-256, as of the tokens of people; it opens nothing else."""

keeps = Table(
    "keeps",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("what", Text, primary_key=True),  # runs, logs
    Column("most", Integer, nullable=False),
    Column("days", Integer, nullable=False),
)
"""How much of a project's past stays, where it is not the usual; 0: no limit."""

uids = Table(
    "uids",
    _metadata,
    Column("place", Text, primary_key=True),
    Column("uid", Integer, nullable=False, unique=True),
)
"""As which user of this machine the runs of a project are started; it stays with the place, for files are his."""

deliveries = Table(
    "deliveries",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("forge", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("received", Float, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("state", Text, nullable=False),  # new, done, failed, refused
    Column("note", Text, nullable=False, default=""),
    Column("copies", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False, default=0.0),
    Index("deliveries_due", "state", "due"),
    Index(
        "deliveries_key",
        "project",
        "key",
        unique=True,
        sqlite_where=text("state != 'refused'"),
        postgresql_where=text("state != 'refused'"),
    ),
)

runs = Table(
    "runs",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, nullable=False),  # of one that was removed, a name that no project can have
    Column("place", Text, nullable=False, server_default=""),
    Column("pipeline", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("found_by", Text, nullable=False),  # hook, poll, call
    Column("delivery", Text, nullable=False, default=""),
    Column("ref", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("file_commit", Text, nullable=False),  # at which the pipeline file is read: of a fork, the base's
    Column(
        "fetched_from", Text, nullable=False, default=""
    ),  # a fork's URL, where its forge shows the commit nowhere else
    Column("chain", Text, nullable=False, default="[]"),  # the pipelines whose ends led to it, the first one first
    Column("trigger", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting (for approval), queued, running, ended
    Column("approved_by", Text, nullable=False, default=""),
    Column("outcome", Text, nullable=False, default=""),
    Column("note", Text, nullable=False, default=""),
    Column("pid", Integer, nullable=False, default=0),
    Column("revived", Integer, nullable=False, default=0),
    Column("follow_at", Float, nullable=False, default=0.0),
    Column("followed", Boolean, nullable=False, default=False),  # by what its end starts
    Column("traced", Boolean, nullable=False, default=False),  # its trace is at the collector, or given up
    Column("trace_tries", Integer, nullable=False, default=0, server_default="0"),
    Column("trace_due", Float, nullable=False, default=0.0, server_default="0"),
    Column("grouped", Boolean, nullable=False, default=False, server_default=false()),  # it takes turns with others
    Column("server", Text, nullable=False, default="", server_default=""),  # whose disk it is on; none while queued
    Column("created", Float, nullable=False),
    Column("started", Float, nullable=False, default=0.0),
    Column("ended", Float, nullable=False, default=0.0),
    UniqueConstraint("project", "pipeline", "event"),
    UniqueConstraint("project", "pipeline", "number"),
    Index("runs_state", "state", "created"),
    Index("runs_ended", "project", "pipeline", "ref", "ended"),
)
"""One run for each pipeline and event; `event` names what happened in words that are the same however it was found."""

refs = Table(
    "refs",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("ref", Text, primary_key=True),
    Column("commit", Text, nullable=False),
    Column("moves", Integer, nullable=False, default=1),
)
"""Where each branch and tag of a project stood when it was looked at last, and how often it has moved."""

times = Table(
    "times",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("at", Text, primary_key=True),
    Column("zone", Text, primary_key=True),
    Column("looked", Float, nullable=False),
)
"""Up to which moment the times of a `cron:` trigger have been taken care of."""

statuses = Table(
    "statuses",
    _metadata,
    Column("run", Text, primary_key=True),
    Column("state", Text, nullable=False),  # pending, success, failure
    Column("description", Text, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False, default=0.0),
    Column("told", Boolean, nullable=False, default=False),
    Column("note", Text, nullable=False, default=""),
    Index("statuses_due", "told", "due"),
)
"""What a forge is to show beside a run's commit; a newer state takes the place of one that was not told yet."""

people = Table(
    "people",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("password", Text, nullable=False, default=""),  # an argon2id hash
    Column("identity", Text, unique=True),  # issuer and subject of OpenID Connect, NULL without
    Column("created", Float, nullable=False),
)
"""Who can sign in: by password, by an OpenID provider, or not yet."""

grants = Table(
    "grants",
    _metadata,
    Column("person", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("scope", Text, primary_key=True),  # a project, or "" for everything
)
"""Which roles a person has, and where; what a role may do is in `runner.server.rights`."""

sessions = Table(
    "sessions",
    _metadata,
    Column("digest", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Index("sessions_person", "person"),
)
"""Browsers that are signed in: SHA-256 of ids of 256 random bits, never the ids."""

links = Table(
    "links",
    _metadata,
    Column("digest", Text, primary_key=True),
    Column("person", Text, nullable=False),  # "" for the first administrator, who has no name yet
    Column("expires", Float, nullable=False),
)
"""One-time links by which a person chooses a password: digests, as above."""

targets = Table(
    "targets",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("url", LargeBinary, nullable=False),  # sealed by `runner.server.sealing`
    Column("service", Text, nullable=False),
    Column("events", Text, nullable=False),  # separated by commas
    Column("created", Float, nullable=False),
)
"""Whom a project tells of its runs, and of what; the URL holds the receiver's password or key."""

notifications = Table(
    "notifications",
    _metadata,
    Column("run", Text, primary_key=True),
    Column("event", Text, primary_key=True),  # failed, fixed, waiting, ended
    Column("target", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False, default=0.0),
    Column("told", Boolean, nullable=False, default=False),
    Column("note", Text, nullable=False, default=""),
    Index("notifications_due", "told", "due"),
)
"""Messages to targets, written with what they tell of; what they say is read from the run when they are sent."""

tokens = Table(
    "tokens",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("person", Text, nullable=False),  # "" when it belongs to a program and to nobody
    Column("role", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False, default=0.0),  # 0: never
    Column("used", Float, nullable=False, default=0.0),
    Index("tokens_person", "person"),
)
"""By what programs use the API: digests, as above. A token may do no more than its person."""


audit = Table(
    "audit",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Who did what, when, from where: rows are added, and never changed or removed."""


servers = Table(
    "servers",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("heard", Float, nullable=False),
    Column("proof", LargeBinary, nullable=False),
)
"""Who works on this database: `epoch` counts the starts, `heard` is the last sign of life by the database's own clock.

`proof` is sealed as secrets of projects are: who cannot open it has another key.
"""

leases = Table(
    "leases",
    _metadata,
    Column("project", Text, primary_key=True),
    Column("server", Text, nullable=False),
)
"""Which server works what comes in for a project; another one may take it when that one is not heard of any more."""


class _Write:
    """One piece of a transaction, and what became of it."""

    def __init__(self, work: Callable[[Connection], object]) -> None:
        self._work = work
        self.result: object = None
        self.error: Exception | None = None
        self.done = False

    def run(self, connection: Connection) -> None:
        """Do it, all or nothing.

        Raises:
            Away: the connection broke, and with it the whole transaction.
        """
        connection.exec_driver_sql("SAVEPOINT piece")
        try:
            with as_away():
                self.result = self._work(connection)
        except Exception as error:
            self.error = error
            if connection.invalidated:
                raise
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT piece")
        connection.exec_driver_sql("RELEASE SAVEPOINT piece")


class Database:
    """A SQLite file, or a PostgreSQL that several servers share. One transaction writes at a time, in all of them.

    Functions given to it run in threads and must not keep the connection.
    """

    def __init__(self, place: Path | URL, in_use: Callable[[Connection], str] = lambda _: "") -> None:
        """Open it, and bring its schema up to date; `in_use` says who would be disturbed by that.

        Raises:
            PipeError: it does not answer, or its schema is none of this program.
        """
        self._engine = engine_for(place)
        self._reading = for_reading(self._engine)
        self.shared = is_shared(self._engine)
        self.look_every = LOOK_EVERY if self.shared else LOOK_SELDOM
        self._journal = None if isinstance(place, URL) else place.with_name(f"{place.name}-wal")
        self._writing = threading.Lock()
        self._writer = anyio.CapacityLimiter(1)
        self._turn = anyio.Lock()
        self._waiting: list[_Write] = []
        self._readers = anyio.CapacityLimiter(READERS)
        self._away: Away | None = None
        self._news = anyio.Event()
        with _plainly():
            bring_up(self._engine, place if isinstance(place, Path) else None, in_use)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction; it is on disk when this returns, or nothing of it is.

        What comes while the disk is busy shares the next transaction, each by itself: one that fails undoes
        nothing of the others.

        Raises:
            Away: the database does not answer; seldom it has done it all the same.
        """
        self._answers()
        mine = _Write(work)
        self._waiting.append(mine)
        async with self._turn:
            if not mine.done:
                together, self._waiting = self._waiting, []
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._write_together, together, limiter=self._writer)
        if isinstance(mine.error, Away):
            self._lose(mine.error)
        if mine.error is not None:
            raise mine.error
        return cast("T", mine.result)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The same where no event loop runs. Blocks.

        Raises:
            PipeError: the database does not answer.
        """
        mine = _Write(work)
        self._write_together([mine])
        if mine.error is not None:
            with _plainly():
                raise mine.error
        return cast("T", mine.result)

    def _write_together(self, writes: Sequence["_Write"]) -> None:
        """Do them in one transaction; what became of each stands in it."""
        try:
            with self._writing, as_away(), writing(self._engine) as connection:
                for write in writes:
                    write.run(connection)
        except Exception as error:  # noqa: BLE001 - nothing of them is on disk
            for write in writes:
                write.error = error
        finally:
            for write in writes:
                write.done = True

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Look at what is there.

        Raises:
            Away: the database does not answer.
        """
        self._answers()
        try:
            return await anyio.to_thread.run_sync(self._read, work, limiter=self._readers)
        except Away as away:
            self._lose(away)
            raise

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """The same where no event loop runs. Blocks.

        Raises:
            PipeError: the database does not answer.
        """
        with _plainly():
            return self._read(work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with as_away(), self._reading.connect() as connection:
            return work(connection)

    def written(self) -> int:
        """A number that is another one after whatever anybody has written into a file of ours; 0 for what is shared."""
        try:
            return self._journal.stat().st_mtime_ns if self._journal else 0
        except FileNotFoundError:
            return 0

    # -- when it is away ---------------------------------------------------------------------------

    @property
    def away(self) -> Away | None:
        """Why the database cannot be asked now; None when it can."""
        return self._away

    def _answers(self) -> None:
        """Raise Away at once while it is known: nobody waits for what does not answer."""
        if self._away:
            raise Away(str(self._away))

    def _lose(self, away: Away) -> None:
        if self._away is None:
            self._away = away
            self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def back(self) -> None:
        """Wait until the database answers."""
        while self._away is not None:
            await self._news.wait()

    async def mend(self) -> None:
        """While the database is away, ask once a second whether it is back; until cancelled. People are told once."""
        while True:
            while self._away is None:
                await self._news.wait()
            since = time.monotonic()
            sys.stderr.write(
                f"pipe: the database does not answer: {self._away}; deliveries are refused until it does\n"
            )
            while self._away is not None:
                await anyio.sleep(ASK_EVERY)
                with suppress(Away):
                    await anyio.to_thread.run_sync(self._read, lambda c: c.exec_driver_sql("SELECT 1").scalar())
                    self._away = None
            sys.stderr.write(f"pipe: the database is back after {time.monotonic() - since:.0f} s\n")
            self._tell_news()

    async def outlast(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do work that asks the database; whenever that was away, begin anew as after a start of the server."""
        while True:
            try:
                await work()
            except* Away as group:
                self._lose(Away(str(_first(group))))
            else:
                return
            await self.back()

    def listener(self, channel: str) -> Listener:
        """Hear what others tell. Blocks.

        Raises:
            Away: the database does not answer.
        """
        return Listener(self._engine, channel)

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@contextmanager
def _plainly() -> Iterator[None]:
    """Tell the person who called a command that the database does not answer."""
    try:
        with as_away():
            yield
    except Away as away:
        raise PipeError(f"the database does not answer: {away}") from away
