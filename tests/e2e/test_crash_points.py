"""Killed at calls that change what is on disk, between pushes and applies too, a release is gone on with: all of it once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import World
from tests.e2e.twelve import Twelve, twelve
from tests.support.program import pipe

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent.parent
STEP = 9


def crash(release: Twelve, at: int, when: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tests.support.crash", str(at), when, "run", "pipeline.yaml", "-j", "2"]
    env = {**release.shop.env, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, cwd=release.shop.folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_release_killed_at_any_point_changes_everything_once(tmp_path: Path, world: World, namespace: str) -> None:
    whole = crash(twelve(tmp_path / "whole", world, namespace), 0, "before")
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stderr.split()[-1])
    for at in range(2, calls, STEP):
        release = twelve(tmp_path / str(at), world, namespace)
        died = crash(release, at, "before" if at % 2 else "after")
        if died.returncode == 0:  # how much progress is told depends on the time
            continue
        assert died.returncode == -9, died.stderr
        print(f"killed at call {at} of {calls}")
        if not release.ended():
            done = pipe(release.shop.folder, "run", "pipeline.yaml", "--resume", env=release.shop.env, limit=120)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        release.made_once()
