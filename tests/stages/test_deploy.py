"""`uses: deploy` up to where it needs a cluster; with one it is tried in tests/stages/kubernetes."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.stage import CauseKind, SecretRef, StageFailed
from stages.deploy import Deploy
from tests.support.context import FakeContext

APP = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: app, image: $REGISTRY/web, args: [$LEVEL, '$$HOME']}]
"""


async def refused(ctx: FakeContext, text: str = APP, **fields: Any) -> StageFailed:
    (ctx.workspace / "app.yml").write_text(text)
    stage = Deploy.model_validate({"manifests": ["*.yml"], **fields})
    with pytest.raises(StageFailed) as caught:
        await stage.run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert ctx.effects == []
    return caught.value


async def test_what_is_wrong_in_the_files_is_told_before_any_cluster_is_looked_for(ctx: FakeContext) -> None:
    error = await refused(ctx)
    assert [line.split(": ", 1)[0] for line in error.cause.evidence] == ["app.yml:6:35", "app.yml:6:57"]
    assert "$REGISTRY" in str(error)


async def test_without_a_named_cluster_nothing_is_applied_anywhere(ctx: FakeContext) -> None:
    ctx.manifest_env = {"REGISTRY": "r", "LEVEL": "1"}
    assert "no cluster is named" in str(await refused(ctx))


async def test_only_listed_variables_or_none_are_looked_at(ctx: FakeContext) -> None:
    assert "no cluster is named" in str(await refused(ctx, substitute=False))
    assert "$LEVEL" in str(await refused(ctx, substitute=["LEVEL"]))
    ctx.manifest_env = {"LEVEL": "1"}
    assert "no cluster is named" in str(await refused(ctx, substitute=["LEVEL"]))


async def test_an_image_for_no_container_is_refused(ctx: FakeContext) -> None:
    ctx.manifest_env = {"REGISTRY": "r", "LEVEL": "1"}
    error = await refused(ctx, images=["reg:5000/a/wab:1"])
    assert "the image reg:5000/a/wab:1 is used by no container; images present: r/web" in str(error)


async def test_environment_of_the_host_is_no_variable_of_a_manifest(ctx: FakeContext) -> None:
    ctx.env["REGISTRY"] = "from-the-host"
    assert "$REGISTRY" in str(await refused(ctx))


async def test_a_registry_for_pods_that_are_not_in_the_deploy_is_refused(ctx: FakeContext) -> None:
    ctx.manifest_env = {"REGISTRY": "r", "LEVEL": "1"}
    error = await refused(ctx, registered_in={"nacos": {"server": "nacos:8848"}})
    assert "this deploy has no workload whose pods could register" in str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"manifests": []},
        {"manifests": ["a"], "wait": 5},
        {"manifests": ["a"], "x": 1},
        {"manifests": ["a"], "waits_for": ["secret/x"]},
        {"manifests": ["a"], "registered_in": {}},
        {"manifests": ["a"], "registered_in": {"nacos": {"server": "a,b"}}},
        {"manifests": ["a"], "registered_in": {"nacos": {"server": "a", "workloads": ["x/y/z"]}}},
    ],
)
def test_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Deploy.model_validate(fields)


def test_the_kubeconfig_is_a_file_and_the_registry_a_login() -> None:
    marks = {name: Deploy.model_fields[name].metadata for name in ("secret", "pull_secret")}
    assert marks == {"secret": [SecretRef(("file",))], "pull_secret": [SecretRef(("login",))]}


def test_a_deploy_takes_no_core_and_a_place_in_its_pool() -> None:
    assert (Deploy.computes, Deploy.pool) == (False, ("deploy", 50))
