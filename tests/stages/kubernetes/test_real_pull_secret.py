"""The pull secret in a real cluster."""

import anyio
import pytest

from pipeline.stage import Login
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import identity
from tests.stages.kubernetes.faulty import pull_secret
from tests.stages.kubernetes.support import World, app, green, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


async def test_our_pull_secret_is_renewed_and_a_foreign_one_left_alone(world: World, namespace: str) -> None:
    await green(world, namespace, app())
    old = await world.get("Secret", namespace, "pull")
    wrong = Login("pipe", "wrong-password")
    changed = await green(world, namespace, app(), secret={"registry": wrong})
    new = await world.get("Secret", namespace, "pull")
    assert old["data"] != new["data"]
    assert "renewed" in changed.ctx.text
    assert "wrong-password" not in changed.ctx.text
    async with world.cluster() as cluster:
        await cluster.replace({**new, "metadata": {**new["metadata"], "labels": {}}})
    left = await green(world, namespace, app())
    assert "is not ours and is left alone" in left.ctx.text
    assert (await world.get("Secret", namespace, "pull"))["data"] == new["data"]


async def _denied(cluster: Cluster, namespace: str) -> int:
    """How often the node has told so far that the registry denied it."""
    events, _ = await cluster.items(Collection("v1", "Event", namespace))
    return sum(each.get("count") or 1 for each in events if "401 Unauthorized" in each.get("message", ""))


async def _with_wrong_login(world: World, cluster: Cluster, namespace: str) -> None:
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await cluster.create(pull_secret(world, namespace, "wrong-password"))


ALWAYS = app(container="imagePullPolicy: Always")


async def test_a_login_that_a_node_was_denied_twice_is_red_without_more_patience(world: World, namespace: str) -> None:
    async with world.cluster() as cluster:
        await _with_wrong_login(world, cluster, namespace)
        result = await red(world, namespace, ALWAYS, pull_secret="")
        times = await _denied(cluster, namespace)
    assert "access denied to the login in the pull secret pull" in result.message
    assert times == 2, "a third try comes only half a minute after the first one"


async def test_a_login_that_is_let_in_at_the_second_try_is_waited_for(world: World, namespace: str) -> None:
    async with world.cluster() as cluster, anyio.create_task_group() as tasks:
        await _with_wrong_login(world, cluster, namespace)

        async def mend() -> None:
            while not await _denied(cluster, namespace):
                await anyio.sleep(0.2)
            right = pull_secret(world, namespace, world.login.password)
            await cluster.merge(identity(right), {"data": right["data"]})

        tasks.start_soon(mend)
        await green(world, namespace, ALWAYS, pull_secret="")
