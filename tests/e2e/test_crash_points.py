"""Killed at calls that change what is on disk, between pushes and applies too, a release is gone on with: all of it once."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.state import fold
from tests.e2e.conftest import World
from tests.e2e.shop import PIPELINE, Shop
from tests.support.program import pipe

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent.parent
SERVICES = ["service-a", "service-b"]
TWELVE = (
    PIPELINE
    + """
  before: {uses: probe, each: [p, q, r], with: {effects: 1, effect_file: ledger, settles: file}}
  after: {needs: {deploy: all, before: all}, uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
finally:
  last: {uses: probe, each: [p, q], with: {effects: 1, effect_file: ledger, settles: file}}
"""
)
CHANGES = ["after 1", *(f"before[{key}] 1" for key in "pqr"), *(f"last[{key}] 1" for key in "pq")]
STEP = 9


def twelve(folder: Path, world: World, namespace: str) -> Shop:
    """Two services from image to deploy, and six leaves that write to a file."""
    folder.mkdir()
    shop = Shop(folder, world, namespace, SERVICES)
    (folder / "pipeline.yaml").write_text(TWELVE.replace("SERVICES", ", ".join(SERVICES)))
    return shop


def crash(shop: Shop, at: int, when: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tests.support.crash", str(at), when, "run", "pipeline.yaml", "-j", "2"]
    env = {**shop.env, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=shop.folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def generations(world: World, namespace: str) -> dict[str, int]:
    return {
        item["metadata"]["name"]: item["metadata"]["generation"] for item in world.objects(namespace, "deployments")
    }


def test_a_release_killed_at_any_point_changes_everything_once(tmp_path: Path, world: World, namespace: str) -> None:
    whole = crash(twelve(tmp_path / "whole", world, namespace), 0, "before")
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stderr.split()[-1])
    for at in range(2, calls, STEP):
        shop = twelve(tmp_path / str(at), world, namespace)
        before = generations(world, namespace)
        died = crash(shop, at, "before" if at % 2 else "after")
        if died.returncode == 0:  # how much progress is told depends on the time
            continue
        assert died.returncode == -9, died.stderr
        run = RunFolder(shop.folder / ".pipe/shop/1")
        if fold(run.records()).outcome is None:
            done = pipe(shop.folder, "run", "pipeline.yaml", "--resume", env=shop.env, limit=120)
            assert done.returncode == 0, f"killed at call {at}: {done.stdout[-3000:]}{done.stderr}"
        where = f"killed at call {at} of {calls}"
        assert sorted((shop.folder / "ledger").read_text().splitlines()) == sorted(CHANGES), where
        assert generations(world, namespace) == {name: count + 1 for name, count in before.items()}, where
