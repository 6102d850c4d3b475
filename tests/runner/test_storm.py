"""Engine, guardian or both killed at random moments: `pipe resume` ends green, and each change is made once."""

import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.state import fold
from tests.support.program import PIPE, host, pipe
from tests.support.strike import WHOM, strike
from tests.support.wait import until

SLOW_TWELVE = """name: demo
stages:
  a: {uses: probe, with: {effects: 1, effect_sleep: 50ms, effect_file: ledger, settles: file}}
  b: {needs: a, each: [p, q, r], uses: probe, with: {sleep: 50ms, effects: 1, effect_sleep: 50ms, effect_file: ledger, settles: file}}
  c: {needs: b, each: [p, q, r], run: "sleep 0.1 & (setsid sleep 0.2 &) ; sleep 0.1"}
  d: {needs: {c: all}, each: [p, q, r], uses: probe, with: {effects: 1, effect_sleep: 50ms, effect_file: ledger, settles: file}}
  e: {needs: {d: all}, uses: probe, with: {sleep: 50ms}}
finally:
  f: {uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
"""
CHANGES = Counter(["a 1", *(f"b[{key}] 1" for key in "pqr"), *(f"d[{key}] 1" for key in "pqr"), "f 1"])


def struck(folder: Path, draw: random.Random, epoch: int, *words: str) -> None:
    """Start or go on with the run, and strike once at some moment of it."""
    run = subprocess.Popen([PIPE, *words], cwd=folder, env=host(), stdout=-3, stderr=-3)
    until(lambda: run.poll() is not None or RunFolder(folder / ".pipe/demo/1").events(epoch).exists())
    time.sleep(draw.uniform(0, 1.2))
    strike(run, draw.choice(WHOM))
    run.wait(30)
    # an engine without a guardian takes a moment to stop
    until(lambda: not ((owner := RunFolder(folder / ".pipe/demo/1").ownership.owner()) and owner.alive()))


def ended(folder: Path) -> bool:
    return fold(RunFolder(folder / ".pipe/demo/1").records()).outcome is not None


def storm(folder: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - a seed, not a secret
    (folder / "pipeline.yaml").write_text(SLOW_TWELVE)
    for epoch in range(1, draw.randint(1, 4) + 1):
        if epoch == 1 or not ended(folder):
            struck(folder, draw, epoch, *(["run", "pipeline.yaml"] if epoch == 1 else ["resume", "demo#1"]))
    if not ended(folder):
        done = pipe(folder, "resume", "demo#1")
        assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    outcome = fold(RunFolder(folder / ".pipe/demo/1").records()).outcome
    made = Counter((folder / "ledger").read_text().splitlines())
    assert (str(outcome), made) == ("succeeded", CHANGES), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(4))
def test_a_few_kills_are_survived(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, seed)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(100, 200))
def test_a_hundred_storms_are_survived(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, seed)
