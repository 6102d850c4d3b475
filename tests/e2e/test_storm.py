"""The example's back end, killed at random moments and gone on with: each image pushed once, each object applied once."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from runner.folder import RunFolder
from runner.state import fold
from sandbox.publish import publish
from sandbox.publish import sources as example_sources
from tests.e2e.conftest import World
from tests.support.program import PIPE, pipe
from tests.support.strike import WHOM, strike
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(1200)]

FILE = Path(__file__).parent.parent.parent / "examples" / "shangyitong.pipeline.yaml"
SEEDS = range(5)


@dataclass
class Backend:
    """One release of the back end in a folder of its own."""

    folder: Path
    world: World
    org: str

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / ".pipe/backend/1")

    @property
    def words(self) -> list[str]:
        return ["run", str(FILE), "backend", "-p", f"org={self.org}", "-o", "plain"]

    @property
    def events(self) -> int:
        return sum(1 for _ in self.run.records()) if self.run.path.exists() else 0

    def reached(self, moment: int, run: "subprocess.Popen[bytes]") -> bool:
        return self.events >= moment or run.poll() is not None

    def generations(self) -> dict[str, int]:
        return {
            item["metadata"]["name"]: item["metadata"]["generation"]
            for item in self.world.objects("his", "deployments")
            if not item["metadata"]["name"].startswith("yygh-")
        }


@pytest.fixture(scope="module")
def most(world: World, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many events a release has that nobody disturbs."""
    for source in example_sources():
        publish(source)
    calm = Backend(tmp_path_factory.mktemp("calm"), world, f"calm-{uuid4().hex[:8]}")
    done = pipe(calm.folder, *calm.words, env=world.env(), limit=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return calm.events


def strikes(draw: random.Random, most: int) -> Iterator[tuple[int, str]]:
    """When, in events from the start, and who is killed; some runs are struck again after a resume."""
    moments = sorted(draw.randint(2, most - 2) for _ in range(draw.randint(1, 3)))
    yield from ((moment, draw.choice(WHOM)) for moment in moments)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_release_of_the_example_survives_kills_at_random_moments(
    tmp_path: Path, world: World, most: int, seed: int
) -> None:
    release = Backend(tmp_path, world, f"storm-{uuid4().hex[:8]}")
    draw = random.Random(seed)  # noqa: S311 - a seed, not a secret
    before, words = release.generations(), release.words
    for moment, whom in strikes(draw, most):
        run = subprocess.Popen([PIPE, *words], cwd=tmp_path, env=world.env(), stdout=-3, stderr=-3)
        until(partial(release.reached, moment, run), limit=300)
        strike(run, whom)
        run.wait(30)
        until(lambda: not ((owner := release.run.ownership.owner()) and owner.alive()))
        sys.stdout.write(f"seed {seed}: {whom} killed after {release.events} of about {most} events\n")
        words = ["resume", "backend#1"]
    if fold(release.run.records()).outcome is None:
        done = pipe(tmp_path, *words, env=world.env(), limit=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    once(release, before)


def once(release: Backend, before: dict[str, int]) -> None:
    """What a release must have changed, however often it was interrupted."""
    state = fold(release.run.records())
    assert state.outcome == "succeeded"
    assert release.generations() == {name: count + 1 for name, count in before.items()}
    pushed = {leaf.outputs["digest_ref"] for name, leaf in state.leaves.items() if name.startswith("push[")}
    used = {
        container["image"]
        for item in release.world.objects("his", "deployments")
        if not item["metadata"]["name"].startswith("yygh-")
        for container in item["spec"]["template"]["spec"]["containers"]
    }
    assert used == pushed
    assert len(pushed) == len(before) == 10
    for name in before:
        assert release.world.registry(f"{release.org}/{name}/tags/list")["tags"] == ["SNAPSHOT-1"]
