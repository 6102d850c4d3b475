"""What is asked of the cluster about a trouble: the events, and the log of the right container."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.diagnosis import Trouble
from stages.clients.kubernetes.explanation import Seen
from stages.clients.kubernetes.hearing import told_at
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.scene import Scene
from stages.clients.kubernetes.transport import ApiError

__all__ = ["look_closer"]

_SECONDS = 8.0
_LINES = 400
"""Of a log: the stack trace of a Java server alone may have two hundred."""
_WITH_LOG = {"crash", "probe", "ended", "gate", "starting", "registry"}


async def _events_about(cluster: Cluster, namespace: str, fields: str) -> list[Object]:
    """The events about an object, the newest last; none if they cannot be read."""
    try:
        found, _ = await cluster.items(Collection("v1", "Event", namespace, fields=fields))
    except (ApiError, StageErrored, StageFailed):
        return []
    return sorted(found, key=told_at)


async def look_closer(cluster: Cluster, scene: Scene, trouble: Trouble | None) -> Seen:
    """What the cluster still has to tell of a trouble; less when it is slow to tell."""
    seen, missing = Seen(), f"the cluster did not tell it in {_SECONDS:g} s"
    with anyio.move_on_after(_SECONDS):
        try:
            async for more in _look(cluster, scene, trouble):
                seen = replace(seen, **more)
        except (ApiError, StageErrored, StageFailed) as error:
            return replace(seen, missing=str(error))
        return seen
    return replace(seen, missing=missing)


async def _look(cluster: Cluster, scene: Scene, trouble: Trouble | None) -> AsyncIterator[dict[str, Any]]:
    """One part of `Seen` after the other."""
    uid = trouble.uid if trouble else scene.thing["metadata"]["uid"]
    yield {"events": await _events_about(cluster, scene.ref.namespace, f"involvedObject.uid={uid}")}
    pod, container = _where(scene, trouble)
    if pod is not None and container:
        before, now = await _logs(cluster, pod, container)
        yield {"container": container, "before": before, "now": now}
    if pod is not None and trouble and trouble.sort == "claim":
        yield {"claims": await _claims(cluster, pod)}


def _where(scene: Scene, trouble: Trouble | None) -> tuple[Object | None, str]:
    """The pod in trouble and the container whose log matters, empty if none does."""
    pod = next((each for each in scene.pods if trouble and each["metadata"]["uid"] == trouble.uid), None)
    if pod is None and scene.thing["kind"] == "Job" and scene.pods:
        pod = max(scene.pods, key=lambda each: str(each["metadata"].get("creationTimestamp")))
        return pod, pod["spec"]["containers"][0]["name"]
    return pod, trouble.container if trouble and trouble.sort in _WITH_LOG else ""


async def _logs(cluster: Cluster, pod: Object, container: str) -> tuple[list[str], list[str]]:
    """The log of the time before the container's last restart, and the present one."""
    ref = Ref("v1", "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    statuses = [*(dig(pod, "status", "initContainerStatuses") or ()), *(dig(pod, "status", "containerStatuses") or ())]
    restarts = next((each.get("restartCount") for each in statuses if each["name"] == container), 0)
    now = await cluster.log(ref, container, previous=False, lines=_LINES)
    return await cluster.log(ref, container, previous=True, lines=_LINES) if restarts else [], now


async def _claims(cluster: Cluster, pod: Object) -> dict[str, list[Object]]:
    """The events about the claims of a pod."""
    volumes = dig(pod, "spec", "volumes") or ()
    names = [name for volume in volumes if (name := dig(volume, "persistentVolumeClaim", "claimName"))]
    namespace, about = pod["metadata"]["namespace"], "involvedObject.kind=PersistentVolumeClaim,involvedObject.name="
    return {name: await _events_about(cluster, namespace, about + name) for name in names}
