"""What must be red, through the whole program: one clear reason, nothing half done, siblings untouched."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import World
from tests.e2e.shop import SERVICES, Shop
from tests.support.program import PIPE, events_of

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def shop(tmp_path: Path, world: World, namespace: str) -> Shop:
    return Shop(tmp_path, world, namespace, SERVICES)


@pytest.fixture
def corner_shop(tmp_path: Path, world: World, namespace: str) -> Shop:
    return Shop(tmp_path, world, namespace, SERVICES[:2])


def test_a_wrong_password_is_one_reason_for_ten_pushes_and_nothing_is_deployed(
    shop: Shop, world: World, namespace: str
) -> None:
    done = shop.run(PIPE_SECRET_REGISTRY_PASSWORD="wrong-password")
    assert done.returncode == 1
    assert shop.outcomes("push") == ["failed"] * 10
    reasons = {
        e["cause"]["message"].replace(name, "NAME") for name, e in shop.finished().items() if name.startswith("push")
    }
    assert len({reason.partition(":")[0] for reason in reasons}) == 1
    assert "401" in next(iter(reasons)) or "login" in next(iter(reasons))
    assert set(shop.outcomes("deploy")) == {"skipped"}
    assert namespace not in world.kubectl("get", "namespaces")
    assert "wrong-password" not in done.stdout


def test_a_registry_that_is_down_is_red_and_nothing_is_deployed(corner_shop: Shop, world: World) -> None:
    done = corner_shop.run(REGISTRY=f"{world.sandbox.node}:5999")
    assert done.returncode == 1
    assert set(corner_shop.outcomes("push")) == {"errored"}
    assert f"{world.sandbox.node}:5999" in corner_shop.finished()["push[service-a]"]["cause"]["message"]
    assert set(corner_shop.outcomes("deploy")) == {"skipped"}


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_a_docker_engine_that_does_not_run_is_named_with_its_address(corner_shop: Shop, address: str) -> None:
    before = time.monotonic()
    done = corner_shop.run(DOCKER_HOST=address)
    assert (done.returncode, set(corner_shop.outcomes("image"))) == (1, {"errored"})
    assert (
        address.removeprefix("unix://").removeprefix("tcp://")
        in corner_shop.finished()["image[service-a]"]["cause"]["message"]
    )
    assert time.monotonic() - before < 30


def test_one_service_that_crashes_is_red_with_its_log_and_the_other_nine_are_deployed(
    shop: Shop, world: World, namespace: str
) -> None:
    shop.service("service-d", command="echo cannot open the ledger; exit 7")
    done = shop.run()
    assert done.returncode == 1
    finished = shop.finished()
    assert sorted(shop.outcomes("deploy")) == ["failed"] + ["succeeded"] * 9
    crashed = finished["deploy[service-d]"]
    started = next(
        e for e in events_of(shop.folder, "shop") if e["type"] == "stage.started" and e["stage"] == "deploy[service-d]"
    )
    assert crashed["time"] - started["time"] < 60
    told = done.stdout[done.stdout.index("---- deploy[service-d]") :]
    assert "service-d" in crashed["cause"]["message"]
    assert "7" in crashed["cause"]["message"]
    assert "cannot open the ledger" in told
    available = {
        item["metadata"]["name"]
        for item in world.objects(namespace, "deployments")
        if item["status"].get("availableReplicas")
    }
    assert available == set(SERVICES) - {"service-d"}


def test_an_unset_variable_in_one_manifest_is_told_before_anything_is_built(
    corner_shop: Shop, world: World, namespace: str
) -> None:
    corner_shop.service("service-b", command="echo $NOWHERE")
    done = corner_shop.run()
    assert done.returncode == 1
    message = corner_shop.finished()["deploy[service-b]"]["cause"]["message"]
    assert "NOWHERE" in message
    assert "service-b/deploy.yml:" in message
    assert set(corner_shop.outcomes("image")) == {"cancelled"}
    assert namespace not in world.kubectl("get", "namespaces")


@pytest.mark.parametrize("twice", [False, True])
def test_a_cancel_while_images_build_leaves_no_container_within_ten_seconds(
    corner_shop: Shop, world: World, namespace: str, *, twice: bool
) -> None:
    for name in corner_shop.services:
        corner_shop.service(name, dockerfile=f"FROM busybox:1\nRUN sleep 299 # {namespace}\n")
    run = subprocess.Popen(
        [str(PIPE), "run", "pipeline.yaml", "-o", "plain"],
        cwd=corner_shop.folder,
        env=corner_shop.env,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(containers(world, namespace)) == 2, 60)
        run.send_signal(signal.SIGINT)
        if twice:
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
        assert run.wait(10) == 130
        wait_for(lambda: not containers(world, namespace), 5)
    finally:
        run.kill()
    assert events_of(corner_shop.folder, "shop")[-1]["outcome"] == "cancelled"


def containers(world: World, mark: str) -> list[str]:
    shown = subprocess.run(
        ["docker", "ps", "--no-trunc", "--format", "{{.Command}}"],
        env={**world.env(), "DOCKER_HOST": world.sandbox.docker_host},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in shown.splitlines() if mark in line]


def wait_for(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
