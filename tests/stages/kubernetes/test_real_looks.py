"""What the real cluster says to a deploy before there is anything to deploy, and that nothing of it is left."""

import json
import secrets
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.stage import CauseKind, Examined, Finding, Severity, StageErrored, StageFailed
from stages.catalog import kind
from stages.clients.kubernetes.api import Collection
from stages.deploy import Deploy
from tests.stages.kubernetes.support import World, app, forget, green, kubeconfig
from tests.stages.kubernetes.test_real_access import restricted
from tests.support.context import FakeContext

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]

PLACEHOLDER = f"registry.example/busybox:1@sha256:{'0' * 64}"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: {port}}}]}}
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], {storage_class}, resources: {{requests: {{storage: 1Gi}}}}}}
"""


async def look(world: World, namespace: str, text: str, ctx: FakeContext | None = None, **fields: Any) -> Examined:
    """Look ahead at a deploy of this text; not longer than ten seconds."""
    ctx = ctx or world.context()
    (ctx.workspace / "deploy").mkdir(exist_ok=True)
    (ctx.workspace / "deploy" / "app.yml").write_text(text)
    given = {"images": [PLACEHOLDER] if "image: busybox" in text else [], "pull_secret": "registry", **fields}
    stage = Deploy.model_validate({"manifests": ["deploy/**"], "namespace": namespace, "secret": "kubeconfig", **given})
    began = time.monotonic()
    examined = await stage.preflight(ctx)
    assert time.monotonic() - began < 10
    assert ctx.effects == []
    return examined


def only(examined: Examined) -> Finding:
    assert len(examined.findings) == 1, [finding.cause.message for finding in examined.findings]
    return examined.findings[0]


async def make(world: World, *objects: dict[str, Any]) -> None:
    async with world.cluster() as cluster:
        for thing in objects:
            await cluster.create(thing)


async def contents(world: World, namespace: str) -> list[str]:
    """Everything that a look might leave in a namespace, by kind and name."""
    found: list[str] = []
    async with world.cluster() as cluster:
        for version, kinds in (
            ("v1", "Pod Service Secret PersistentVolumeClaim"),
            ("apps/v1", "Deployment ReplicaSet"),
        ):
            for name in kinds.split():
                items, _ = await cluster.items(Collection(version, name, namespace))
                found += [f"{name} {item['metadata']['name']}" for item in items]
    return sorted(found)


def space(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def quota(namespace: str, **hard: str) -> dict[str, Any]:
    metadata = {"name": "small", "namespace": namespace}
    named = {name.replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": named}}


async def until_counted(world: World, namespace: str) -> None:
    """Return when the cluster has begun to count against a quota."""
    with anyio.fail_after(30):
        while True:
            found = await world.get("ResourceQuota", namespace, "small")
            if (found.get("status") or {}).get("used"):
                return
            await anyio.sleep(0.1)


# -- all is well -----------------------------------------------------------------------------------


async def test_a_namespace_that_is_missing_is_not_made_and_its_objects_are_judged(world: World, namespace: str) -> None:
    examined = await look(world, namespace, app())
    assert examined.findings == []
    assert examined.touches == {f"Deployment {namespace}/web at {_server(world)}": "absent"}
    assert await world.get("Namespace", "", namespace) is None
    wrong = only(await look(world, namespace, app(pod="hostNetwerk: true")))
    assert (wrong.severity, wrong.about) == (Severity.FAILS, f"Deployment {namespace}/web")
    assert wrong.cause.kind is CauseKind.CONFIG
    assert "hostNetwerk" in wrong.cause.message
    assert await world.get("Namespace", "", namespace) is None
    assert not [each for each in await contents(world, "default") if "pipe-preflight" in each]


def _server(world: World) -> str:
    import yaml

    return str(yaml.safe_load(world.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])


async def test_a_look_at_what_runs_changes_nothing_and_knows_it_again(world: World, namespace: str) -> None:
    await green(world, namespace, app())
    before = await contents(world, namespace)
    first, second = await look(world, namespace, app()), await look(world, namespace, app())
    assert (first.findings, await contents(world, namespace)) == ([], before)
    assert first.touches == second.touches
    await green(world, namespace, app(replicas=2))
    assert (await look(world, namespace, app())).touches != first.touches


# -- rights ----------------------------------------------------------------------------------------


async def test_a_missing_right_is_told_with_verb_resource_namespace_and_account(
    world: World, namespace: str, tmp_path: Path
) -> None:
    async with restricted(world, namespace, tmp_path, ["get", "list", "watch"]) as given:
        examined = await look(world, namespace, app(), world.context(kubeconfig=given))
    fails = [finding.cause.message for finding in examined.findings if finding.severity is Severity.FAILS]
    for verb in ("patch deployments.apps", "create deployments.apps", "create secrets", "update secrets"):
        message = f"the kubeconfig of secret 'kubeconfig' may not {verb} in the namespace {namespace}"
        assert any(message in told for told in fails), fails
    assert all(
        "give the account" in finding.hint for finding in examined.findings if finding.severity is Severity.FAILS
    )


async def test_an_account_of_one_namespace_with_all_rights_in_it_is_well(
    world: World, namespace: str, tmp_path: Path
) -> None:
    async with restricted(world, namespace, tmp_path, ["*"]) as given:
        examined = await look(world, namespace, app(), world.context(kubeconfig=given))
    assert [finding.cause.message for finding in examined.findings] == []


async def test_a_cluster_that_is_down_is_an_outage_with_its_address(
    world: World, namespace: str, tmp_path: Path
) -> None:
    given = kubeconfig(world, tmp_path, cluster={"server": "https://127.0.0.1:1"})
    with pytest.raises(StageErrored, match=r"the cluster https://127\.0\.0\.1:1 cannot be reached"):
        await look(world, namespace, app(), world.context(kubeconfig=given))


async def test_a_wrong_token_is_told(world: World, namespace: str, tmp_path: Path) -> None:
    given = kubeconfig(world, tmp_path, user={"token": "not-a-token"})
    with pytest.raises(StageFailed, match="does not accept the kubeconfig of secret 'kubeconfig'"):
        await look(world, namespace, app(), world.context(kubeconfig=given))


# -- objects ---------------------------------------------------------------------------------------


async def test_an_object_that_the_cluster_refuses_is_told_with_its_place_and_the_way_out(
    world: World, namespace: str
) -> None:
    await green(world, namespace, app())
    changed = (
        app()
        .replace("matchLabels: {app: web}", "matchLabels: {app: web, tier: front}")
        .replace("metadata: {labels: {app: web}}", "metadata: {labels: {app: web, tier: front}}")
    )
    finding = only(await look(world, namespace, changed))
    assert (finding.severity, finding.place, finding.about) == (
        *(Severity.FAILS, "deploy/app.yml:2", f"Deployment {namespace}/web"),
    )
    assert "immutable" in finding.cause.message
    assert "give the object a new name" in finding.hint
    assert finding.source.startswith("the cluster https://")


async def test_what_a_script_may_change_only_may_fail(world: World, namespace: str) -> None:
    ctx = world.context()
    ctx.earlier = {"render": kind("shell")}
    finding = only(await look(world, namespace, app(pod="hostNetwerk: true"), ctx))
    assert finding.severity is Severity.MAY_FAIL
    assert finding.hint.startswith("well if render changes it")


async def test_manifests_that_are_not_in_the_sources_are_told_unless_somebody_may_make_them(
    world: World, namespace: str
) -> None:
    missing = only(await look(world, namespace, app(), manifests=["k8s/*.yml"]))
    assert (missing.severity, "matches k8s/*.yml" in missing.cause.message) == (Severity.FAILS, True)
    ctx = world.context()
    ctx.earlier = {"compile": kind("maven")}
    assert only(await look(world, namespace, app(), ctx, manifests=["k8s/*.yml"])).severity is Severity.MAY_FAIL


async def test_a_kind_that_the_cluster_does_not_know_is_told_unless_a_deploy_before_brings_it(
    world: World, namespace: str
) -> None:
    text = "apiVersion: example.org/v1\nkind: Shop\nmetadata: {name: x}\n"
    finding = only(await look(world, namespace, text))
    assert (finding.severity, "knows no Shop" in finding.cause.message) == (Severity.FAILS, True)
    ctx = world.context()
    ctx.earlier = {"operator": kind("deploy")}
    assert only(await look(world, namespace, text, ctx)).severity is Severity.MAY_FAIL


@pytest.mark.parametrize("there", [True, False])
async def test_a_node_port_that_is_taken_is_told_before_anything_is_written(
    world: World, namespace: str, *, there: bool
) -> None:
    port = 30000 + secrets.randbelow(2000)
    other = f"{namespace}-other"
    await make(world, space(other), *([space(namespace)] if there else []))
    taken = {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}
    try:
        await make(
            world, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": other}, "spec": taken}
        )
        finding = only(await look(world, namespace, SERVICE.format(name="b", port=port)))
        assert finding.severity is Severity.FAILS
        assert "provided port is already allocated" in finding.cause.message
        assert finding.about == f"Service {namespace}/b"
    finally:
        await anyio.to_thread.run_sync(forget, world, other)


async def test_a_node_port_that_two_services_want_is_told(world: World, namespace: str) -> None:
    text = SERVICE.format(name="a", port=32177) + "---" + SERVICE.format(name="b", port=32177)
    finding = only(await look(world, namespace, text))
    assert finding.cause.message == f"the node port 32177 is wanted by Service {namespace}/a (deploy/app.yml:2) too"


# -- pods ------------------------------------------------------------------------------------------


async def test_pods_that_no_quota_has_room_for_are_told(world: World, namespace: str) -> None:
    await make(world, space(namespace), quota(namespace, requests_memory="100Mi", pods="3"))
    await until_counted(world, namespace)
    big = app(container="resources: {requests: {memory: 200Mi}}")
    finding = only(await look(world, namespace, big))
    assert finding.severity is Severity.FAILS
    assert "exceeded quota: small, requested: requests.memory=200Mi" in finding.cause.message
    many = app(replicas=4, container="resources: {requests: {memory: 10Mi}}")
    assert only(await look(world, namespace, many)).cause.message == (
        "its pods do not fit: pods: 4 pods need 4, the quota small has 3 left"
    )
    none = only(await look(world, namespace, app()))
    assert "must specify requests.memory" in none.cause.message
    assert await contents(world, namespace) == []


async def test_pods_that_pod_security_refuses_are_told(world: World, namespace: str) -> None:
    await make(world, space(namespace, **{"pod-security.kubernetes.io/enforce": "restricted"}))
    finding = only(await look(world, namespace, app()))
    assert finding.severity is Severity.FAILS
    assert 'violates PodSecurity "restricted' in finding.cause.message


async def test_a_service_account_that_is_missing_is_told_unless_the_deploy_brings_it(
    world: World, namespace: str
) -> None:
    await make(world, space(namespace))
    text = app(pod="serviceAccountName: clerk")
    finding = only(await look(world, namespace, text))
    assert 'serviceaccount "clerk" not found' in finding.cause.message
    brings = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: clerk}\n---" + text
    assert (await look(world, namespace, brings)).findings == []


async def test_a_pull_secret_that_is_missing_is_told_unless_it_is_going_to_be_made(
    world: World, namespace: str
) -> None:
    assert (await look(world, namespace, app())).findings == []
    finding = only(await look(world, namespace, app(), pull_secret=""))
    assert (finding.severity, finding.about) == (Severity.MAY_FAIL, f"Secret {namespace}/pull")
    assert "images of registry.example are pulled without a login" in finding.cause.message


async def test_a_storage_class_that_is_missing_is_told_with_those_that_are_there(world: World, namespace: str) -> None:
    finding = only(await look(world, namespace, CLAIM.format(storage_class="storageClassName: fast")))
    assert finding.severity is Severity.FAILS
    assert finding.cause.message.startswith("there is no storage class 'fast'; there are: ")
    volume = f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}}}
spec: {{storageClassName: fast, capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], hostPath: {{path: /tmp/x}}}}
---"""
    brings = await look(world, namespace, volume + CLAIM.format(storage_class="storageClassName: fast"))
    assert brings.findings == []


async def test_no_finding_holds_the_content_of_a_secret(world: World, namespace: str) -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: {hunter2: 1}}\n"
    examined = await look(world, namespace, text)
    assert examined.findings
    assert "hunter2" not in json.dumps([str(finding) for finding in examined.findings])


async def test_a_secret_is_known_again_without_its_content(world: World, namespace: str) -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
    await green(world, namespace, text)
    (fingerprint,) = (await look(world, namespace, text)).touches.values()
    there = await world.get("Secret", namespace, "s")
    assert fingerprint == f"{there['metadata']['uid']}/{there['metadata']['resourceVersion']}"
