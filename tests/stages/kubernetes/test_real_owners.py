"""Fields with another owner, on a real cluster: refused, taken or left as the file says, and autoscalers' replicas."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.ownership import owners
from tests.stages.kubernetes.support import World, app, green, red
from tests.stages.kubernetes.test_real_looks import look

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', b.yml: x}\n"
HPA = """
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: MIN
  maxReplicas: 4
"""


async def write_as(world: World, manager: str, ref: Ref, fields: Mapping[str, Any]) -> None:
    """Apply fields by force as somebody else."""
    metadata = {"name": ref.name, "namespace": ref.namespace}
    async with world.cluster() as cluster:
        thing = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, **fields}
        await cluster.apply(thing, force=True, manager=manager)


async def kubectl(world: World, namespace: str, text: str, *words: str) -> None:
    """`kubectl apply` as people do it: client-side."""
    argv = ["kubectl", f"--kubeconfig={world.kubeconfig}", "-n", namespace, *(words or ("apply", "-f", "-"))]
    done = await anyio.run_process(argv, input=text.encode(), check=False)
    assert done.returncode == 0, done.stderr


async def until_replicas(world: World, namespace: str, count: int) -> Any:
    with anyio.fail_after(60):
        while True:
            found = await world.get("Deployment", namespace, "web", "apps/v1")
            if found["spec"]["replicas"] == count:
                return found
            await anyio.sleep(0.2)


@pytest.mark.parametrize("what", ["force", "ignore"])
async def test_fields_of_others_are_taken_or_left_as_the_file_says_and_each_is_told(
    world: World, namespace: str, what: str
) -> None:
    await green(world, namespace, CONFIG)
    ref = Ref("v1", "ConfigMap", namespace, "c")
    await write_as(world, "somebody", ref, {"data": {"b.yml": "theirs"}})
    new = CONFIG.replace("b.yml: x", "b.yml: z").replace("'1'", "'2'")
    refused = await red(world, namespace, new)
    assert "on_conflict: force | ignore" in refused.evidence

    done = "taken from" if what == "force" else "left to"
    told = f'ConfigMap {namespace}/c .data.b.yml is {done} "somebody"'
    ahead = await look(world, namespace, new, on_conflict=what)
    assert ahead.findings == []
    assert [line for line in ahead.intends if line.startswith(told)]

    result = await green(world, namespace, new, on_conflict=what)
    assert result.ctx.text.count(told) == 1
    found = await world.get("ConfigMap", namespace, "c")
    assert found["data"] == {"a": "2", "b.yml": "z" if what == "force" else "theirs"}
    assert owners(found, "data", "b.yml") == ({"pipe"} if what == "force" else {"somebody"})


async def test_what_kubectl_applied_is_taken_over_so_that_what_leaves_the_manifest_is_removed(
    world: World, namespace: str
) -> None:
    env = "env: [{name: OLD, value: a}, {name: B, value: b}]"
    await green(world, namespace, CONFIG)  # makes the namespace and the pull secret
    text = app(container=env).replace("image: busybox", f"image: {world.image}").replace("[{name: pull}]", "[]")
    await kubectl(world, namespace, text)
    changed = app(container="env: [{name: B, value: c}]")
    assert (await look(world, namespace, changed)).findings == []
    await green(world, namespace, changed)
    found = await world.get("Deployment", namespace, "web", "apps/v1")
    assert found["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "c"}]
    assert not [name for name in found["metadata"]["annotations"] if "last-applied" in name]
    assert owners(found, "spec", "template") == {"pipe"}


async def test_a_hand_that_kubectl_applies_to_what_is_ours_is_a_conflict(world: World, namespace: str) -> None:
    await green(world, namespace, CONFIG)
    await kubectl(world, namespace, CONFIG.replace("'1'", "hotfix"))
    result = await red(world, namespace, CONFIG)
    assert '.data.a: is owned by "kubectl-client-side-apply"' in result.message
    assert (await world.get("ConfigMap", namespace, "c"))["data"]["a"] == "hotfix"


@pytest.mark.parametrize("by", ["pipe", "kubectl"])
async def test_an_autoscaler_in_the_cluster_keeps_the_replicas_it_set_and_those_it_found(
    world: World, namespace: str, by: str
) -> None:
    plain = app(replicas=2).replace("image: busybox", f"image: {world.image}")
    if by == "pipe":
        await green(world, namespace, plain)
    else:
        await green(world, namespace, CONFIG)
        await kubectl(world, namespace, plain)
    await kubectl(world, namespace, HPA.replace("MIN", "2"))
    ahead = await look(world, namespace, plain)
    assert ahead.intends == [
        f"Deployment {namespace}/web: its replicas are left to HorizontalPodAutoscaler {namespace}/web"
    ]
    # Nobody else owns the replicas yet: given up just so, they would fall to 1.
    await green(world, namespace, plain.replace("replicas: 2", "replicas: 1"))
    found = await world.get("Deployment", namespace, "web", "apps/v1")
    assert found["spec"]["replicas"] == 2
    assert owners(found, "spec", "replicas") == {"pipe-handover"}

    await kubectl(world, namespace, HPA.replace("MIN", "3"))
    assert owners(await until_replicas(world, namespace, 3), "spec", "replicas") == {"kube-controller-manager"}
    await green(world, namespace, plain.replace("replicas: 2", "replicas: 1"))
    assert (await world.get("Deployment", namespace, "web", "apps/v1"))["spec"]["replicas"] == 3


async def test_replicas_are_ours_again_when_the_autoscaler_is_gone_and_never_changed_them(
    world: World, namespace: str
) -> None:
    await green(world, namespace, app(replicas=2))
    await green(world, namespace, app(replicas=1) + HPA.replace("MIN", "2"))
    found = await world.get("Deployment", namespace, "web", "apps/v1")
    assert (found["spec"]["replicas"], owners(found, "spec", "replicas")) == (2, {"pipe-handover"})
    async with world.cluster() as cluster:
        await cluster.delete(Ref("autoscaling/v2", "HorizontalPodAutoscaler", namespace, "web"))
    await green(world, namespace, app(replicas=1))
    found = await world.get("Deployment", namespace, "web", "apps/v1")
    assert (found["spec"]["replicas"], owners(found, "spec", "replicas")) == (1, {"pipe"})


# -- fields that cannot change ---------------------------------------------------------------------

FIXED = """
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: p}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, volumeName: none, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: typed}
type: example.com/a
---
apiVersion: v1
kind: ConfigMap
metadata: {name: frozen}
immutable: true
data: {a: '1'}
---
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: a, image: registry.example/a}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: t}
spec:
  replicas: 0
  serviceName: one
  selector: {matchLabels: {app: t}}
  template: {metadata: {labels: {app: t}}, spec: {containers: [{name: a, image: registry.example/a}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: b}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: one}
"""


async def test_every_field_that_cannot_change_is_found_by_the_dry_run_and_nothing_is_deleted_for_it(
    world: World, namespace: str
) -> None:
    await green(world, namespace, CONFIG)
    await kubectl(world, namespace, FIXED)
    before = [await world.get(kind, namespace, name, version) for version, kind, name in KINDS]
    changed = (
        FIXED.replace("{ports", "{clusterIP: 10.96.99.99, ports")
        .replace("ReadWriteOnce", "ReadWriteMany")
        .replace("example.com/a\n---", "example.com/b\n---")
        .replace("a: '1'", "a: '2'")
        .replace("image: registry.example/a}]}}}\n---\napiVersion: apps", "image: b}]}}}\n---\napiVersion: apps")
        .replace("serviceName: one", "serviceName: two")
        .replace("name: one}", "name: two}")
    )
    result = await red(world, namespace, changed + "---\n" + CONFIG.replace("'1'", "new"), pull_secret="")
    rows = result.evidence.splitlines()
    assert max(map(len, rows)) < 400, rows
    for _, kind, name in KINDS:
        assert [row for row in rows if f"{kind} {namespace}/{name}" in row and "new name" in row], (kind, rows)
    assert before == [await world.get(kind, namespace, name, version) for version, kind, name in KINDS]
    assert (await world.get("ConfigMap", namespace, "c"))["data"]["a"] == "1"


KINDS = [
    ("v1", "Service", "s"),
    ("v1", "PersistentVolumeClaim", "p"),
    ("v1", "Secret", "typed"),
    ("v1", "ConfigMap", "frozen"),
    ("batch/v1", "Job", "j"),
    ("apps/v1", "StatefulSet", "t"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "b"),
]
