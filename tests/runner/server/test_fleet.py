"""Two servers on one PostgreSQL, each with its own disk: they share the work, and either may die."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.folder import RunFolder
from tests.runner.server.conftest import Repository, Server
from tests.support.postgresql import Postgresql, started
from tests.support.program import host, pipe
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(180)]

TEXT = """pipelines:
  free: {triggers: {push: {}}, stages: {s: {run: "echo begin; touch $BUILD_NUMBER.began; until test -e GO; do sleep 0.1; done; echo end"}}}
  turns: {concurrency: {group: g}, stages: {s: {run: "until test -e GO; do sleep 0.1; done"}}}
"""


class Pair:
    """Two servers, and what both of them know."""

    def __init__(self, folder: Path, repository: Repository, database: str) -> None:
        self.go = folder / "go"
        self.repository = repository
        self.one, self.two = (self._made(folder / name, database) for name in ("one", "two"))
        self.both = (self.one, self.two)

    def _made(self, folder: Path, database: str) -> Server:
        folder.mkdir()
        return Server(folder, f"file://{self.repository.bare}").on(database)

    def start(self, *words: str) -> None:
        self.one.add("gitea")
        (self.two.folder / ".pipe-server").mkdir()
        key = (self.one.folder / ".pipe-server/key").read_text()
        (self.two.folder / ".pipe-server/key").write_text(key)
        self.one.start(*words)
        self.two.start(*words)
        self.two.token, self.two.secret = self.one.token, self.one.secret

    def stop(self) -> None:
        self.go.touch()
        for server in self.both:
            if server.process and server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)
                server.stop()

    def commit(self, text: str = TEXT) -> str:
        return self.repository.commit("two", src__a=os.urandom(4).hex(), pipeline_yaml=text.replace("GO", str(self.go)))

    def call(self, server: Server, pipeline: str = "free") -> str:
        named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
        status, made = server.ask("/api/v1/projects/shop/runs", json.dumps({"pipeline": pipeline}).encode(), **named)
        assert status == 201, made
        return str(made["run"])

    def run(self, id_: str, by: Server | None = None) -> dict[str, Any]:
        found: dict[str, Any] = (by or self.two).get(f"/api/v1/runs/{id_}")
        return found

    def ids(self) -> dict[str, Server]:
        return {(each.folder / ".pipe-server/server-id").read_text().strip(): each for each in self.both}

    def holder(self, id_: str, by: Server | None = None) -> Server:
        """The server that has a run, once one has."""
        until(lambda: self.run(id_, by)["server"] and self.run(id_, by)["pid"])
        return self.ids()[self.run(id_, by)["server"]]

    def has_begun(self, id_: str) -> bool:
        return "begin" in ask(self.one, f"/runs/{id_}/logs/s")[1]

    def other(self, server: Server) -> Server:
        return self.two if server is self.one else self.one


@pytest.fixture
def pair(tmp_path: Path, repository: Repository, postgresql: Postgresql) -> Iterator[Pair]:
    made = Pair(tmp_path, repository, postgresql.database())
    yield made
    made.stop()


def ask(server: Server, path: str, body: bytes | None = None) -> tuple[int, str, dict[str, str]]:
    argv = ["curl", "-sN", "-m", "30", "-D", "-", "-H", f"Authorization: Bearer {server.token}"]
    argv += ["--data-binary", "@-"] if body is not None else []
    url = f"http://127.0.0.1:{server.port}/api/v1{path}"
    done = subprocess.run([*argv, url], input=body, capture_output=True, timeout=40, check=False).stdout.decode()
    head, _, text = done.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), text, headers


def said(server: Server) -> str:
    return (server.folder / "server.err").read_text()


def test_two_servers_share_what_waits_and_no_number_is_given_twice(pair: Pair) -> None:
    pair.start("--runs", "2")
    pair.commit()
    made = [pair.call(pair.both[n % 2]) for n in range(6)]
    until(lambda: Counter(run["state"] for run in pair.two.runs()) == {"running": 4, "queued": 2})
    assert sorted(Counter(run["server"] for run in pair.two.runs() if run["server"]).values()) == [2, 2]
    pair.go.touch()
    runs = pair.two.settled(6)
    assert [run["outcome"] for run in runs] == ["succeeded"] * 6
    assert sorted(run["number"] for run in runs) == [1, 2, 3, 4, 5, 6]
    assert [run["id"] for run in runs] == made
    for run in runs:
        folders = [each.folder / f".pipe-server/projects/shop/runs/free/{run['number']}" for each in pair.both]
        assert [folder.exists() for folder in folders].count(True) == 1


def test_a_push_to_one_server_is_worked_by_the_one_that_has_the_project(pair: Pair) -> None:
    pair.start()
    pair.go.touch()
    for server in pair.both:
        assert server.push(pair.commit())[0] == 202
    assert [(run["outcome"], run["note"]) for run in pair.two.settled(2)] == [("succeeded", "")] * 2
    assert [each["note"].splitlines()[0] for each in pair.one.deliveries()] == ["free: #1 started", "free: #2 started"]


def test_what_lies_on_the_disk_of_the_other_server_is_asked_there(pair: Pair) -> None:
    pair.start("--runs", "1")
    pair.commit()
    run = pair.call(pair.one)
    other = pair.other(pair.holder(run))
    until(lambda: "begin" in ask(other, f"/runs/{run}/logs/s")[1])
    status, text, headers = ask(other, f"/runs/{run}/logs/s")
    assert (status, text, headers["x-content-type-options"]) == (200, "begin\n", "nosniff")
    assert json.loads(ask(other, f"/runs/{run}/leaves")[1])[0]["outcome"] == "running"
    assert ask(other, f"/runs/{run}/cancel", b"")[0] == 202
    status, text, _ = ask(other, f"/runs/{run}/events")
    assert (status, text.startswith("id: 1"), text.splitlines()[-3]) == (200, True, "event: end")
    until(lambda: pair.run(run)["outcome"] == "cancelled")
    assert ask(other, f"/runs/{run}/logs/nothing")[0] == 404
    until(lambda: "junit.xml" in ask(other, f"/runs/{run}/artifacts")[1])
    status, text, headers = ask(other, f"/runs/{run}/artifacts/junit.xml")
    assert (status, "<testsuites" in text, int(headers["content-length"])) == (200, True, len(text.encode()))
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''junit.xml"


def test_a_stream_ends_when_the_run_is_started_by_the_other_server_and_goes_on_there(pair: Pair) -> None:
    pair.start("--runs", "1")
    pair.commit()
    busy = [pair.call(pair.one), pair.call(pair.one)]
    holders = [pair.holder(run) for run in busy]
    for run in busy:
        until(partial(pair.has_begun, run))
    waits = pair.call(pair.one)
    url = f"http://127.0.0.1:{holders[0].port}/api/v1/runs/{waits}/events"
    argv = ["curl", "-sN", "-m", "60", "-H", f"Authorization: Bearer {pair.one.token}", url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stream:
        assert ask(holders[1], f"/runs/{busy[1]}/cancel", b"")[0] == 202
        assert pair.holder(waits) is holders[1]
        heard = stream.communicate(timeout=60)[0]
    assert "event: end" not in heard, "a stream that breaks off is asked for again"
    pair.go.touch()
    both = [ask(each, f"/runs/{waits}/events")[1] for each in holders]
    assert both[0] == both[1]
    assert both[0].splitlines()[-3] == "event: end"


def test_runs_that_take_turns_do_so_on_one_disk(pair: Pair) -> None:
    pair.start("--runs", "2")
    pair.commit()
    made = [pair.call(pair.both[n % 2], "turns") for n in range(3)]
    until(lambda: sum(run["note"].startswith("waits for turns#") for run in pair.two.runs()) == 2)
    assert len({run["server"] for run in pair.two.runs()}) == 1
    pair.go.touch()
    assert [(run["id"], run["outcome"]) for run in pair.two.settled(3)] == [(id_, "succeeded") for id_ in made]


def test_a_server_that_died_is_named_and_its_runs_are_its_own_when_it_comes_back(pair: Pair) -> None:
    pair.start("--runs", "1")
    pair.commit()
    run = pair.call(pair.one)
    holder = pair.holder(run)
    other = pair.other(holder)
    holder.kill()
    until(lambda: pair.run(run, other)["note"].startswith("not heard for "), 40)
    for what in ("events", "artifacts"):
        status, text, headers = ask(other, f"/runs/{run}/{what}")
        assert (status, headers["retry-after"]) == (503, "5")
        assert f"(http://127.0.0.1:{holder.port}) has the run, and has not been heard of for" in text
    assert other.push(pair.commit())[0] == 202
    until(lambda: len(other.runs()) == 2, 40)
    assert pair.holder(other.runs()[1]["id"], other) is other, "the projects of a dead server are taken over"
    holder.start("--runs", "1")
    pair.go.touch()
    assert [each["outcome"] for each in other.settled(2)] == ["succeeded"] * 2
    assert pair.run(run)["revived"] == 0


def test_the_runs_of_a_server_that_stays_away_are_lost_and_not_running_for_ever(pair: Pair) -> None:
    pair.start("--lost-after", "20")
    pair.commit()
    run = pair.call(pair.one, "turns")
    holder = pair.holder(run)
    other = pair.other(holder)
    holder.kill()
    waits = pair.call(other, "turns")
    until(lambda: "waits for a run of its project on another server" in pair.run(waits, other)["note"])
    until(lambda: pair.run(run, other)["state"] == "ended", 60)
    ended = pair.run(run, other)
    assert (ended["outcome"], ended["note"].startswith("lost: the server on ")) == ("errored", True)
    assert pair.holder(waits, other) is other
    folder = RunFolder(holder.folder / ".pipe-server/projects/shop/runs/turns/1")
    assert folder.ended() is None
    holder.start("--lost-after", "20")
    until(lambda: folder.ended() is not None)
    end = folder.ended()
    assert end
    assert end.outcome == "cancelled", "another run has its turn by now"
    assert pair.run(run) == ended


def test_a_server_that_ends_leaves_its_projects_to_the_others_at_once(pair: Pair) -> None:
    pair.start()
    pair.go.touch()
    assert pair.one.push(pair.commit())[0] == 202
    pair.two.settled(1)
    assert pair.one.stop() == 0
    assert pair.two.push(pair.commit())[0] == 202
    before = time.monotonic()
    assert [run["outcome"] for run in pair.two.settled(2)] == ["succeeded"] * 2
    assert time.monotonic() - before < 13, "it did not wait for the lease to run out"


def test_a_server_with_another_key_is_refused(pair: Pair) -> None:
    pair.one.add("gitea")
    pair.one.start()
    done = pipe(pair.two.folder, "serve", "--port", str(pair.two.port), env=pair.two.env)
    assert (done.returncode, "seals secrets with another key" in done.stderr) == (2, True), done.stderr


def test_a_copy_of_a_servers_folder_ends_the_first_one(pair: Pair) -> None:
    pair.start()
    pair.two.stop()
    mine = (pair.one.folder / ".pipe-server/server-id").read_text()
    (pair.two.folder / ".pipe-server/server-id").write_text(mine)
    pair.two.start()
    assert pair.one.process
    assert pair.one.process.wait(20) == 0
    assert "another server with the same server-id has joined" in said(pair.one)


def test_no_password_stands_in_the_list_of_processes(tmp_path: Path) -> None:
    done = pipe(tmp_path, "deliveries", "--database", "postgresql://pipe:hush@127.0.0.1:1/x")
    assert (done.returncode, "PGPASSWORD" in done.stderr, "hush" in done.stderr) == (2, True, False)
    done = pipe(tmp_path, "deliveries", env=host(PIPE_DATABASE_URL="postgresql://pipe:hush@127.0.0.1:1/x"))
    assert (done.returncode, "the database does not answer" in done.stderr, "hush" in done.stderr) == (2, True, False)
    done = pipe(tmp_path, "deliveries", "--database", "mysql://x/y")
    assert (done.returncode, "postgresql://USER@HOST/NAME" in done.stderr) == (2, True)


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "shutdown"])
def test_while_the_database_is_away_nothing_is_taken_and_nothing_is_lost(
    tmp_path: Path, repository: Repository, postgresql: Postgresql, how: signal.Signals
) -> None:
    with started(postgresql.programs) as own:
        pair = Pair(tmp_path, repository, own.database())
        pair.start()
        try:
            server = pair.one
            pair.commit()
            pair.holder(pair.call(server))
            commit = pair.commit()
            own.kill(how)
            until(lambda: server.ask("/healthz")[0] == 503)
            body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
            for _ in range(3):
                assert server.deliver(body, id_="same")[0] == 503
            assert ask(server, "/runs")[0::2][0] == 503
            assert ask(server, "/runs")[2]["retry-after"] == "5"
            pair.go.touch()
            assert server.process
            assert server.process.poll() is None
            own.start()
            until(lambda: server.ask("/healthz")[0] == 200)
            assert server.deliver(body, id_="same")[0] == 202
            runs = server.settled(2)
            assert [each["outcome"] for each in runs] == ["succeeded", "succeeded"]
            assert [each["revived"] for each in runs] == [0, 0]
            assert said(server).count("pipe: the database does not answer") == 1, said(server)
            assert said(server).count("pipe: the database is back after") == 1
            assert "Traceback" not in said(server)
        finally:
            pair.stop()


LEDGER = """name: demo
triggers: {push: {}}
stages:
  a: {run: "echo begin $BUILD_NUMBER a >> LEDGER; sleep 1; echo end $BUILD_NUMBER a >> LEDGER"}
  b: {needs: a, each: [x, y], run: "echo begin $BUILD_NUMBER b >> LEDGER; sleep 0.5; echo end $BUILD_NUMBER b >> LEDGER"}
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kills", "runs"), [(12, 6), pytest.param(100, 20, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_kills_of_either_server_lose_no_run_and_repeat_no_stage(
    pair: Pair, tmp_path: Path, kills: int, runs: int
) -> None:
    ledger = tmp_path / "ledger"
    draw = random.Random(2)  # noqa: S311 - a seed, not a secret
    pair.start("--runs", "3")
    sent = 0
    for kill in range(kills):
        if sent < runs and kill % max(1, kills // runs) == 0:
            sent += 1
            commit = pair.commit(LEDGER.replace("LEDGER", str(ledger)))
            assert pair.both[kill % 2].push(commit, id_=commit)[0] == 202
        time.sleep(draw.uniform(0, 0.5))
        victim = draw.choice(pair.both)
        victim.kill()
        victim.start("--runs", "3")
    found = pair.two.settled(1, limit=300)
    until(lambda: len({run["number"] for run in pair.two.runs()}) == len(pair.two.runs()))
    assert all(each["state"] == "done" for each in pair.one.deliveries())
    assert {run["outcome"] for run in found} == {"succeeded"}
    assert found[-1]["commit"] == commit
    made = Counter(ledger.read_text().splitlines())
    wanted = {
        f"{what} {run['number']} {stage}": times
        for run in found
        for what in ("begin", "end")
        for stage, times in (("a", 1), ("b", 2))
    }
    assert made == wanted


def test_a_server_that_stood_still_lets_go_of_what_another_has_taken(pair: Pair) -> None:
    pair.start()
    pair.go.touch()
    assert pair.one.push(pair.commit())[0] == 202
    pair.two.settled(1)
    assert pair.one.process
    pair.one.process.send_signal(signal.SIGSTOP)
    assert pair.two.push(pair.commit())[0] == 202
    assert len(pair.two.settled(2, limit=60)) == 2
    pair.one.process.send_signal(signal.SIGCONT)
    commit = pair.commit()
    until(lambda: pair.one.push(commit)[0] in (200, 202))  # 503 while it finds its way back to the database
    assert [run["outcome"] for run in pair.two.settled(3)] == ["succeeded"] * 3
    assert len({run["commit"] for run in pair.two.runs()}) == 3
