"""Making faults on the real cluster, all at once, and telling how long after the cluster knew the deploy was red."""

import base64
import json
import secrets
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread
import yaml

from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.transport import ApiError
from tests.stages.kubernetes.faults import Fault
from tests.stages.kubernetes.support import Result, World, deploy

__all__ = ["Told", "make", "pull_secret"]

_EVERY = 0.5
"""Seconds between two deploys: a node that is given sixty pods at once tells of none of them in time."""


@dataclass(frozen=True)
class Told:
    """How a deploy with a fault ended; `late` is how many seconds after the cluster's own last word on it."""

    result: Result
    said: str
    late: float


async def make(world: World, faults: Sequence[Fault]) -> dict[str, Told]:
    """Deploy all of them side by side, each in a namespace of its own, which is removed."""
    told: dict[str, Told] = {}
    await anyio.to_thread.run_sync(_push_foreign, world)
    async with world.cluster() as cluster:

        async def one(fault: Fault) -> None:
            told[fault.name] = await _one(world, cluster, fault)

        async with anyio.create_task_group() as tasks:
            for fault in faults:
                tasks.start_soon(one, fault)
                await anyio.sleep(_EVERY)
    return told


async def _one(world: World, cluster: Cluster, fault: Fault) -> Told:
    namespace = f"pipe-{fault.name}-{secrets.token_hex(3)}"

    def filled(text: str) -> str:
        return text.replace("{namespace}", namespace).replace("{registry}", world.registry)

    around = [thing for thing in yaml.safe_load_all(filled(fault.around)) if thing]
    await cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": dict(fault.labels)}}
    )
    try:
        for thing in [*around, *([pull_secret(world, namespace, fault.pull)] if fault.pull else [])]:
            await cluster.create(thing)
        if around:
            await _until_denied(cluster, namespace, around[-1]["kind"])
        result = await deploy(world, namespace, filled(fault.text), **fault.fields)
        late = datetime.now(UTC).timestamp() - await _known(cluster, namespace)
    finally:
        for thing in around:
            await cluster.delete(identity(thing))
        await cluster.delete(Ref("v1", "Namespace", "", namespace))
    return Told(result, filled(fault.said), late)


async def _until_denied(cluster: Cluster, namespace: str, kind: str) -> None:
    """A policy holds a moment after it was made."""
    spec = {"containers": [{"name": "app", "image": "none"}], "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": namespace}, "spec": spec}
    with anyio.fail_after(20):
        while kind.startswith("Validating"):
            try:
                await cluster.create(pod, dry_run=True)
            except ApiError as error:
                if "try" in str(error) and "account" not in str(error):
                    return
            await anyio.sleep(0.2)


async def _known(cluster: Cluster, namespace: str) -> float:
    """When it was sure: the third crash of a container, a Job's end, else the first warning; by the node's own clock."""
    pods, _ = await cluster.items(Collection("v1", "Pod", namespace))
    crashed = [time for pod in pods for time in _crashes(pod)]
    jobs, _ = await cluster.items(Collection("batch/v1", "Job", namespace))
    ended = [each["lastTransitionTime"] for job in jobs for each in dig(job, "status", "conditions") or ()]
    events, _ = await cluster.items(Collection("v1", "Event", namespace))
    warned = [each["metadata"]["creationTimestamp"] for each in events if each.get("type") == "Warning"]
    times = ended or crashed or sorted(warned)[:1]
    return datetime.fromisoformat(max(times)).timestamp() if times else datetime.now(UTC).timestamp()


def _crashes(pod: Object) -> list[str]:
    statuses = [*(dig(pod, "status", "initContainerStatuses") or ()), *(dig(pod, "status", "containerStatuses") or ())]
    return [
        time
        for status in statuses
        for state in ("state", "lastState")
        if (time := dig(status, state, "terminated", "finishedAt"))
    ]


def pull_secret(world: World, namespace: str, password: str) -> Object:
    """A pull secret `pull` for the sandbox's registry, with this password."""
    login = base64.b64encode(f"{world.login.username}:{password}".encode()).decode()
    config = json.dumps({"auths": {world.registry: {"auth": login}}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull", "namespace": namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
    }


def _push_foreign(world: World) -> None:
    """An image whose index knows only another architecture than that of any node here."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    with _ask(world, "GET", "lib/busybox/manifests/1", accept=kind) as answer:
        data, digest = answer.read(), answer.headers["Docker-Content-Digest"]
    entry = {
        "mediaType": kind,
        "size": len(data),
        "digest": digest,
        "platform": {"architecture": "s390x", "os": "linux"},
    }
    index = "application/vnd.docker.distribution.manifest.list.v2+json"
    body = json.dumps({"schemaVersion": 2, "mediaType": index, "manifests": [entry]}).encode()
    for blob in (layer for layer in _blobs(data)):
        _ask(world, "POST", f"lib/foreign/blobs/uploads/?mount={blob}&from=lib/busybox").close()
    _ask(world, "PUT", f"lib/foreign/manifests/{digest}", data, kind).close()
    _ask(world, "PUT", "lib/foreign/manifests/1", body, index).close()


def _blobs(manifest: bytes) -> list[str]:
    found = json.loads(manifest)
    return [found["config"]["digest"], *(layer["digest"] for layer in found["layers"])]


def _ask(world: World, method: str, path: str, data: bytes | None = None, kind: str = "", accept: str = "") -> Any:
    login = base64.b64encode(f"{world.login.username}:{world.login.password}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": kind or "application/octet-stream"}
    wanted = {"Accept": accept} if accept else {}
    url = f"http://{world.registry}/v2/{path}"
    request = urllib.request.Request(url, data, {**headers, **wanted}, method=method)
    return urllib.request.urlopen(request, timeout=20)  # noqa: S310
