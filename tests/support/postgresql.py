"""A real PostgreSQL of the tests' own: on loopback, in a folder of its own, forgetful of power cuts."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.support.wait import until

__all__ = ["LACKING", "Postgresql", "started"]

LACKING = "there is no PostgreSQL: `apt-get install postgresql` brings one, and so does `make test`"
_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")


@dataclass
class Postgresql:
    """A server as a process; it can be killed and started again on the same folder."""

    programs: Path
    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def make(self) -> None:
        words = ["-D", str(self.folder / "data"), "-U", "pipe", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([self.programs / "initdb", *words], check=True, capture_output=True, **self._as())

    def start(self) -> None:
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}")
        words = [word for each in (*settings, *_FORGETFUL) for word in ("-c", each)]
        argv: list[str | Path] = [self.programs / "postgres", "-D", self.folder / "data", *words]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, **self._as())
        until(self._answers)

    def kill(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it with all connections: at once, as a crash of the machine would, or by SIGINT in good order."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(20)

    def _as(self) -> dict[str, Any]:
        """Nobody's user: PostgreSQL refuses root."""
        return {"user": "nobody", "group": "nogroup", "extra_groups": ()} if os.geteuid() == 0 else {}

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            self.execute(sql.SQL("SELECT 1"))
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, words: sql.SQL | sql.Composed) -> list[tuple[Any, ...]]:
        """Ask the main database."""
        where = f"host=127.0.0.1 port={self.port} user=pipe dbname=postgres connect_timeout=5"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(words)
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """The URL of a new database with nothing in it."""
        name = f"pipe_{uuid.uuid4().hex[:12]}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql://pipe@127.0.0.1:{self.port}/{name}"


@contextmanager
def started(where: Path) -> Iterator[Postgresql]:
    """One that runs until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="pipe-pg-"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    made = Postgresql(where, folder, port)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        made.make()
        made.start()
        yield made
    finally:
        if made.process and made.process.poll() is None:
            made.kill()
        shutil.rmtree(folder, ignore_errors=True)
