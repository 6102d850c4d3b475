"""What proves a diagnosis: the events about a pod and the last lines of the right container's log."""

from collections.abc import Sequence

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.diagnosis import Trouble
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.scene import Scene
from stages.clients.kubernetes.transport import ApiError

__all__ = ["collect"]

_SECONDS = 8.0
_LINES = 50
_EVENTS = 8
_WIDTH = 500
_WITH_LOG = {"crash", "probe", "ended", "gate", "starting"}


async def _events_of(cluster: Cluster, namespace: str, uid: str) -> list[Object]:
    """The events about an object, the newest last; none if they cannot be read."""
    try:
        found, _ = await cluster.items(Collection("v1", "Event", namespace, fields=f"involvedObject.uid={uid}"))
    except (ApiError, StageErrored, StageFailed):
        return []
    return sorted(found, key=_time)


async def collect(cluster: Cluster, scene: Scene, trouble: Trouble | None) -> list[str]:
    """Lines of evidence, at most about a hundred; fewer when the cluster is slow to tell."""
    lines: list[str] = []
    with anyio.move_on_after(_SECONDS):
        try:
            await _collect(cluster, scene, trouble, lines)
        except (ApiError, StageErrored, StageFailed) as error:
            lines.append(f"no more evidence: {error}")
    return [line[:_WIDTH] for line in lines]


async def _collect(cluster: Cluster, scene: Scene, trouble: Trouble | None, lines: list[str]) -> None:
    uid = trouble.uid if trouble else scene.thing["metadata"]["uid"]
    events = await _events_of(cluster, scene.ref.namespace, uid)
    lines += [trouble.detail] if trouble and trouble.detail else []
    lines += [_event(event) for event in events if event.get("type") != "Normal"][-_EVENTS:]
    container = trouble.container if trouble and trouble.sort in _WITH_LOG else ""
    pod = next((each for each in scene.pods if trouble and each["metadata"]["uid"] == trouble.uid), None)
    if pod is None and scene.thing["kind"] == "Job" and scene.pods:
        pod = max(scene.pods, key=lambda each: str(each["metadata"].get("creationTimestamp")))
        container = pod["spec"]["containers"][0]["name"]
    if pod is not None and container:
        lines += await _logs(cluster, pod, container)


async def _logs(cluster: Cluster, pod: Object, container: str) -> list[str]:
    """The log of the container as it is now, and of the time before its last restart."""
    ref = Ref("v1", "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    statuses = [*(dig(pod, "status", "initContainerStatuses") or ()), *(dig(pod, "status", "containerStatuses") or ())]
    restarts = next((each.get("restartCount") for each in statuses if each["name"] == container), 0)
    now = await cluster.log(ref, container, previous=False, lines=_LINES)
    before = await cluster.log(ref, container, previous=True, lines=_LINES) if restarts else []
    lines = _titled(f"log of {container} before its last restart", before if before != now else [])
    return [*lines, *_titled(f"log of {container}", now)]


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    gone = len(lines) == 1 and lines[0].startswith("unable to retrieve container logs")
    return [f"--- {title}, last {len(lines)} lines ---", *lines] if lines and not gone else []


def _event(event: Object) -> str:
    count = event.get("count") or dig(event, "series", "count") or 1
    times = f" ({count} times)" if count > 1 else ""
    return f"event {event.get('reason')}{times}: {' '.join(str(event.get('message')).split())}"


def _time(event: Object) -> str:
    series = dig(event, "series", "lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")
