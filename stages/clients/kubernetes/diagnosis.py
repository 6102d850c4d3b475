"""Why a pod is not ready, in one sentence, and whether waiting can help: pure functions of pods and events."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stages.clients.kubernetes.objects import Object, dig
from stages.clients.kubernetes.rollout import condition

__all__ = [
    "Patience",
    "Trouble",
    "claim_troubles",
    "create_troubles",
    "is_crash",
    "is_ready",
    "pod_troubles",
    "recounted",
]

NO_GRACE, SOON, CONFIG, PULL, CRASH = 0.0, 5.0, 20.0, 45.0, 30.0
"""Seconds that a trouble may last before waiting is no use: what refers to it may be made a moment later."""
CRASHES = 3
_DENIALS = 2
_A_PULL = timedelta(seconds=8)
"""What a pull that is denied takes at most; the next one is begun ten seconds after it."""
_SIGKILLED = 137
"""Also the kernel's end of who has no memory left: that it was this gets lost now and then (containerd#8893)."""
_AFTER_MOUNT = ("Pulling", "Pulled", "Created", "Started")
"""What a node tells of a pod only when all its volumes are there."""
_UNHEARD_OF = "FailedToRetrieveImagePullSecret"

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_CANNOT_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"}
_NOT_STARTED = {"StartError", "ContainerCannotRun"}
_NO_SUCH = re.compile(r"not found|manifest unknown|name unknown|does not exist", re.IGNORECASE)
_DENIED = re.compile(r"unauthorized|authori[sz]ation failed|denied|no basic auth|authentication req", re.IGNORECASE)
_PULL_CAUSES = (
    # first, as containerd ends it with "not found" too
    ("not made for this node's architecture", NO_GRACE, re.compile(r"no match(ing manifest)? for ", re.IGNORECASE)),
    ("there is no such image", NO_GRACE, _NO_SUCH),
    ("access denied", PULL, _DENIED),
)
_MISSING = re.compile(
    r'(configmap|secret|persistentvolumeclaim|storageclass\S*)s? "[^"]+" not found|non-existent (config|secret) key',
    re.IGNORECASE,
)
_REFUSED = re.compile(r"violates PodSecurity|denied (the )?request", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded quota", re.IGNORECASE)
_UNREACHED = re.compile(r'(Error creating: )?(Get|Post|Put|Patch) "[^"]*": ')
"""What a controller says whose own line to the API server is broken; it tries again."""
_CLAIM = re.compile(r"persistentvolumeclaim", re.IGNORECASE)
_PROBE_KILL = re.compile(r"failed (liveness|startup) probe")
_OVER_WHEN_HIDDEN = {"create", "config", "claim"}
"""Sorts of troubles that go on only as long as they are seen."""
# The first of these is what is told; the rest may follow from it.
_ORDER = (
    *("image", "config", "create", "crash", "ended", "claim", "volume", "probe", "gate", "schedule", "starting"),
    "registry",
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason why a pod is not ready.

    `grace` is how many seconds it may last from when it was first seen, None if it may still pass at any time.
    `container` is empty when the pod itself is in trouble; `detail` is what the cluster says in its own words;
    `crashes` is how often the container has ended, 0 if that is not the trouble.
    """

    sort: str
    pod: str
    uid: str
    message: str
    container: str = ""
    image: str = ""
    grace: float | None = None
    detail: str = ""
    crashes: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is about: later ones of the same key are the same trouble, going on."""
        return self.uid, self.container, self.sort

    @property
    def brief(self) -> str:
        """The pod and the message, for progress."""
        return f"pod {self.pod}: {self.message}" if self.pod else self.message

    @property
    def rank(self) -> int:
        """How likely it is the cause and not a consequence; lower is likelier."""
        return _ORDER.index(self.sort)

    def __str__(self) -> str:
        what = [f"pod {self.pod}"] if self.pod else []
        what += [f"container {self.container}"] if self.container else []
        what += [f"image {self.image}"] if self.image else []
        return f"{', '.join(what)}: {self.message}" if what else self.message


@dataclass(slots=True)
class Patience:
    """How long each trouble has lasted, and which one is past its grace."""

    since: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _shown: set[tuple[str, str, str]] = field(default_factory=set)
    """What was asked about in the present look."""

    def look_again(self) -> None:
        """Begin a look: what is over, as the last one did not show it, counts anew when it is shown next.

        Crashes do not: a ready moment between two of them hides them.
        """
        over = [key for key in self.since if key[2] in _OVER_WHEN_HIDDEN and key not in self._shown]
        for key in over:
            del self.since[key]
        self._shown.clear()

    def exhausted(self, troubles: Sequence[Trouble], now: float) -> Trouble | None:
        """The likeliest trouble that waiting cannot help any more, at `now` seconds of any steady clock."""
        spent = []
        for trouble in troubles:
            self._shown.add(trouble.key)
            if trouble.grace is None and trouble.sort in _OVER_WHEN_HIDDEN:
                self.forget(trouble)
                continue
            first = self.since.setdefault(trouble.key, now)
            if trouble.grace is not None and now - first >= trouble.grace:
                spent.append(trouble)
        return min(spent, key=lambda trouble: trouble.rank, default=None)

    def forget(self, trouble: Trouble) -> None:
        """Let it count from when it is seen next."""
        self.since.pop(trouble.key, None)


def is_crash(trouble: Trouble) -> bool:
    """Whether it is that a program ended by itself, which something that it needs may be the reason of."""
    return trouble.sort == "crash"


def recounted(trouble: Trouble, before: int, since: str) -> Trouble:
    """A crash as it counts when the first `before` ones do not; `since` says why: `since mysql is up`."""
    fresh = trouble.crashes - before
    grace = trouble.grace if fresh >= CRASHES else None
    return replace(trouble, grace=grace, message=f"{trouble.message}, {fresh} of them {since}")


def is_ready(pod: Object) -> bool:
    """Whether the pod serves."""
    return condition(pod, "Ready").get("status") == "True"


def pod_troubles(pod: Object, events: Sequence[Object], *, may_end: bool = False) -> list[Trouble]:
    """What keeps a pod from being ready, the likeliest cause first; empty when it is.

    Args:
        pod: the pod.
        events: the events about it.
        may_end: a Job's pod: it counts its own failures, so crashes are no permanent reason here.
    """
    if is_ready(pod) or dig(pod, "status", "phase") == "Succeeded":
        return []
    found = [*_of_pod(pod, events)]
    for status, spec in _containers(pod):
        found += _of_container(pod, status, spec, events, may_end=may_end)
    return sorted(found, key=lambda trouble: trouble.rank) or [_not_ready(pod)]


def create_troubles(owner: Object, events: Sequence[Object], *, making_room: bool = False) -> list[Trouble]:
    """Why pods of a ReplicaSet, StatefulSet, DaemonSet or Job cannot even be made: quota, policy, admission.

    Args:
        owner: who makes them.
        events: the events about it.
        making_room: older pods of the same workload are ending, and what they take of a quota becomes free.
    """
    if _has_its_pods(owner):
        return []
    failure = condition(owner, "ReplicaFailure")
    said = [failure.get("message", "")] if failure.get("status") == "True" else []
    said += _said(_since(events, "SuccessfulCreate"), "FailedCreate")[-1:]
    return [
        Trouble("create", "", owner["metadata"]["uid"], f"pods cannot be made: {message}", grace=grace)
        for message in said[:1]
        for grace in [None if making_room and _QUOTA.search(message) else _grace(message)]
    ]


def _has_its_pods(owner: Object) -> bool:
    """Whether pods were made in the end, whatever was said before."""
    status = owner.get("status") or {}
    if owner.get("kind") == "Job":
        return any(status.get(name) for name in ("active", "ready", "succeeded"))
    if owner.get("kind") == "DaemonSet":
        wanted, there = status.get("desiredNumberScheduled"), status.get("currentNumberScheduled")
    else:
        wanted, there = dig(owner, "spec", "replicas"), status.get("replicas")
    return bool(wanted and there and there >= wanted)


def _since(events: Sequence[Object], *reasons: str) -> Sequence[Object]:
    """What was told after the last event of these reasons."""
    last = max((at for at, event in enumerate(events) if event.get("reason") in reasons), default=-1)
    return events[last + 1 :]


def _grace(message: str) -> float | None:
    """How long pods may be refused so."""
    if _UNREACHED.match(message):
        return None
    return SOON if _REFUSED.search(message) else CONFIG


def claim_troubles(claim: Object, events: Sequence[Object]) -> list[Trouble]:
    """Why a PersistentVolumeClaim is not bound yet, as its provisioner says."""
    failures = _said(events, "ProvisioningFailed", "FailedBinding")[-1:]
    return [
        Trouble(
            "claim",
            "",
            claim["metadata"]["uid"],
            f"it cannot be bound: {message}",
            grace=CONFIG if _MISSING.search(message) else None,
        )
        for message in failures
    ]


def _of_pod(pod: Object, events: Sequence[Object]) -> Iterator[Trouble]:
    status, metadata = pod.get("status") or {}, pod["metadata"]
    scheduled = condition(pod, "PodScheduled")
    if status.get("phase") == "Failed" and status.get("reason"):
        message = f"it ended: {status['reason']}: {status.get('message', '')}"
        yield Trouble("ended", metadata["name"], metadata["uid"], message)
    if scheduled.get("status") == "False":
        yield _unscheduled(metadata, scheduled.get("message", ""))
    mounts = [] if _is_mounted(pod) else _said(_since(events, *_AFTER_MOUNT), "FailedMount", "FailedAttachVolume")
    if mounts and status.get("phase") == "Pending":
        missing = _MISSING.search(mounts[-1])
        sort, grace = ("config", CONFIG) if missing else ("volume", None)
        yield Trouble(sort, metadata["name"], metadata["uid"], f"a volume cannot be mounted: {mounts[-1]}", grace=grace)


def _is_mounted(pod: Object) -> bool:
    """Whether its volumes are there: no container is begun before, and what was told of them is old."""
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return True
    return any(
        dig(status, state, how) is not None
        for status, _ in _containers(pod)
        for state, how in (("state", "running"), ("state", "terminated"), ("lastState", "terminated"))
    )


def _unscheduled(metadata: Mapping[str, Any], said: str) -> Trouble:
    sort = "claim" if _CLAIM.search(said) else "schedule"
    grace = CONFIG if sort == "claim" and _MISSING.search(said) else None
    return Trouble(sort, metadata["name"], metadata["uid"], f"no node takes it: {said}", grace=grace)


def _containers(pod: Object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The status and the spec of every container that counts, init containers first."""
    for statuses, specs in (("initContainerStatuses", "initContainers"), ("containerStatuses", "containers")):
        by_name = {each["name"]: each for each in dig(pod, "spec", specs) or ()}
        for status in dig(pod, "status", statuses) or ():
            yield status, by_name.get(status["name"], {})


def _of_container(
    pod: Object,
    status: Mapping[str, Any],
    spec: Mapping[str, Any],
    events: Sequence[Object],
    *,
    may_end: bool,
) -> Iterator[Trouble]:
    def trouble(sort: str, message: str, grace: float | None = None, detail: str = "", crashes: int = 0) -> Trouble:
        metadata, image = pod["metadata"], spec.get("image") or status.get("image", "")
        return Trouble(sort, metadata["name"], metadata["uid"], message, status["name"], image, grace, detail, crashes)

    waiting = dig(status, "state", "waiting") or {}
    reason, said = waiting.get("reason", ""), str(waiting.get("message", ""))
    running = dig(status, "state", "running") is not None
    ended = dig(status, "state", "terminated") or dig(status, "lastState", "terminated")
    init = _must_end(pod, status["name"])
    if status.get("ready") or reason == "PodInitializing":
        return
    if reason in _IMAGE:
        yield trouble("image", *_pull(reason, said, events, pod))
    elif cannot := _cannot_start(reason, said, ended):
        yield trouble("config", *cannot)
    elif killed_by := _killed_by(status, events):
        yield trouble("probe", _probe(status, spec, events, killed_by))
    elif ended and (ended.get("exitCode") or not (init or may_end)):
        yield _crash(trouble, status, ended, spec, may_end=may_end)
    elif running and not init:
        yield trouble("probe", _probe(status, spec, events, ""))
    else:
        yield trouble(
            "starting", "this init container has not ended yet" if running else f"it is not started: {reason}"
        )


def _must_end(pod: Object, name: str) -> bool:
    """Whether it is an init container, and not one that runs beside the others as long as they do.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    inits = dig(pod, "spec", "initContainers") or ()
    return any(each["name"] == name and each.get("restartPolicy") != "Always" for each in inits)


def _cannot_start(reason: str, said: str, ended: Mapping[str, Any] | None) -> tuple[str, float] | None:
    """What keeps a container from being made, or its program from being begun."""
    if reason in _CANNOT_START:
        return f"it cannot be started: {said or reason}", CONFIG
    if ended and ended.get("reason") in _NOT_STARTED:
        return f"it cannot be started: {ended.get('message') or ended['reason']}", SOON
    return None


def _said(events: Sequence[Object], *reasons: str) -> list[str]:
    """What the events of these reasons say, the newest last."""
    return [_message(event) for event in events if event.get("reason") in reasons]


def _pull(reason: str, said: str, events: Sequence[Object], pod: Object) -> tuple[str, float, str]:
    if reason in ("InvalidImageName", "ErrImageNeverPull"):
        return f"its image cannot be used: {reason}: {said}", NO_GRACE, ""
    texts = [said, *reversed(_said(events, "Failed"))]
    for text in texts:
        for cause, grace, pattern in _PULL_CAUSES:
            if pattern.search(text):
                login, least = _login(pod, events) if pattern is _DENIED else ("", grace)
                return f"its image cannot be pulled: {cause}{login} ({reason})", min(grace, least), text
    telling = next((text for text in texts if text and not text.startswith(("Back-off", "Error:"))), said)
    return f"its image cannot be pulled: {reason}: {telling}", PULL, ""


def _login(pod: Object, events: Sequence[Object]) -> tuple[str, float]:
    """With what a pull was denied, and how long that may last.

    A node that has not heard of a new pull secret yet tries without it, and says so; what was denied twice with a
    login in hand, ten seconds or more apart as nodes do it, is denied for good.
    """
    names = ", ".join(each.get("name", "") for each in dig(pod, "spec", "imagePullSecrets") or ())
    if not names:
        return ", as the pod names no pull secret", SOON
    without = [event for event in events if event.get("reason") == _UNHEARD_OF]
    denials = [event for event in events if event.get("reason") == "Failed" and _DENIED.search(_message(event))]
    if without and _newest(denials) - _newest(without) <= _A_PULL:
        return f", as there is no pull secret {names}", CONFIG
    certain = _count(denials) - _count(without) >= _DENIALS
    return f" to the login in the pull secret {names}", NO_GRACE if certain else PULL


def _message(event: Object) -> str:
    return str(event.get("message"))


def _newest(events: Sequence[Object]) -> datetime:
    """When the last of them was told, by the node's clock and to the second."""
    times = (event.get("lastTimestamp") for event in events)
    return max((datetime.fromisoformat(time) for time in times if time), default=datetime.min.replace(tzinfo=UTC))


def _count(events: Sequence[Object]) -> int:
    """How often they happened: a node tells the same thing again by counting it up."""
    return sum(int(event.get("count") or 1) for event in events)


def _crash(
    trouble: Callable[..., Trouble],
    status: Mapping[str, Any],
    ended: Mapping[str, Any],
    spec: Mapping[str, Any],
    *,
    may_end: bool,
) -> Trouble:
    down = dig(status, "state", "running") is None
    crashes = int(status.get("restartCount") or 0) + (1 if down else 0)
    message = f"it {_how(ended, spec)}, {crashes} {'time' if crashes == 1 else 'times'} so far"
    grace = CRASH if down and crashes >= CRASHES and not may_end else None
    return trouble("crash", message, grace, crashes=crashes)


def _how(ended: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    code, limit = ended.get("exitCode"), dig(spec, "resources", "limits", "memory")
    too_much = "for using more memory than its limit" + (f" of {limit}" if limit else "")
    if ended.get("reason") == "OOMKilled":
        return f"was killed {too_much}"
    if code == _SIGKILLED and limit:
        return f"was killed (exit code {code}), most likely {too_much}"
    said = ended.get("message") or ""
    if code == 0:
        return "ended by itself with exit code 0, but it must keep running"
    return f"crashed with exit code {code}" + (f" ({' '.join(said.split())[:300]})" if said else "")


def _killed_by(status: Mapping[str, Any], events: Sequence[Object]) -> str:
    """The sort of the probe (liveness or startup) for which the kubelet itself ended the container, or nothing."""
    own = [said for said in _said(events, "Killing") if f"Container {status['name']} " in said]
    kills = [match[1] for match in map(_PROBE_KILL.search, reversed(own)) if match]
    return kills[0] if kills and status.get("restartCount") else ""


def _probe(status: Mapping[str, Any], spec: Mapping[str, Any], events: Sequence[Object], killed_by: str) -> str:
    unhealthy = _said(events, "Unhealthy")
    sort = killed_by or _failing(status, spec, unhealthy)
    asked = _asked(spec.get(f"{sort}Probe"))
    if not asked:
        return "it runs, but is not ready"
    answers = [said for said in unhealthy if said.lower().startswith(sort)]
    answer = f": {' '.join(answers[-1].split())}" if answers else " yet"
    how = f"it has been restarted {status['restartCount']} times, as its" if killed_by else "it runs, but its"
    return f"{how} {sort} probe ({asked}) does not pass{answer}"


def _failing(status: Mapping[str, Any], spec: Mapping[str, Any], unhealthy: Sequence[str]) -> str:
    if status.get("started") is False and "startupProbe" in spec:
        return "startup"
    last = unhealthy[-1].lower() if unhealthy else ""
    return "liveness" if last.startswith("liveness") else "readiness"


def _asked(probe: Mapping[str, Any] | None) -> str:
    """What a probe asks, in the words of who wrote it."""
    if not probe:
        return ""
    if http := probe.get("httpGet"):
        scheme = "https " if http.get("scheme") == "HTTPS" else ""
        return f"GET {scheme}{http.get('host') or ''}:{http.get('port')}{http.get('path') or '/'}"
    if tcp := probe.get("tcpSocket"):
        return f"connect to port {tcp.get('port')}"
    if grpc := probe.get("grpc"):
        return f"gRPC health on port {grpc.get('port')}"
    return f"run {' '.join(dig(probe, 'exec', 'command') or ())}"


def _not_ready(pod: Object) -> Trouble:
    """A pod that has no other trouble: it has only begun, or a readiness gate is shut."""
    metadata, ready = pod["metadata"], condition(pod, "Ready")
    begun = condition(pod, "ContainersReady").get("status") == "True"
    message = f"it is not ready: {ready.get('message') or ready.get('reason')}" if begun else "it is starting"
    return Trouble("gate" if begun else "starting", metadata["name"], metadata["uid"], message)
