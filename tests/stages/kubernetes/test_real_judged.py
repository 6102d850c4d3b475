"""Judgements that hang on more than an object's own words, on a real cluster."""

import secrets

import pytest

from stages.clients.kubernetes.api import Collection
from stages.clients.kubernetes.objects import Ref
from tests.stages.kubernetes.support import World, green, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]

DAEMONS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  updateStrategy: {type: HOW}
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      imagePullSecrets: [{name: pull}]
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: busybox, command: [sleep, "SECONDS"]}]
"""


def daemons(how: str, seconds: int) -> str:
    return DAEMONS.replace("HOW", how).replace("SECONDS", str(seconds))


async def test_pods_that_a_daemon_set_kept_when_its_template_was_changed_back_are_its_new_ones(
    world: World, namespace: str
) -> None:
    await green(world, namespace, daemons("RollingUpdate", 3600))
    await green(world, namespace, daemons("OnDelete", 3601))  # which changes no pod
    await green(world, namespace, daemons("RollingUpdate", 3600), wait="60s")
    thing = await world.get("DaemonSet", namespace, "agent", "apps/v1")
    assert thing["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "3"
    async with world.cluster() as cluster:
        pods, _ = await cluster.items(Collection("v1", "Pod", namespace))
    assert {pod["metadata"]["labels"]["pod-template-generation"] for pod in pods} == {"1"}


async def test_a_claim_that_has_waited_for_its_first_pod_before_is_done_at_once(world: World, namespace: str) -> None:
    name = f"later-{secrets.token_hex(3)}"
    later = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "kubernetes.io/host-path",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    claim = f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{storageClassName: {name}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
"""
    async with world.cluster() as cluster:
        await cluster.create(later)
        try:
            await green(world, namespace, claim)
            result = await green(world, namespace, claim, wait="5s")
        finally:
            await cluster.delete(Ref("storage.k8s.io/v1", "StorageClass", "", name))
    assert "it is bound when a pod uses it" in result.ctx.text


async def test_a_pod_whose_service_account_of_the_same_name_is_nowhere_is_refused_before_anything_is_written(
    world: World, namespace: str
) -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  serviceAccountName: web
  imagePullSecrets: [{name: pull}]
  containers: [{name: app, image: busybox, command: [sleep, "3600"]}]
"""
    result = await red(world, namespace, text)
    assert 'serviceaccount "web" not found' in result.message
    assert "not checkable" not in result.ctx.text
    assert await world.get("ConfigMap", namespace, "settings") is None
    await green(world, namespace, f"{text}---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: web}}\n")
