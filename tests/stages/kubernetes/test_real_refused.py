"""What a real cluster refuses before anything is written."""

from typing import Any

import pytest

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.transport import Request
from tests.stages.kubernetes.support import World, app, green, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


async def test_a_variable_without_a_value_is_refused_with_its_place_and_nothing_is_changed(
    world: World, namespace: str
) -> None:
    text = app() + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '$REGISTRI/$OTHER'}\n"
    result = await red(world, namespace, text, env={"REGISTRY": "r"})
    line = text.splitlines().index("data: {a: '$REGISTRI/$OTHER'}") + 1
    assert result.error is not None
    assert result.error.cause.kind is CauseKind.CONFIG
    assert result.error.cause.evidence == (
        f"deploy/app.yml:{line}:12: the variable $REGISTRI is not set; did you mean $REGISTRY?",
        f"deploy/app.yml:{line}:22: the variable $OTHER is not set; set it in `env:` of the pipeline or the stage",
    )
    assert result.ctx.effects == []
    assert await world.get("Namespace", "", namespace) is None


async def test_a_field_that_somebody_else_owns_is_a_table_and_nothing_is_changed(world: World, namespace: str) -> None:
    await green(world, namespace, app().replace("  replicas: 1\n", ""))
    ref = Ref("apps/v1", "Deployment", namespace, "web")
    async with world.cluster() as cluster:
        scaled = await cluster.get(ref)
        assert scaled is not None
        await _apply_as(cluster, "autoscaler", {**_bare(scaled), "spec": {"replicas": 3}})
    extra = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\n"
    result = await red(world, namespace, app(replicas=1) + extra)
    assert isinstance(result.error, StageFailed)
    assert result.error.cause.kind is CauseKind.CONFIG
    assert '.spec.replicas: is owned by "autoscaler"' in result.message
    assert "OBJECT" in result.evidence
    assert "leave the field out" in result.evidence
    assert await world.get("ConfigMap", namespace, "new") is None


def _bare(thing: dict[str, Any]) -> dict[str, Any]:
    names = {key: thing["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": names}


async def _apply_as(cluster: Any, manager: str, thing: dict[str, Any]) -> None:
    path = f"/apis/apps/v1/namespaces/{thing['metadata']['namespace']}/deployments/{thing['metadata']['name']}"
    query = (("fieldManager", manager), ("force", "true"))
    await cluster.transport.send(Request("PATCH", path, "patch", query, thing, "application/apply-patch+yaml"))


async def test_an_immutable_field_is_refused_with_ways_out(world: World, namespace: str) -> None:
    await green(world, namespace, app())
    result = await red(world, namespace, app().replace("{app: web}", "{app: other}"))
    assert "spec.selector" in result.message
    assert "immutable" in result.message
    assert "give the object a new name" in result.evidence


async def test_an_unknown_field_is_refused_before_anything_is_written(world: World, namespace: str) -> None:
    result = await red(world, namespace, app().replace("replicas:", "replcas:"))
    assert "replcas" in result.message
    assert await world.get("Deployment", namespace, "web", "apps/v1") is None


async def test_a_refused_secret_never_shows_its_data(world: World, namespace: str) -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: 4711}\n"
    result = await red(world, namespace, text)
    assert "Secret" in result.message
    assert "4711" not in result.message + result.evidence + result.ctx.text


async def test_an_object_in_another_namespace_is_refused(world: World, namespace: str) -> None:
    result = await red(world, namespace, app().replace("{name: web, ", "{name: web, namespace: other, "))
    assert f"names the namespace 'other', the stage '{namespace}'" in result.message
