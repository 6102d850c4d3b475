"""A release while the cluster's API server dies and comes back: every verdict is true, and nothing is half done."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import World
from tests.e2e.fleet import Fleet, none_left
from tests.support.api_server import Orders, api_server_orders

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]

SLOW = (
    "{name: slow, image: busybox, command: [sh, -c, 'sleep 20; touch /up; sleep 99'],"
    " readinessProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1}}"
)
AWAY = 5.0


@pytest.fixture
def api_server(world: World) -> Iterator[Orders]:
    with api_server_orders() as orders:
        yield orders


@pytest.fixture
def fleet(tmp_path: Path, world: World, namespace: str, busybox: str) -> Iterator[Fleet]:
    with none_left():
        yield Fleet(tmp_path / "fleet", world, namespace, busybox)


def restart(fleet: Fleet, api_server: Orders) -> None:
    """When everything of the second release is applied."""
    for name in fleet.services:
        fleet.until_event(2, type="effect.proven", stage=f"deploy[{name}]", key="apply workloads")
    api_server("kill")
    time.sleep(AWAY)
    api_server("start")


@pytest.mark.long
def test_a_restart_while_a_release_waits_loses_neither_it_nor_the_target(fleet: Fleet, api_server: Orders) -> None:
    fleet.write("one").green()
    process = fleet.write("two", bad={"sc": SLOW}).start()
    restart(fleet, api_server)
    assert process.wait(120) == 0, fleet.said
    assert fleet.outcomes() == {"fleet@2": "complete", "fleet@1": "complete"}
    assert fleet.seen_by_pods()["sc"] == {"two"}


def test_a_restart_while_a_release_waits_hides_no_failure_and_no_way_back(fleet: Fleet, api_server: Orders) -> None:
    fleet.write("one").green()
    process = fleet.write("two", bad={"sb": fleet.broken, "sc": SLOW}).start()
    restart(fleet, api_server)
    assert process.wait(180) == 1, fleet.said
    assert "there is no such image" in fleet.said
    assert fleet.outcomes() == {"fleet@3": "complete", "fleet@2": "rolled back", "fleet@1": "complete"}
    assert fleet.data() == fleet.greeting("one")
    assert fleet.seen_by_pods() == {name: {"one"} for name in fleet.services}


@pytest.mark.long
def test_a_death_while_deploys_write_is_infrastructure_and_a_retry_writes_the_rest(
    fleet: Fleet, api_server: Orders
) -> None:
    fleet.needs = "retry: {times: 5, wait: 3s}"
    fleet.write("one").green()
    process = fleet.write("two").start()
    fleet.until_event(2, type="effect.intended", key="apply configuration")
    api_server("kill")
    time.sleep(AWAY)
    api_server("start")
    assert process.wait(180) == 0, fleet.said
    assert fleet.data() == fleet.greeting("two")
    assert fleet.outcomes() == {"fleet@2": "complete", "fleet@1": "complete"}
    assert "cannot be reached" in fleet.said
