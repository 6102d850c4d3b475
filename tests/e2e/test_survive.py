"""A release whose engine is killed is gone on with: nothing that was pushed or applied is lost, repeated or forgotten."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import World
from tests.e2e.shop import SERVICES, Shop
from tests.support.program import PIPE, pipe
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


def events(shop: Shop, epoch: int) -> list[dict[str, Any]]:
    journal = shop.folder / f".pipe/shop/1/events.{epoch}.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def killed(shop: Shop, moment: Callable[[dict[str, Any]], bool], times: int) -> None:
    """Start the release and kill its engine when that moment has come so many times."""
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=shop.folder, env=shop.env, stdout=-3, stderr=-3)
    until(lambda: sum(map(moment, events(shop, 1))) >= times or run.poll() is not None, limit=120)
    engine = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
    os.kill(int(engine), signal.SIGKILL)
    assert run.wait(20) == 1


MOMENTS = {
    "while images are built": ("stage.started", "image", 2),
    "when a push was intended": ("effect.intended", "push", 3),
    "when a push was proven": ("effect.proven", "push", 2),
    "when a deploy was intended": ("effect.intended", "deploy", 4),
    "while rollouts are waited for": ("effect.proven", "deploy", 8),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_release_that_is_killed_is_gone_on_with(tmp_path: Path, world: World, namespace: str, moment: str) -> None:
    sort, stage, times = MOMENTS[moment]
    shop = Shop(tmp_path, world, namespace, SERVICES)
    killed(shop, lambda event: event["type"] == sort and event["stage"].startswith(f"{stage}["), times)
    before = {e["stage"] for e in events(shop, 1) if e["type"] == "stage.finished"}

    done = pipe(tmp_path, "resume", env=shop.env, limit=240)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    again = {e["stage"] for e in events(shop, 2) if e["type"] == "stage.started"}
    assert not before & again
    run = next(e["id"] for e in events(shop, 1) if e["type"] == "run.started")
    deployments = world.objects(namespace, "deployments")
    assert {each["metadata"]["name"] for each in deployments} == set(SERVICES)
    for each in deployments:
        assert run in each["metadata"]["annotations"].values()
        assert each["status"]["availableReplicas"] == 1
        assert each["metadata"]["generation"] == 1, "an object was changed by applying it again"
    for name in SERVICES:
        assert world.registry(f"{namespace}/{name}/tags/list")["tags"] == ["r1"]
