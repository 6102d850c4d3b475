"""Which workspaces of earlier runs are removed, and which never are."""

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.errors import PipeError
from pipeline.stage import Outcome
from runner.events import RunFinished, RunStarted
from runner.folder import RunFolder
from runner.journal import Journal
from runner.mask import Masker
from runner.store import Store
from runner.sweep import Policy, policy, sweep
from tests.support.program import pipe


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store({}, tmp_path)


def run(store: Store, pipeline: str = "a", *, age: float = 0, ended: bool = True, owned: bool = False) -> RunFolder:
    """A run with a workspace, so many days old."""
    number, folder = store.take(pipeline, None)
    folder.write_plan("{}")
    folder.work.mkdir()
    journal = Journal(folder, Masker())
    journal.append(RunStarted(str(number)))
    if ended:
        journal.append(RunFinished(Outcome.SUCCEEDED))
    journal.close()
    made = time.time() - age * 86400 + number / 1000
    os.utime(folder.plan, (made, made))
    if not owned:
        folder.ownership.release(1)
        (folder.path / "owner.1").write_text("{}")  # nobody of this boot
        os.utime(folder.path / "owner.1", (0, 0))
    return folder


def room(monkeypatch: pytest.MonkeyPatch, store: Store, *free: int) -> None:
    """How much room there is, look by look."""
    looks = iter(free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, next(looks)))


def kept(*runs: RunFolder) -> list[bool]:
    return [each.work.exists() for each in runs]


def test_the_newest_of_each_pipeline_are_kept(store: Store) -> None:
    runs = [run(store) for _ in range(3)] + [run(store, "b")]
    assert sweep(store, Policy(2, 0, 0)) == []
    assert kept(*runs) == [False, True, True, True]


def test_what_is_too_old_goes_however_few_there_are(store: Store) -> None:
    runs = [run(store, age=10), run(store, age=1)]
    sweep(store, Policy(5, 7, 0))
    assert kept(*runs) == [False, True]


def test_a_workspace_that_somebody_works_in_stays_whatever_the_policy_says(store: Store) -> None:
    mine = run(store, age=10, ended=False, owned=True)
    sweep(store, Policy(0, 7, 1 << 60))
    assert kept(mine) == [True]


def test_the_oldest_make_room_until_there_is_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(store, age=3), run(store, "b", age=2), run(store, age=1)]
    room(monkeypatch, store, 10, 20, 30)
    assert sweep(store, Policy(5, 0, 30)) == ["a#1", "b#1"]
    assert kept(*runs) == [False, False, True]


def test_artifacts_outlive_workspaces_and_go_when_there_are_too_many(store: Store) -> None:
    runs = [run(store) for _ in range(3)]
    for each in runs:
        (each.artifacts("build", 1)).mkdir(parents=True)
    mine = run(store, "b", owned=True, ended=False)
    mine.artifacts("build", 1).mkdir(parents=True)
    run(store, "b"), run(store, "b"), run(store, "b")
    sweep(store, Policy(1, 0, 0, 2))
    assert kept(*runs) == [False, False, True]
    assert [each.artifacts_folder.exists() for each in (*runs, mine)] == [False, True, True, True]
    assert not list(runs[0].path.glob("artifacts*"))


def test_a_run_without_an_end_is_not_sacrificed_for_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = run(store, ended=False)
    room(monkeypatch, store, 10, 10)
    assert sweep(store, Policy(5, 0, 30)) == []
    assert kept(dead) == [True]


def test_the_policy_is_read_from_the_environment() -> None:
    assert policy({"PIPE_KEEP": "2", "PIPE_KEEP_DAYS": "14", "PIPE_KEEP_FREE": "10Gi"}) == Policy(2, 14, 10 << 30, 50)
    assert policy({"PIPE_KEEP_ARTIFACTS": "3"}) == Policy(5, 0, 1 << 30, 3)
    with pytest.raises(PipeError) as caught:
        policy({"PIPE_KEEP": "-1", "PIPE_KEEP_FREE": "much"})
    assert str(caught.value) == (
        "PIPE_KEEP_FREE=much is no size: write 500Mi or 10Gi\nPIPE_KEEP=-1 is none of 0, 1, 2, …"
    )


def test_a_wrong_policy_stops_a_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text('name: demo\nstages: {a: {run: "true"}}\n')
    done = pipe(tmp_path, "run", "pipeline.yaml", env={**os.environ, "PIPE_KEEP": "five"})
    assert (done.returncode, done.stderr, (tmp_path / ".pipe").exists()) == (
        2,
        "PIPE_KEEP=five is none of 0, 1, 2, …\n",
        False,
    )
