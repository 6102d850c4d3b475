"""Engine, guardian or both killed at a random moment of a release of twelve: gone on with, everything is made once."""

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.conftest import World
from tests.e2e.twelve import Twelve, twelve
from tests.support.program import PIPE, pipe
from tests.support.strike import WHOM, strike
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(240)]

SEEDS = range(100)


@pytest.fixture(scope="module")
def released(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """A namespace that the twelve were released to, and how many seconds a release takes when nobody disturbs it."""
    namespace = f"pipe-test-{uuid4().hex[:8]}"
    calm = twelve(tmp_path_factory.mktemp("calm") / "0", world, namespace)
    pipe(calm.shop.folder, "run", "pipeline.yaml", env=calm.shop.env, limit=120)
    calm.made_once()
    again = twelve(tmp_path_factory.mktemp("calm") / "1", world, namespace)
    start = time.monotonic()
    pipe(again.shop.folder, "run", "pipeline.yaml", env=again.shop.env, limit=120)
    yield namespace, time.monotonic() - start
    world.kubectl("delete", "namespace", namespace, "--wait=false")


def struck(release: Twelve, whom: str, share: float, seconds: float) -> None:
    """Start the release, and strike it after a share of the time that it takes."""
    argv = [str(PIPE), "run", "pipeline.yaml"]
    run = subprocess.Popen(argv, cwd=release.shop.folder, env=release.shop.env, stdout=-3, stderr=-3)
    until(lambda: run.poll() is not None or release.run.events(1).exists())
    time.sleep(share * seconds)
    strike(run, whom)
    run.wait(60)
    # an engine without a guardian takes a moment to stop
    until(lambda: not ((owner := release.run.ownership.owner()) and owner.alive()))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_release_struck_at_a_random_moment_changes_everything_once(
    tmp_path: Path, world: World, released: tuple[str, float], seed: int
) -> None:
    namespace, seconds = released
    draw = random.Random(seed)  # noqa: S311 - a seed, not a secret
    release = twelve(tmp_path / "shop", world, namespace)
    whom, share = draw.choice(WHOM), draw.random()
    struck(release, whom, share, seconds)
    print(f"seed {seed}: {whom} killed at {share:.0%} of {seconds:.1f} s, ended by itself: {release.ended()}")
    if not release.ended():
        done = pipe(release.shop.folder, "resume", "shop#1", env=release.shop.env, limit=120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    release.made_once()
