"""Deploys to a real cluster that end green."""

import base64
import json
import secrets

import anyio
import anyio.abc
import pytest
import yaml

from stages.clients.kubernetes.objects import RUN, Ref
from stages.deploy import DeployOutputs
from tests.stages.kubernetes.support import World, app, green, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8080}]}
"""


async def test_a_first_deploy_makes_namespace_and_pull_secret_and_ends_when_the_pods_serve(
    world: World, namespace: str
) -> None:
    result = await green(world, namespace, app(replicas=2) + SERVICE, annotations={"team/owner": "blue"})
    assert result.outputs == DeployOutputs(objects=2, namespace=namespace, revision="1")
    deployment = await world.get("Deployment", namespace, "web", "apps/v1")
    assert deployment["status"]["availableReplicas"] == 2
    assert deployment["metadata"]["annotations"]["team/owner"] == "blue"
    assert deployment["metadata"]["annotations"][RUN] == result.ctx.run.id
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == world.image
    secret = await world.get("Secret", namespace, "pull")
    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert list(auths) == [world.image.split("/")[0]]
    assert result.ctx.progressed[-1][0].startswith("web: ")
    assert [effect.key for effect in result.ctx.effects] == [
        f"apply namespace {namespace}",
        f"pull secret {namespace}/pull",
        "apply services",
        "apply workloads",
    ]
    told = json.dumps([[effect.intent, effect.value] for effect in result.ctx.effects]) + result.ctx.text
    assert world.login.password not in told


async def test_a_deploy_that_changes_nothing_is_green_at_once(world: World, namespace: str) -> None:
    await green(world, namespace, app())
    again = await green(world, namespace, app())
    assert again.seconds < 10
    assert again.outputs is not None
    assert again.outputs.revision == "1"


async def test_a_slow_start_is_no_failure(world: World, namespace: str) -> None:
    probe = "readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 2}"
    result = await green(world, namespace, app(command="sleep 7; touch /tmp/up; sleep 3600", container=probe))
    assert result.seconds > 7
    assert "probe" in result.ctx.text


async def test_broken_pods_of_the_release_before_do_not_fail_a_good_one(world: World, namespace: str) -> None:
    crash = app(command="exit 1", replicas=2)
    await red(world, namespace, crash, wait="10s")
    await anyio.sleep(10)
    good = await green(world, namespace, app(replicas=2))
    assert good.outputs is not None
    assert good.outputs.revision == "2"


async def test_a_rollout_is_not_done_while_old_pods_serve(world: World, namespace: str) -> None:
    slow = "readinessProbe: {exec: {command: ['true']}, initialDelaySeconds: 3, periodSeconds: 1}"
    await green(world, namespace, app(replicas=2, container=slow))
    await green(world, namespace, app(command="sleep 3601", replicas=2, container=slow))
    deployment = await world.get("Deployment", namespace, "web", "apps/v1")
    counts = {key: deployment["status"].get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
    assert counts == {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


OTHERS = """
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
  - apiVersion: v1
    kind: ConfigMap
    metadata: {{name: settings}}
    data: {{port: $PORT, script: "echo $$HOME"}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: $REPLICAS
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec: &pod
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{{name: pull}}]
      containers: [{{name: app, image: busybox, command: [sh, -c, "sleep {seconds}"]}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template: {{metadata: {{labels: {{app: agent}}}}, spec: *pod}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: migrate-{seconds}}}
spec:
  template:
    spec:
      restartPolicy: Never
      imagePullSecrets: [{{name: pull}}]
      containers: [{{name: app, image: busybox, command: [sh, -c, "sleep 2"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: lone-{seconds}}}
spec:
  imagePullSecrets: [{{name: pull}}]
  terminationGracePeriodSeconds: 1
  containers: [{{name: app, image: busybox, command: [sleep, "3600"]}}]
"""


async def test_every_kind_of_workload_is_waited_for_twice(world: World, namespace: str) -> None:
    text = OTHERS.replace("spec: &pod", "spec: &pod")
    for seconds in ("3600", "3601"):
        # An anchor holds within one document only, so the DaemonSet gets the pod written out.
        pod = text.split("spec: &pod\n")[1].split("---")[0].format(seconds=seconds)
        written = text.replace("*pod", json.dumps(yaml.safe_load(pod)).replace("{", "{{").replace("}", "}}"))
        env = {"PORT": "8080", "REPLICAS": "2"}
        result = await green(world, namespace, written.format(seconds=seconds), env=env)
        assert result.outputs is not None
        assert result.outputs.objects == 6
    claim = await world.get("PersistentVolumeClaim", namespace, "data")
    assert claim["status"]["phase"] == "Bound"
    stateful = (await world.get("StatefulSet", namespace, "db", "apps/v1"))["status"]
    assert (stateful["updatedReplicas"], stateful["currentRevision"]) == (2, stateful["updateRevision"])
    assert (await world.get("Job", namespace, "migrate-3601", "batch/v1"))["status"]["succeeded"] == 1
    settings = await world.get("ConfigMap", namespace, "settings")
    assert settings["data"] == {"port": "8080", "script": "echo $HOME"}


async def test_a_definition_and_its_object_go_out_in_one_deploy(world: World, namespace: str) -> None:
    group = f"g{secrets.token_hex(4)}.example.com"
    text = f"""
apiVersion: {group}/v1
kind: Widget
metadata: {{name: one}}
spec: {{size: 3}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgets.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{kind: Widget, plural: widgets}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""
    try:
        result = await green(world, namespace, text)
        assert f"Widget {namespace}/one is not checkable: its definition is part of this deploy" in result.ctx.text
        assert (await world.get("Widget", namespace, "one", f"{group}/v1"))["spec"] == {"size": 3}
    finally:
        async with world.cluster() as cluster:
            await cluster.delete(Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", f"widgets.{group}"))


MIGRATION = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {pipe-ci/wave: "-1"}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      imagePullSecrets: [{name: pull}]
      containers: [{name: migrate, image: busybox, command: [sh, -c, COMMAND]}]
"""


async def test_a_wave_begins_only_when_the_one_before_is_done(world: World, namespace: str) -> None:
    text = app() + MIGRATION.replace("COMMAND", "sleep 4")
    await green(world, namespace, text)
    job = await world.get("Job", namespace, "migrate", "batch/v1")
    deployment = await world.get("Deployment", namespace, "web", "apps/v1")
    assert deployment["metadata"]["creationTimestamp"] >= job["status"]["completionTime"]


async def test_a_wave_that_fails_keeps_the_next_from_being_written(world: World, namespace: str) -> None:
    result = await red(world, namespace, app() + MIGRATION.replace("COMMAND", "exit 3"))
    assert "Job" in result.message
    assert await world.get("Deployment", namespace, "web", "apps/v1") is None
