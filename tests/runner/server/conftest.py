"""A real server process on a loopback port, and a repository that it watches."""

import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner.server.database import Database
from runner.server.sealing import Seal
from sandbox import needs
from tests.runner.server.office import Office
from tests.support.postgresql import LACKING, Postgresql, started
from tests.support.program import PIPE, host, pipe
from tests.support.receivers import Heard, http_receiver
from tests.support.wait import until

TEXT = """name: demo
triggers: {push: {branches: [main], paths: ["src/**", pipeline.yaml]}, tag: {tags: ["v*"]}, webhook: {}}
stages:
  co: {uses: checkout, with: {into: src}}
  s: {needs: co, run: "git -C src log -1 --format=%H; cat src/src/a"}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Repository:
    """A git repository that is pushed to, by a work tree beside it."""

    bare: Path
    tree: Path

    def git(self, *words: str) -> str:
        argv = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.com", *words]
        return subprocess.run(argv, cwd=self.tree, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Commit these files on the current branch, push it, and return the commit."""
        for name, text in files.items():
            path = self.tree / name.replace("__", "/").replace("_yaml", ".yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        self.git("push", "-q", "--force", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "shop.git", tmp_path / "tree")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", made.bare], check=True)
    subprocess.run(["git", "clone", "-q", made.bare, made.tree], check=True, capture_output=True)
    made.git("checkout", "-q", "-b", "main")
    made.commit("first", pipeline_yaml=TEXT, src__a="one")
    return made


@dataclass
class Server:
    """`pipe serve` as a process; it can be killed and started again on the same folder."""

    folder: Path
    url: str
    port: int = field(default_factory=free_port)
    secret: str = ""
    token: str = ""
    process: "subprocess.Popen[str] | None" = None
    env: dict[str, str] = field(default_factory=host)
    program: Path = PIPE

    def on(self, database: str) -> "Server":
        """The same on a database, for those that are shared."""
        if database:
            self.env["PIPE_DATABASE_URL"] = database
        return self

    def add(self, forge: str = "generic", name: str = "shop", url: str = "") -> None:
        words = ("projects", "add", name, url or self.url, "--forge", forge, "--no-check")
        added = pipe(self.folder, *words, env=self.env, limit=60)
        assert added.returncode == 0, added.stderr
        self.secret = added.stdout.split()[-1]

    def call(self, path: str, **body: object) -> Any:
        """POST to the API."""
        named = {"Content_Type": "application/json", "authorization": f"Bearer {self.token}"}
        status, found = self.ask(path, json.dumps(body).encode(), **named)
        assert status < 300, found
        return found

    def start(self, *words: str) -> None:
        argv: list[str | Path] = [self.program, "serve", "--port", str(self.port), "--poll", "0", *words]
        errors = (self.folder / "server.err").open("a")
        self.process = subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=-3, stderr=errors, text=True)
        errors.close()
        until(self._answers)
        words = ("token", "tests", "--role", "admin")
        self.token = self.token or pipe(self.folder, *words, env=self.env, limit=60).stdout.strip()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.err").read_text()
        try:
            return self.ask("/healthz")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, named)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def get(self, path: str) -> Any:
        status, found = self.ask(path, authorization=f"Bearer {self.token}")
        assert status == 200, found
        return found

    def push(
        self, commit: str, *, ref: str = "refs/heads/main", id_: str = "", secret: str = "", repo: str = ""
    ) -> Any:
        """What Gitea sends for a push."""
        said = {
            "ref": ref,
            "before": "0" * 40,
            "after": commit,
            "repository": {"clone_url": repo or self.url},
            "head_commit": {"id": commit, "message": "m"},
            "pusher": {"login": "ann"},
        }
        return self.deliver(json.dumps(said).encode(), id_=id_ or os.urandom(8).hex(), secret=secret)

    def deliver(self, body: bytes, *, id_: str, secret: str = "", event: str = "push") -> tuple[int, Any]:
        signed = hmac.new((secret or self.secret).encode(), body, hashlib.sha256).hexdigest()
        headers = {"X_Gitea_Event": event, "X_Gitea_Delivery": id_, "X_Gitea_Signature": signed}
        return self.ask("/hooks/shop", body, Content_Type="application/json", **headers)

    def runs(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        found: list[dict[str, Any]] = self.get("/api/v1/runs")
        return found[::-1]

    def deliveries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v1/deliveries")
        return found[::-1]

    def settled(self, runs: int, limit: float = 30) -> list[dict[str, Any]]:
        """All runs, once there are so many and all have ended, and no delivery waits."""
        try:
            until(lambda: self._settled(runs), limit)
        except AssertionError:
            said = (self.folder / "server.err").read_text()
            raise AssertionError(f"{self.runs()}\n{self.deliveries()}\n{said}") from None
        return self.runs()

    def _settled(self, count: int) -> bool:
        runs, waiting = self.runs(), [each for each in self.deliveries() if each["state"] == "new"]
        return len(runs) >= count and not waiting and all(run["state"] == "ended" for run in runs)


on_both = pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)
"""What has to hold whichever the database is."""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    where = needs.postgresql()
    if where is None:
        pytest.skip(LACKING)
    with started(where) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path, repository: Repository, request: pytest.FixtureRequest) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    shared = getattr(request, "param", "sqlite") == "postgresql"
    database = request.getfixturevalue("postgresql").database() if shared else ""
    made = Server(folder, f"file://{repository.bare}").on(database)
    made.add()
    made.start()
    yield made
    if made.process and made.process.poll() is None:
        made.stop()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """With a project `shop`."""
    made = Office(tmp_path, Database(tmp_path / "server.db"), Seal(tmp_path, {}))
    made.project("shop")
    yield made
    made.database.close()


@pytest.fixture
def hook() -> Iterator[Heard]:
    """A receiver of everything that is posted."""
    with http_receiver() as heard:
        yield heard


def sqlite(server: Server, words: str) -> list[tuple[object, ...]]:
    with contextlib.closing(
        sqlite3.connect(server.folder / ".pipe-server/server.db", isolation_level=None)
    ) as connection:
        return connection.execute(words).fetchall()
