"""Killed at any call that changes what is on disk, a run is gone on with, and each change is made exactly once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.state import fold
from tests.support.program import host, pipe

ROOT = Path(__file__).parent.parent.parent

TWELVE = """name: demo
stages:
  a: {uses: probe, with: {effects: 1, effect_file: ledger, settles: file, output: x}}
  b: {needs: a, each: [p, q, r], uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
  c: {needs: b, each: [p, q, r], uses: probe, with: {log: hello}}
  d: {needs: {c: all}, each: [p, q, r], uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
  e: {needs: {d: all}, uses: probe, with: {fail_times: 1}, retry: {times: 1, wait: 0s}}
finally:
  f: {uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
"""
CHANGES = ["a 1", *(f"b[{key}] 1" for key in "pqr"), *(f"d[{key}] 1" for key in "pqr"), "f 1"]


def crash(folder: Path, at: int, when: str, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tests.support.crash", str(at), when, *words]
    env = host(PYTHONPATH=str(ROOT))
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many calls there are to be killed at."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "pipeline.yaml").write_text(TWELVE)
    done = crash(folder, 0, "before", "run", "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def has_ended(folder: Path) -> bool:
    return fold(RunFolder(folder / ".pipe/demo/1").records()).outcome is not None


def survives(folder: Path, at: int, when: str) -> None:
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(TWELVE)
    died = crash(folder, at, when, "run", "pipeline.yaml")
    if died.returncode == 0:  # how often the journal is forced depends on the time
        return
    assert died.returncode == -9, died.stderr
    if not has_ended(folder):
        done = pipe(folder, "run", "pipeline.yaml", "--resume")
        assert done.returncode == 0, f"killed {when} call {at}: {done.stdout}{done.stderr}"
    made = Counter((folder / "ledger").read_text().splitlines())
    assert made == Counter(CHANGES), f"killed {when} call {at}"
    runs = [path for path in (folder / ".pipe/demo").iterdir() if (path / "plan.json").exists()]
    ends = [fold(RunFolder(path).records()).outcome for path in runs]
    assert list(map(str, ends)) == ["succeeded"], f"killed {when} call {at}"


def survives_every(folder: Path, calls: int, step: int) -> None:
    for at in range(1, calls + 1, step):
        survives(folder / f"{at}", at, "before" if at % 2 else "after")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_crash_at_any_fourth_point_is_survived(tmp_path: Path, calls: int) -> None:
    survives_every(tmp_path, calls, 4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_crash_at_any_point_is_survived(tmp_path: Path, calls: int) -> None:
    survives_every(tmp_path, calls, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_resume_that_is_killed_as_well_is_gone_on_with(tmp_path: Path, calls: int) -> None:
    for at in range(calls // 4, calls * 7 // 8, max(1, calls // 4)):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        (folder / "pipeline.yaml").write_text(TWELVE)
        assert crash(folder, at, "after", "run", "pipeline.yaml").returncode in (-9, 0)
        for again in (5, 12):
            crash(folder, again, "before", "resume")
        if not has_ended(folder):
            done = pipe(folder, "run", "pipeline.yaml", "--resume")
            assert done.returncode == 0, done.stdout + done.stderr
        assert Counter((folder / "ledger").read_text().splitlines()) == Counter(CHANGES)
