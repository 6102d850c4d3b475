"""Rollouts in a real cluster that end red, with the reason."""

import secrets
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.abc
import pytest

from pipeline.stage import StageFailed
from tests.stages.kubernetes.support import Result, World, app, deploy, forget, green, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


GOOD = ("one", "two", "three")
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "tag": (app("tag"), {"images": ["{registry}/lib/busybox:nope"]}),
    "login": (
        app("login", container="imagePullPolicy: Always").replace("name: pull", "name: nobody"),
        {"pull_secret": ""},
    ),
    "image": (app("image").replace("image: busybox", "image: 'Not An Image'"), {"images": []}),
    "crash": (app("crash", "echo starting; echo no database >&2; exit 3"), {}),
    "configmap": (app("configmap", container="envFrom: [{configMapRef: {name: missing}}]"), {}),
    "secret": (
        app(
            "secret",
            container="volumeMounts: [{name: keys, mountPath: /keys}]",
            pod="volumes: [{name: keys, secret: {secretName: gone}}]",
        ),
        {},
    ),
    "init": (
        app("init", pod="initContainers: [{name: prepare, image: busybox, command: [sh, -c, 'echo no disk; exit 4']}]"),
        {},
    ),
    "policy": (app("policy", container="securityContext: {privileged: true}"), {}),
}


@pytest.fixture(scope="module")
def side_by_side(world: World) -> Iterator[dict[str, Result]]:
    """Good and bad deploys, all at once in one process and one namespace."""
    namespace = f"pipe-test-{secrets.token_hex(4)}"
    results: dict[str, Result] = {}

    async def one(name: str, text: str, fields: dict[str, Any]) -> None:
        registry = world.image.split("/")[0]
        images = [each.format(registry=registry) for each in fields.get("images", [world.image])]
        results[name] = await deploy(world, namespace, text, **{**fields, "images": images})

    async def everything() -> None:
        async with world.cluster() as cluster:
            labels = {"pod-security.kubernetes.io/enforce": "baseline"}
            await cluster.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
            )
        async with anyio.create_task_group() as tasks:
            for name in GOOD:
                tasks.start_soon(one, name, app(name), {})
            for name, (text, fields) in BAD.items():
                tasks.start_soon(one, name, text, fields)

    anyio.run(everything)
    yield results
    forget(world, namespace)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_deploy_is_green_beside_bad_ones(side_by_side: dict[str, Result], name: str) -> None:
    assert side_by_side[name].error is None
    assert side_by_side[name].seconds < 60


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tag", "there is no such image"),
        ("login", "its image cannot be pulled: access denied"),
        ("image", "InvalidImageName"),
        ("crash", "it crashed with exit code 3"),
        ("configmap", 'configmap "missing" not found'),
        ("secret", 'secret "gone" not found'),
        ("init", "container prepare"),
        ("policy", "violates PodSecurity"),
    ],
)
def test_a_permanent_reason_is_red_in_under_a_minute(side_by_side: dict[str, Result], name: str, said: str) -> None:
    result = side_by_side[name]
    assert isinstance(result.error, StageFailed)
    assert said in result.message
    assert f"/{name}: " in result.message
    assert result.seconds < 60


def test_a_crash_names_pod_container_and_image_and_shows_the_log(side_by_side: dict[str, Result], world: World) -> None:
    result = side_by_side["crash"]
    assert "pod crash-" in result.message
    assert f"container app, image {world.image}" in result.message
    assert "no database" in result.evidence
    assert "no database" in result.ctx.text


def test_a_pull_failure_shows_what_the_registry_said(side_by_side: dict[str, Result]) -> None:
    assert "busybox:nope" in side_by_side["tag"].message
    assert "not found" in side_by_side["tag"].evidence
    assert side_by_side["tag"].seconds < 40


async def test_a_probe_that_never_passes_is_red_when_the_wait_is_over_and_says_what_it_asked(
    world: World, namespace: str
) -> None:
    probe = "readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}"
    result = await red(world, namespace, app(command="echo up; sleep 3600", container=probe), wait="10s")
    assert 10 <= result.seconds < 20
    assert "not done after 10 s: " in result.message
    assert "GET :8080/health" in result.message
    assert "connection refused" in result.message
    assert "up" in result.evidence.splitlines()


async def test_a_liveness_probe_that_kills_is_a_probe_and_no_crash(world: World, namespace: str) -> None:
    probe = "livenessProbe: {exec: {command: [cat, /nope]}, periodSeconds: 1, failureThreshold: 1}"
    text = app(container=f"{probe}\n          readinessProbe: {{exec: {{command: [cat, /nope]}}}}")
    result = await red(world, namespace, text, wait="45s")
    assert result.seconds >= 45
    assert "liveness probe (run cat /nope)" in result.message


async def test_a_job_that_fails_is_red_with_its_log(world: World, namespace: str) -> None:
    text = """
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      imagePullSecrets: [{name: pull}]
      containers: [{name: app, image: busybox, command: [sh, -c, "echo table exists; exit 1"]}]
"""
    result = await red(world, namespace, text)
    assert "BackoffLimitExceeded" in result.message
    assert "table exists" in result.evidence


async def test_a_paused_deployment_is_red_at_once_and_zero_replicas_are_green(world: World, namespace: str) -> None:
    await green(world, namespace, app(replicas=0))
    paused = app(replicas=1).replace("spec:\n  replicas", "spec:\n  paused: true\n  replicas", 1)
    result = await red(world, namespace, paused)
    assert "is paused" in result.message
    assert result.seconds < 30


async def test_a_quota_that_leaves_no_room_is_red(world: World, namespace: str) -> None:
    quota = f"""
apiVersion: v1
kind: ResourceQuota
metadata: {{name: none}}
spec: {{hard: {{pods: "0"}}}}
---
{app()}"""
    result = await red(world, namespace, quota)
    assert "exceeded quota" in result.message
    assert result.seconds < 60
