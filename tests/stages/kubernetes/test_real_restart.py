"""An API server that goes away and comes back, and lines to it that misbehave: no hang, no false green, no false red."""

import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from pipeline.stage import SecretFile, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import dig
from tests.stages.kubernetes.support import Result, World, app, deploy, forget
from tests.support.api_proxy import ApiProxy, api_proxy
from tests.support.api_server import Orders, api_server_orders

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]

NEVER = "readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}"
FIRST = "readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}"


def ready_after(seconds: int, name: str = "web") -> str:
    """A Deployment that is not done before so many seconds are over."""
    return app(name, command=f"sleep {seconds}; touch /tmp/up; sleep 3600", container=FIRST)


# -- the server itself -----------------------------------------------------------------------------


@pytest.fixture
def api_server(world: World) -> Iterator[Orders]:
    with api_server_orders() as orders:
        yield orders


async def away_for(seconds: float, api_server: Orders, how: str) -> None:
    await anyio.to_thread.run_sync(api_server, how)
    await anyio.sleep(seconds)
    await anyio.to_thread.run_sync(api_server, "resume" if how == "pause" else "start")


@pytest.mark.parametrize(
    "how", ["kill", pytest.param("stop", marks=pytest.mark.long), pytest.param("pause", marks=pytest.mark.long)]
)
async def test_a_restart_while_deploys_wait_changes_no_verdict(
    world: World, namespace: str, api_server: Orders, how: str
) -> None:
    told: dict[str, Result] = {}

    async def one(name: str, text: str, **fields: Any) -> None:
        told[name] = await deploy(world, namespace, text, **fields)

    async with anyio.create_task_group() as tasks:
        # A node needs a while to find the server again, longer on a busy machine.
        tasks.start_soon(partial(one, "quick", ready_after(1, "quick"), wait="240s"))
        tasks.start_soon(partial(one, "slow", ready_after(25, "slow"), wait="240s"))
        tasks.start_soon(partial(one, "never", app("never", container=NEVER), wait="50s"))
        tasks.start_soon(partial(one, "crash", app("crash", command="sleep 2; echo no database; exit 3"), wait="240s"))
        await anyio.sleep(6)
        await away_for(8, api_server, how)
    errors = {name: result.error for name, result in told.items()}
    assert (errors["quick"], errors["slow"]) == (None, None)
    assert told["slow"].seconds >= 25
    assert isinstance(errors["never"], StageFailed)
    assert "not done after 50 s: pod never-" in str(errors["never"])
    assert 50 <= told["never"].seconds < 75
    assert isinstance(errors["crash"], StageFailed)
    assert "crashed with exit code 3" in str(errors["crash"])
    assert "no database" in told["crash"].evidence


# -- lines to it -----------------------------------------------------------------------------------

FAULTS = ("reset", "silence", "401", "403", "410", "ERROR 410", "429", "503", "cut 200")
"""What becomes for eight seconds of everything that is asked; the watches of before are cut."""


async def _troubled(proxy: ApiProxy, fault: str, result: Any) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(result)
        with anyio.fail_after(60):
            while not any(each.is_watch for each in proxy.asked):
                await anyio.sleep(0.1)
        await anyio.sleep(2)
        proxy.spoil = lambda asked: fault if asked.method == "GET" else ""
        proxy.cut_all()
        await anyio.sleep(8)
        proxy.spoil = lambda _: ""


@pytest.fixture(scope="module")
def told(world: World) -> Iterator[dict[str, Result]]:
    """How deploys of what is ready after twelve seconds ended, all at once, each with a fault of its own."""
    namespace, results = f"pipe-test-{secrets.token_hex(4)}", dict[str, Result]()

    async def one(fault: str) -> None:
        name = fault.lower().replace(" ", "-")
        async with api_proxy(world.kubeconfig) as proxy:
            given = {"kubeconfig": SecretFile(proxy.kubeconfig)}

            async def run() -> None:
                results[fault] = await deploy(world, namespace, ready_after(12, f"f-{name}"), secret=given)

            await _troubled(proxy, fault, run)

    async def every() -> None:
        async with anyio.create_task_group() as tasks:
            for fault in FAULTS:
                tasks.start_soon(one, fault)

    anyio.run(every)
    yield results
    forget(world, namespace)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_that_is_broken_for_a_while_changes_no_verdict(told: dict[str, Result], fault: str) -> None:
    result = told[fault]
    assert result.error is None, result.ctx.text
    assert 12 <= result.seconds < 75


@pytest.mark.parametrize("half_open", [False, True])
async def test_a_container_that_ends_while_nobody_tells_is_not_taken_for_one_that_runs(
    world: World, namespace: str, *, half_open: bool
) -> None:
    async with api_proxy(world.kubeconfig) as proxy, world.cluster() as cluster, anyio.create_task_group() as tasks:

        async def be_silent() -> None:
            while not await _is_running(cluster, namespace):
                await anyio.sleep(0.1)
            await anyio.sleep(0.5)
            proxy.held = half_open
            if not half_open:
                proxy.spoil = lambda asked: "503" if asked.method == "GET" else ""
                proxy.cut_all()
            await anyio.sleep(8)
            proxy.spoil, proxy.held = lambda _: "", False

        tasks.start_soon(be_silent)
        given = {"kubeconfig": SecretFile(proxy.kubeconfig)}
        result = await deploy(world, namespace, app(command="sleep 4; exit 3"), secret=given)
    assert "crashed with exit code 3" in result.message, result.ctx.text


async def _is_running(cluster: Cluster, namespace: str) -> bool:
    pods, _ = await cluster.items(Collection("v1", "Pod", namespace))
    return any(dig(status, "state", "running") for pod in pods for status in pod["status"].get("containerStatuses", ()))


async def test_the_time_that_applying_takes_is_none_of_the_wait(world: World, namespace: str) -> None:
    async with api_proxy(world.kubeconfig) as proxy:
        proxy.spoil = lambda asked: "late 4" if asked.is_write and asked.path.endswith("/deployments/web") else ""
        given = {"kubeconfig": SecretFile(proxy.kubeconfig)}
        result = await deploy(world, namespace, app(container=NEVER), secret=given, wait="6s")
    assert "not done after 6 s: pod web-" in result.message
    assert result.seconds >= 10
