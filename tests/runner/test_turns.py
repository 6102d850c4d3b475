"""`concurrency:`: one run of a group at a time, in order; whoever dies holds nobody up."""

import json
import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from pipeline.plan import Concurrency
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.state import RunState, fold
from runner.turns import Turn, in_turn
from tests.support.program import PIPE, host, pipe
from tests.support.strike import strike
from tests.support.wait import until

TEXT = """name: demo
concurrency: {group: his, busy: BUSY}
stages:
  a: {run: "echo begin $BUILD_NUMBER >> ledger; touch $BUILD_NUMBER.started; test -e go || sleep 30; echo end $BUILD_NUMBER >> ledger"}
"""


def start(folder: Path, busy: str = "queue") -> "subprocess.Popen[bytes]":
    (folder / "pipeline.yaml").write_text(TEXT.replace("BUSY", busy))
    return subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=folder, env=host(), stdout=-3, stderr=-3)


def state(folder: Path, number: int) -> RunState:
    return fold(RunFolder(folder / ".pipe" / "demo" / str(number)).records())


def waits(folder: Path, number: int) -> bool:
    return (folder / f".pipe/demo/{number}/events.1.jsonl").exists() and bool(state(folder, number).queued_behind)


def test_a_second_run_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    first = start(tmp_path)
    until((tmp_path / "1.started").exists)
    second = start(tmp_path)
    until(lambda: waits(tmp_path, 2))
    assert state(tmp_path, 2).queued_behind == "demo#1"
    assert "waits for demo#1" in pipe(tmp_path, "runs").stdout
    (tmp_path / "go").touch()
    os.kill(first.pid, signal.SIGTERM)
    assert (first.wait(20), second.wait(20)) == (143, 0)
    assert (tmp_path / "ledger").read_text().split("\n")[:3] == ["begin 1", "begin 2", "end 2"]


@pytest.mark.slow
def test_a_new_run_supersedes_the_one_before_it(tmp_path: Path) -> None:
    first = start(tmp_path, "supersede")
    until((tmp_path / "1.started").exists)
    (tmp_path / "go").touch()
    second = start(tmp_path, "supersede")
    assert (first.wait(20), second.wait(20)) == (1, 0)
    ended = state(tmp_path, 1)
    assert str(ended.outcome) == "cancelled"
    cause = ended.leaves["a"].cause
    assert cause is not None
    assert (str(cause.kind), cause.message) == ("superseded-by", "demo#2 took its place")


@pytest.mark.slow
def test_a_run_whose_engine_was_killed_gives_its_turn_away(tmp_path: Path) -> None:
    first = start(tmp_path)
    until((tmp_path / "1.started").exists)
    second = start(tmp_path)
    until(lambda: waits(tmp_path, 2))
    (tmp_path / "go").touch()
    os.kill(int(Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]), signal.SIGKILL)
    assert (first.wait(20), second.wait(20)) == (1, 0)
    assert pipe(tmp_path, "resume", "demo#1").returncode == 0


@pytest.mark.slow
def test_a_cancel_ends_the_waiting(tmp_path: Path) -> None:
    first = start(tmp_path)
    until((tmp_path / "1.started").exists)
    second = start(tmp_path)
    until(lambda: waits(tmp_path, 2))
    done = pipe(tmp_path, "cancel", "demo#2")
    assert (done.returncode, "demo#2: cancelled" in done.stdout) == (0, True)
    assert second.wait(20) == 1
    assert state(tmp_path, 2).leaves["a"].attempt == 0
    first.terminate()
    assert first.wait(20) == 143


@pytest.mark.slow
@pytest.mark.parametrize("busy", ["queue", "supersede"])
def test_a_run_that_is_killed_and_resumed_does_not_stand_in_its_own_way(tmp_path: Path, busy: str) -> None:
    run = start(tmp_path, busy)
    until((tmp_path / "1.started").exists)
    strike(run, "engine")
    assert run.wait(20) == 1
    (tmp_path / "go").touch()
    assert pipe(tmp_path, "resume").returncode == 0
    assert (state(tmp_path, 1).cancelled_by, str(state(tmp_path, 1).outcome)) == ("", "succeeded")


@pytest.mark.slow
def test_a_run_killed_while_it_waits_takes_its_turn_after_a_resume(tmp_path: Path) -> None:
    first = start(tmp_path)
    until((tmp_path / "1.started").exists)
    second = start(tmp_path)
    until(lambda: waits(tmp_path, 2))
    strike(second, "engine")
    assert second.wait(20) == 1
    (tmp_path / "go").touch()
    first.terminate()
    first.wait(20)
    assert pipe(tmp_path, "resume", "demo#2").returncode == 0


@pytest.mark.slow
def test_finally_runs_when_a_dead_run_of_a_group_is_cancelled(tmp_path: Path) -> None:
    text = f"{TEXT.replace('BUSY', 'queue')}finally: {{z: {{run: echo z >> ledger}}}}\n"
    (tmp_path / "pipeline.yaml").write_text(text)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3, stderr=-3)
    until((tmp_path / "1.started").exists)
    strike(run, "engine")
    assert run.wait(20) == 1
    assert pipe(tmp_path, "cancel", "demo#1").returncode == 0
    assert (tmp_path / "ledger").read_text().split() == ["begin", "1", "z"]


# -- the queue itself ------------------------------------------------------------------------------


def turn(store: Path, name: str, **more: object) -> Turn:
    run = store / name
    run.mkdir(exist_ok=True)
    RunFolder(run).ownership.claim()
    return Turn(store, Concurrency.model_validate({"group": "his", **more}), run, f"01{name}", name)


def test_turns_are_taken_in_the_order_of_the_runs(tmp_path: Path) -> None:
    a, b, c = (turn(tmp_path, name) for name in "abc")
    assert a.take() == ""
    assert (c.take(), b.take()) == ("a", "a")
    a.leave()
    assert (c.take(), b.take()) == ("b", "")
    b.leave()
    assert c.take() == ""


def test_of_two_that_supersede_each_other_the_newer_one_stays(tmp_path: Path) -> None:
    newer, older = turn(tmp_path, "b", busy="supersede"), turn(tmp_path, "a", busy="supersede")
    assert newer.take() == ""
    older.take()  # its engine was slower to come
    assert list(Orders(tmp_path / "b").take()) == []
    assert list(Orders(tmp_path / "a").take()) == [Cancel("b", superseded=True)]


def test_a_group_does_not_grow_with_its_runs(tmp_path: Path) -> None:
    for number in range(10):
        one = turn(tmp_path, f"run{number}")
        assert one.take() == ""
        one.leave()
    assert len(list((tmp_path / ".groups").rglob("owner.*"))) <= 4


def test_a_turn_that_somebody_else_took_is_lost(tmp_path: Path) -> None:
    a = turn(tmp_path, "a")
    assert a.take() == ""
    assert not a.keep()
    Path(a._ownership._file(2)).touch()
    assert a.keep()


def test_groups_do_not_know_each_other(tmp_path: Path) -> None:
    assert turn(tmp_path, "a").take() == ""
    assert turn(tmp_path, "b", group="hers").take() == ""


def test_a_ticket_of_a_dead_engine_counts_for_nothing(tmp_path: Path) -> None:
    a, b, c = (turn(tmp_path, name) for name in "abc")
    assert a.take() == ""
    assert (b.take(), c.take()) == ("a", "b")
    owner = tmp_path / "b" / "owner.1"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"started": "0"}))
    a.leave()
    assert c.take() == ""


@pytest.mark.parametrize("waits", ["works", "waits"])
def test_whoever_stops_waiting_or_working_leaves_the_queue(tmp_path: Path, waits: str) -> None:
    a, b = turn(tmp_path, "a"), turn(tmp_path, "b")
    if waits == "waits":
        assert a.take() == ""

    async def stop() -> None:
        cancelled = anyio.Event()
        if waits == "waits":
            cancelled.set()
        async with in_turn(b, lambda *_: None, cancelled, lambda _: None):
            pass

    anyio.run(stop)
    assert not list(tmp_path.rglob("01b.ticket"))
    assert waits == "waits" or a.take() == ""
