"""A run reports its files to the server piece by piece, and the copy is the same byte for byte in the end."""

import hashlib
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.server import copies
from runner.server.copies import Misplaced, RunCopies, Unfit
from runner.server.database import Database, runs
from runner.sinks import mirror
from runner.sinks.mirror import Mirror
from tests.runner.server.conftest import TEXT, Repository, Server
from tests.runner.server.test_server import slow
from tests.support.wait import until


def made(connection: Connection, id_: str) -> str:
    row = {
        "id": id_,
        "project": "shop",
        "place": "shop",
        "pipeline": "p",
        "number": 1 + ord(id_),
        "event": id_,
        "found_by": "call",
    }
    rest = {
        "ref": "",
        "commit": "",
        "file_commit": "",
        "trigger": "{}",
        "params": "{}",
        "state": "ended",
        "followed": True,
    }
    connection.execute(insert(runs).values(**row, **rest, created=0.0))
    return copies.grant(connection, id_)


@pytest.fixture
def tokens(server: Server) -> dict[str, str]:
    """The tokens of two runs, `a` and `b`."""
    database = Database(server.folder / ".pipe-server/server.db")
    try:
        return {id_: database.write_now(lambda c, id_=id_: made(c, id_)) for id_ in "ab"}  # type: ignore[misc]
    finally:
        database.close()


class Cutter:
    """A proxy on loopback that cuts each connection after some random number of bytes."""

    def __init__(self, port: int, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - a seed, not a secret
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        asked = self._draw.randrange(self._draw.choice([50, 3_000, 200_000, 1_000_000]))
        answered = self._draw.choice([0, 60, 400, 4_000])  # what was asked may have been done all the same
        with closing(client), suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as server:
            ways = ((client, server, asked), (server, client, answered))
            pumps = [threading.Thread(target=self._pump, args=way) for way in ways]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()
        self.cut += 1

    def _pump(self, source: socket.socket, sink: socket.socket, left: int) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data[:left])
                left -= len(data)
                if left <= 0:
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutter(server: Server) -> Iterator[Cutter]:
    found = Cutter(server.port, seed=7)
    yield found
    found.close()


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_copy_is_the_same_byte_for_byte_however_often_connections_and_servers_break(
    server: Server, tokens: dict[str, str], cutter: Cutter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(mirror, "LAST_WORDS", 90.0)
    draw = random.Random(3)  # noqa: S311 - a seed, not a secret
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "plan.json").write_bytes(draw.randbytes(20_000))
    url = f"http://127.0.0.1:{cutter.port}"
    reporting = Mirror(url, tokens["a"], "a", RunFolder(run))
    reporting.start()
    names = [
        "events.1.jsonl",
        "events.2.jsonl",
        "logs/a%2Fb.1.log",
        "logs/ä [x y].1.log",
        "logs/a.1.idx",
        "logs/#?&.2.log",
    ]
    for number in range(60):
        with (run / draw.choice(names)).open("ab") as file:
            file.write(draw.randbytes(draw.randrange(120_000)))
        if number == 20:
            reporting.stop()  # another process goes on with the run
            reporting = Mirror(url, tokens["a"], "a", RunFolder(run))
            reporting.start()
        if number == 40:
            server.kill()
            server.start()
        time.sleep(0.02)
    (run / "logs/link.1.log").symlink_to("/etc/passwd")
    (run / "work").mkdir()
    (run / "work/huge").touch()
    (run / "owner.1").touch()
    reporting.stop()
    wanted = digests(run)
    for name in ("logs/link.1.log", "work/huge", "owner.1"):
        wanted.pop(name, None)
    assert digests(server.folder / ".pipe-server/projects/shop/copies/a") == wanted
    assert cutter.cut > 5, "nothing was cut"


def report(server: Server, path: str, token: str, body: bytes = b"") -> tuple[int, Any]:
    argv = ["curl", "-s", "-w", "\n%{http_code}", "--path-as-is", "-X", "PUT", "--data-binary", "@-"]
    argv += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{server.port}/api/v1/runs/{path}"]
    said = subprocess.run(argv, input=body, capture_output=True, timeout=20, check=True).stdout.decode()
    text, _, code = said.rpartition("\n")
    return int(code), json.loads(text) if text.startswith("{") else text


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_runs_token_appends_to_its_own_files_and_does_nothing_else(server: Server, tokens: dict[str, str]) -> None:
    mine = tokens["a"]
    assert report(server, "a/files/plan.json?offset=0", mine, b"abc") == (200, {"offset": 3})
    assert report(server, "a/files/plan.json?offset=0", mine, b"abc") == (409, {"offset": 3})
    assert report(server, "a/files/plan.json?offset=7", mine, b"abc") == (409, {"offset": 3})
    assert report(server, "a/files/plan.json?offset=3", mine, b"d") == (200, {"offset": 4})
    assert report(server, "b/files/plan.json", mine)[0] == 401
    assert report(server, "a/files/plan.json", server.token)[0] == 401
    assert server.ask("/api/v1/runs", authorization=f"Bearer {mine}")[0] == 401
    for path in (
        "logs/../../b/plan.json",
        "%2e%2e/b/plan.json",
        "/etc/passwd",
        "owner.1",
        "work/x",
        "logs/x/y.1.log",
        "logs/",
    ):
        assert report(server, f"a/files/{path}", mine, b"x")[0] in (400, 404), path
    assert report(server, "a/files/plan.json?offset=4", mine, b"x" * (2 << 20))[0] == 413
    assert report(server, f"a/files/plan.json?offset={1 << 31}", mine, b"x")[0] == 400
    assert list(digests(server.folder / ".pipe-server/projects/shop/copies")) == ["a/plan.json"]


def test_a_copy_follows_no_link_and_does_not_grow_beyond_all_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LARGEST_RUN", 10)
    found, copy = RunCopies(), tmp_path / "a"
    copy.mkdir()
    (tmp_path / "else").touch()
    (copy / "plan.json").symlink_to(tmp_path / "else")
    with pytest.raises(Unfit):
        found.append(copy, "plan.json", 0, b"x")
    assert found.append(copy, "events.1.jsonl", 0, b"12345678") == 8
    with pytest.raises(Misplaced):
        found.append(copy, "events.1.jsonl", 0, b"1")
    with pytest.raises(Unfit):
        RunCopies().append(copy, "events.2.jsonl", 0, b"123")
    assert (tmp_path / "else").read_bytes() == b""


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="give the URL of a server"):
        Mirror("ci.example.com", "", "a", RunFolder(tmp_path))


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_run_that_ends_while_its_server_is_away_is_known_in_the_end(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--mirror")
    server.push(repository.commit("two", src__a="two", pipeline_yaml=slow(server)))
    until((server.folder / "began").exists)
    server.kill()
    (server.folder / "go").touch()
    work = RunFolder(server.folder / ".pipe-server/projects/shop/runs/demo/1")
    until(lambda: work.ended() is not None)
    server.start("--mirror")
    (run,) = server.settled(1)
    assert (run["outcome"], run["commit"]) == ("succeeded", repository.git("rev-parse", "HEAD"))
    copy = server.folder / f".pipe-server/projects/shop/copies/{run['id']}"
    there = digests(copy)
    assert there == {name: digest for name, digest in digests(work.path).items() if name in there}
    assert {"plan.json", "events.1.jsonl", "logs/s.1.log"} <= set(there)
    assert {leaf["outcome"] for leaf in server.get(f"/api/v1/runs/{run['id']}/leaves")} == {"succeeded"}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_has_not_reached_the_copy_is_not_shown(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--mirror")
    server.push(repository.commit("two", src__a="two", pipeline_yaml=TEXT))
    (run,) = server.settled(1)
    (server.folder / f".pipe-server/projects/shop/copies/{run['id']}/logs/s.1.log").write_text("the copy\n")
    argv = ["curl", "-s", "-H", f"Authorization: Bearer {server.token}"]
    said = subprocess.run(
        [*argv, f"http://127.0.0.1:{server.port}/api/v1/runs/{run['id']}/logs/s"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "the copy\n"
