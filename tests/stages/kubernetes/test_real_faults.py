"""What happens to a deploy meanwhile: cancel, crash, lost lines, other people."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import yaml

from pipeline.stage import SecretFile, StageErrored
from stages.clients.kubernetes.objects import Ref
from stages.deploy import Deploy
from tests.stages.kubernetes.support import World, app, deploy, green, kubeconfig, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8080}]}
"""


async def test_a_cancel_ends_the_wait_at_once_and_leaves_what_was_applied(world: World, namespace: str) -> None:
    probe = "readinessProbe: {exec: {command: ['false']}}"
    ended: list[float] = []

    async def run() -> None:
        try:
            await deploy(world, namespace, app(container=probe))
        finally:
            ended.append(time.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(5)
        cancelled = time.monotonic()
        tasks.cancel_scope.cancel()
    assert ended[0] - cancelled < 3
    assert await world.get("Deployment", namespace, "web", "apps/v1") is not None


async def test_an_intent_is_settled_by_the_mark_of_the_run(world: World, namespace: str) -> None:
    result = await green(world, namespace, app() + SERVICE)
    effect = next(effect for effect in result.ctx.effects if effect.key == "apply workloads")
    stage = Deploy.model_validate({"manifests": ["x"], "secret": "kubeconfig"})
    same, other = world.context(result.ctx.run.id), world.context("SOMEOTHERRUN")
    settled = await stage.settle(same, effect.key, effect.intent)
    assert settled.state == "done"
    assert settled.proof["objects"]
    assert (await stage.settle(other, effect.key, effect.intent)).state == "absent"
    broken = world.context(kubeconfig=SecretFile(Path("/nowhere")))
    assert (await stage.settle(broken, effect.key, effect.intent)).state == "unknown"


class Proxy:
    """A TCP proxy before the cluster that can cut its lines or keep silent."""

    def __init__(self, host: str, port: int) -> None:
        self.target, self.mute, self.down = (host, port), anyio.Event(), False
        self.silent = False
        self.streams: list[anyio.abc.SocketStream] = []

    async def serve(self, listener: Any) -> None:
        await listener.serve(self._handle)

    async def _handle(self, client: Any) -> None:
        async with client:
            if self.down:
                return
            async with await anyio.connect_tcp(*self.target) as server, anyio.create_task_group() as tasks:
                self.streams += [client, server]
                tasks.start_soon(self._pump, client, server)
                tasks.start_soon(self._pump, server, client)

    async def _pump(self, source: Any, sink: Any) -> None:
        try:
            async for block in source:
                while self.silent:
                    await anyio.sleep(0.1)
                await sink.send(block)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            with anyio.CancelScope(shield=True):
                await sink.aclose()

    async def cut(self) -> None:
        """Cut every line and refuse new ones, as a restarting API server does."""
        self.down = True
        for stream in self.streams:
            await stream.aclose()
        self.streams.clear()


@asynccontextmanager
async def proxied(world: World, folder: Path) -> AsyncIterator[tuple[Proxy, SecretFile]]:
    server = yaml.safe_load(world.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, _, port = server.removeprefix("https://").partition(":")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    here = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    cluster = {"server": f"https://127.0.0.1:{here}", "tls-server-name": host}
    proxy = Proxy(host, int(port))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(proxy.serve, listener)
        yield proxy, kubeconfig(world, folder, cluster=cluster)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("fault", ["cut", "silent"])
async def test_a_line_that_fails_while_we_wait_hides_nothing(
    world: World, namespace: str, tmp_path: Path, fault: str
) -> None:
    slow = "readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}"
    text = app(command="sleep 9; touch /tmp/up; sleep 3600", container=slow)
    async with proxied(world, tmp_path) as (proxy, given), anyio.create_task_group() as tasks:

        async def disturb() -> None:
            await anyio.sleep(4)
            if fault == "cut":
                await proxy.cut()
                await anyio.sleep(4)
                proxy.down = False
            else:
                proxy.silent = True
                await anyio.sleep(8)
                proxy.silent = False

        tasks.start_soon(disturb)
        result = await green(world, namespace, text, secret={"kubeconfig": given})
    assert 9 <= result.seconds < 60


async def test_a_cluster_that_stays_silent_is_an_error_and_never_green(
    world: World, namespace: str, tmp_path: Path
) -> None:
    probe = "readinessProbe: {exec: {command: ['false']}}"
    async with proxied(world, tmp_path) as (proxy, given), anyio.create_task_group() as tasks:

        async def vanish() -> None:
            await anyio.sleep(4)
            await proxy.cut()

        tasks.start_soon(vanish)
        result = await red(world, namespace, app(container=probe), secret={"kubeconfig": given}, wait="30s")
    assert isinstance(result.error, StageErrored)
    assert "nobody knows" in result.message
    assert 30 <= result.seconds < 45


async def test_a_deployment_deleted_meanwhile_is_red(world: World, namespace: str) -> None:
    probe = "readinessProbe: {exec: {command: ['false']}}"
    async with anyio.create_task_group() as tasks:

        async def delete() -> None:
            await anyio.sleep(4)
            async with world.cluster() as cluster:
                await cluster.delete(Ref("apps/v1", "Deployment", namespace, "web"))

        tasks.start_soon(delete)
        result = await red(world, namespace, app(container=probe))
    assert "deleted" in result.message
    assert result.seconds < 40


async def test_a_deployment_replaced_by_another_of_its_name_meanwhile_is_red_though_that_one_is_well(
    world: World, namespace: str
) -> None:
    probe = "readinessProbe: {exec: {command: ['false']}}"
    async with anyio.create_task_group() as tasks:

        async def replace() -> None:
            await anyio.sleep(4)
            ref = Ref("apps/v1", "Deployment", namespace, "web")
            async with world.cluster() as cluster:
                present = await cluster.get(ref)
                assert present is not None
                await cluster.delete(ref)
                spec = {**present["spec"], "replicas": 0}
                named = {key: present["metadata"][key] for key in ("name", "namespace", "labels")}
                await cluster.create({**present, "metadata": named, "spec": spec, "status": {}})

        tasks.start_soon(replace)
        result = await red(world, namespace, app(container=probe))
    assert "replaced" in result.message or "deleted" in result.message
    assert result.seconds < 40


async def test_replicas_that_somebody_changes_meanwhile_are_waited_for(world: World, namespace: str) -> None:
    slow = "readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}"
    text = app(command="sleep 9; touch /tmp/up; sleep 3600", container=slow)
    async with anyio.create_task_group() as tasks:

        async def scale() -> None:
            await anyio.sleep(4)
            async with world.cluster() as cluster:
                ref = Ref("apps/v1", "Deployment", namespace, "web")
                await cluster.merge(ref, {"spec": {"replicas": 3}})

        tasks.start_soon(scale)
        await green(world, namespace, text)
    found = await world.get("Deployment", namespace, "web", "apps/v1")
    assert (found["spec"]["replicas"], found["status"]["availableReplicas"]) == (3, 3)


async def test_a_line_that_is_half_open_to_the_end_ends_with_the_wait_and_is_an_error(
    world: World, namespace: str, tmp_path: Path
) -> None:
    probe = "readinessProbe: {exec: {command: ['false']}}"
    async with proxied(world, tmp_path) as (proxy, given), anyio.create_task_group() as tasks:

        async def mute() -> None:
            await anyio.sleep(4)
            proxy.silent = True

        tasks.start_soon(mute)
        result = await red(world, namespace, app(container=probe), secret={"kubeconfig": given}, wait="40s")
        proxy.silent = False
    assert isinstance(result.error, StageErrored), result.message
    assert "nobody knows" in result.message
    assert 40 <= result.seconds < 75
