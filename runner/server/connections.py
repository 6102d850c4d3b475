"""How the database is reached: a SQLite file of one server alone, or a PostgreSQL that several share."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from pipeline.errors import PipeError

__all__ = [
    "MOST",
    "Away",
    "Listener",
    "as_away",
    "begin",
    "engine_for",
    "for_reading",
    "is_shared",
    "shown",
    "url_of",
    "writing",
]

MOST = 10
"""How many connections one server has to a PostgreSQL at most, beside the one that it listens at."""
CONNECT_WITHIN = 5
"""Seconds in which a PostgreSQL must take a connection, or a connection become free."""
_LIMITS = {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "5s"}
"""What a server that hangs, or a network that swallows, may hold up in a PostgreSQL.

One that stands still in the middle of a transaction loses it before others have waited for it too long.
"""
_SIGNS_OF_LIFE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15000}
WRITE_WITHIN = 10.0
"""Seconds in which whoever else writes to a file of SQLite must have done so."""
_LOCK = 0x70697065
_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": f"SELECT pg_advisory_xact_lock({_LOCK})"}


class Away(Exception):
    """The database cannot be asked now. What was asked for has not been done, or nobody can say whether it has."""


def url_of(text: str) -> URL:
    """The URL of a PostgreSQL, as `postgresql://user@host:5432/name?sslmode=verify-full`.

    Raises:
        PipeError: it is none.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise PipeError(
            "the database has to be postgresql://USER@HOST/NAME; without it a file of the server's own is used"
        )
    return url.set(drivername="postgresql+psycopg")


def shown(place: Path | URL) -> str:
    """The database in words that hold no password."""
    if isinstance(place, Path):
        return str(place)
    return place.set(drivername="postgresql").difference_update_query(["password"]).render_as_string()


def is_shared(engine: Engine) -> bool:
    """Whether other servers may work on the same database."""
    return engine.dialect.name != "sqlite"


def for_reading(engine: Engine) -> Engine:
    """The same connections without transactions: each would cost two more questions, and no reader needs them."""
    return engine.execution_options(isolation_level="AUTOCOMMIT") if is_shared(engine) else engine


def begin(connection: Connection) -> None:
    """Begin a transaction that writes: no other one does meanwhile, in whichever server.

    So what was read before is still true when something is written, on both databases: what a piece of work needs
    no thought for, it cannot get wrong. PostgreSQL would let them run at once, and find out at the end, or never.
    """
    connection.exec_driver_sql(_BEGIN[connection.dialect.name])


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, which is on disk at the end, or nothing of it is.

    Raises:
        Away: another process does not end its own, or the folder of a file is not there any more.
    """
    with _alone(engine), engine.connect() as connection:
        begin(connection)
        yield connection
        connection.commit()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Of all processes the only one that commits to a file of SQLite, and moves its log into it after that.

    Before 3.51.3 SQLite can lose what one connection commits while another one does the second (the "WAL-reset bug",
    sqlite.org/wal.html), and its own lock covers a commit alone. This one is of the folder: whoever closes a second
    descriptor of the file itself loses SQLite's locks of it.
    """
    if is_shared(engine):
        yield
        return
    folder = Path(str(engine.url.database)).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Away(f"{folder}: {error.strerror}") from error
    try:
        _lock(descriptor)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that is just starting may hold a copy of the descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + WRITE_WITHIN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Away(f"another process has been writing to it for {WRITE_WITHIN:g} s") from None
            time.sleep(0.002)
        else:
            return


@contextmanager
def as_away() -> Iterator[None]:
    """What the driver says when the database cannot be asked, as `Away`."""
    try:
        yield
    except DBAPIError as error:
        if not (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)):
            raise
        raise Away(_first_line(error.orig or error)) from error
    except NoConnection as error:
        raise Away(f"all {MOST} connections are busy") from error


class Listener:
    """A connection of its own at which a PostgreSQL passes on what other servers tell. Its methods block."""

    def __init__(self, engine: Engine, channel: str) -> None:
        """Listen at a channel.

        Raises:
            Away: the database does not answer.
        """
        with as_away():
            self._pooled = engine.raw_connection()
            self._connection = cast("Any", self._pooled.driver_connection)
            self._pooled.detach()
            self._connection.autocommit = True
        self._asked("execute", f"LISTEN {channel}")

    def fileno(self) -> int:
        """What can be read when something has come."""
        return int(self._connection.fileno())

    def heard(self) -> list[str]:
        """What has come since.

        Raises:
            Away: the connection has broken.
        """
        return [each.payload for each in self._asked("notifies", timeout=0)]

    def _asked(self, name: str, *words: object, **named: object) -> Any:
        from psycopg import OperationalError

        try:
            answer = getattr(self._connection, name)(*words, **named)
            return list(answer) if name == "notifies" else answer
        except OperationalError as error:
            raise Away(_first_line(error)) from error

    def close(self) -> None:
        """Listen no more."""
        self._pooled.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def engine_for(place: Path | URL) -> Engine:
    """Connections to a file or to a PostgreSQL; nothing is opened yet."""
    return _sqlite(place) if isinstance(place, Path) else _postgresql(place)


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        for words in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {words}")

    return engine


_ON_DISK_WHEN_ANSWERED = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""What was answered must outlive a crash, whatever the server's own setting; one that is stricter stays."""


def _postgresql(url: URL) -> Engine:
    try:
        from psycopg.types.string import StrDumper
    except ImportError as error:
        raise PipeError(f"there is no {error.name}: PostgreSQL needs the extra `pipe-ci[server]`") from error

    class Text(StrDumper):
        """Text as PostgreSQL takes it; programs also say the character 0, and halves of characters."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd").encode("utf-8", "replace").decode())

    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # we say ourselves, in a line, that it is away
    given = {"connect_timeout": CONNECT_WITHIN, "application_name": "pipe", **_SIGNS_OF_LIFE}
    engine = create_engine(
        url,
        pool_size=MOST,
        max_overflow=0,
        pool_timeout=CONNECT_WITHIN,
        connect_args={name: value for name, value in given.items() if name not in url.query},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.adapters.register_dumper(str, Text)
        for name, value in _LIMITS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.execute(_ON_DISK_WHEN_ANSWERED)
        connection.commit()

    return engine
