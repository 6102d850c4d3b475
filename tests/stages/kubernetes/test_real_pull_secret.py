"""The pull secret in a real cluster."""

import pytest

from pipeline.stage import Login
from tests.stages.kubernetes.support import World, app, green

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
