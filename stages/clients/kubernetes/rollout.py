"""When an object is done: judgement as pure functions of what the cluster says about it.

The rules are kubectl's (`polymorphichelpers/rollout_status.go`) with their gaps closed, and kstatus'
conventions (sigs.k8s.io/cli-utils) for kinds that nobody knows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stages.clients.kubernetes.objects import Object, dig

__all__ = ["ENDS", "LATER", "Verdict", "condition", "end_told", "is_generic", "is_open", "judge", "pods_when_done"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of an object now. `failed` is for ever: waiting longer would not help."""

    state: Literal["done", "waiting", "failed"]
    message: str


_UNOBSERVED = "the cluster has not looked at the change yet"
_Judge: TypeAlias = Callable[[Object, Object, Sequence[Object]], Verdict]


def judge(now: Object, then: Object, events: Sequence[Object] = ()) -> Verdict:
    """Judge an object that was applied.

    Args:
        now: the object as the cluster has it.
        then: the same right after the apply, to tell old troubles from new ones.
        events: events about the object itself; only a PersistentVolumeClaim's matter.
    """
    kind = now["kind"]
    if now["metadata"].get("deletionTimestamp") and not _has_ended(now):
        return Verdict("failed", f"this {kind} is being deleted")
    if not _observed(now):
        return Verdict("waiting", _UNOBSERVED)
    return _JUDGES.get((_group(now), kind), _generic)(now, then, events)


def is_generic(thing: Object) -> bool:
    """Whether nothing is known about the kind; such an object must never hold up a deploy for long."""
    return (_group(thing), thing["kind"]) not in _JUDGES


def is_open(thing: Object) -> bool:
    """Whether a controller that nobody knows may still have a word to say on the present generation.

    Of kinds that are built in most have no controller that would, so only what has conditions is asked.
    """
    if not is_generic(thing) or not isinstance(generation := thing["metadata"].get("generation"), int):
        return False
    conditions = list(_conditions(thing))
    own = dig(thing, "status", "observedGeneration")
    numbers = [own, *(each.get("observedGeneration") for each in conditions)]
    told = any(isinstance(number, int) and number >= generation for number in numbers)
    return not told and (_is_custom(thing) or bool(conditions))


def end_told(events: Sequence[Object]) -> Verdict | None:
    """How a Job ended by the events about it, which outlive it; None if they do not say."""
    for event in reversed(events):
        if event.get("reason") == _COMPLETED:
            return Verdict("done", "it has completed")
        if event.get("reason") in ENDS:
            return Verdict("failed", f"it has failed: {event['reason']}: {event.get('message', '')}")
    return None


def pods_when_done(now: Object) -> int:
    """How many ready pods of the new revision an object has at least, when it is done by its own words."""
    kind, strategy = now["kind"], now["spec"].get("updateStrategy") or {}
    if kind in ("Deployment", "ReplicaSet", "ReplicationController"):
        return _replicas(now)
    if strategy.get("type") == "OnDelete":
        return 0
    if kind == "StatefulSet":
        return max(0, _replicas(now) - _partition(now))
    return _count(now, "desiredNumberScheduled") if kind == "DaemonSet" else 0


def condition(thing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A condition of the object's status, empty if it has none of that type."""
    return next((each for each in _conditions(thing) if each.get("type") == name), {})


def _conditions(thing: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (each for each in dig(thing, "status", "conditions") or () if isinstance(each, Mapping))


def _is_custom(thing: Object) -> bool:
    """Groups of custom resources have a dot, as those of Kubernetes have that end so; the oldest have none."""
    group = _group(thing)
    return "." in group and not group.endswith(".k8s.io")


def _group(thing: Object) -> str:
    return str(thing["apiVersion"]).rpartition("/")[0]


def _observed(thing: Object) -> bool:
    """Whether the controller has seen this generation. Kinds without the number, or with a text there, have."""
    seen = dig(thing, "status", "observedGeneration")
    generation = thing["metadata"].get("generation")
    if seen is None and (_group(thing), thing["kind"]) in _COUNTED:
        return False
    return not isinstance(seen, int) or not isinstance(generation, int) or seen >= generation


def _count(thing: Object, name: str) -> int:
    return int(dig(thing, "status", name) or 0)


def _replicas(thing: Object) -> int:
    replicas = thing["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _deployment(now: Object, then: Object, _: Sequence[Object]) -> Verdict:
    wanted, updated = _replicas(now), _count(now, "updatedReplicas")
    total, available = _count(now, "replicas"), _count(now, "availableReplicas")
    if updated >= wanted and total <= updated and available >= updated:
        return Verdict("done", f"{available} of {wanted} pods available")
    if now["spec"].get("paused"):
        return Verdict("failed", "it is paused (spec.paused), so its rollout does not go on until somebody resumes it")
    if _deadline_exceeded(now, then):
        return Verdict("failed", f"no progress for {now['spec'].get('progressDeadlineSeconds', 600)} s")
    if updated < wanted:
        return Verdict("waiting", f"{updated} of {wanted} new pods made")
    if total > updated:
        return Verdict("waiting", f"{total - updated} old pods are still there")
    return Verdict("waiting", f"{available} of {wanted} pods available")


def _deadline_exceeded(now: Object, then: Object) -> bool:
    """Whether *this* rollout made no progress: the mark may be left from a failed one before."""
    found = condition(now, "Progressing")
    if found.get("reason") != "ProgressDeadlineExceeded":
        return False
    return found.get("lastUpdateTime") != condition(then, "Progressing").get("lastUpdateTime")


def _stateful_set(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    wanted, strategy = _replicas(now), now["spec"].get("updateStrategy") or {}
    updated, ready = _count(now, "updatedReplicas"), _count(now, "readyReplicas")
    if strategy.get("type") == "OnDelete":
        return Verdict("done", "its pods change when somebody deletes them (updateStrategy OnDelete)")
    kept = _partition(now)
    if updated < wanted - kept:
        return Verdict("waiting", f"{updated} of {wanted - kept} pods have the new revision")
    if _count(now, "replicas") > wanted:
        return Verdict("waiting", f"{_count(now, 'replicas') - wanted} pods too many are still there")
    if min(ready, _available(now, ready)) < wanted:
        return Verdict("waiting", f"{min(ready, _available(now, ready))} of {wanted} pods available")
    kept_old = f", {min(kept, wanted)} kept old by its partition" if kept else ""
    return Verdict("done", f"{ready} of {wanted} pods available{kept_old}")


def _partition(thing: Object) -> int:
    return int(dig(thing, "spec", "updateStrategy", "rollingUpdate", "partition") or 0)


def _available(thing: Object, ready: int) -> int:
    return _count(thing, "availableReplicas") if thing["spec"].get("minReadySeconds") else ready


def _daemon_set(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    wanted = _count(now, "desiredNumberScheduled")
    updated, available = _count(now, "updatedNumberScheduled"), _count(now, "numberAvailable")
    if dig(now, "spec", "updateStrategy", "type") == "OnDelete":
        return Verdict("done", "its pods change when somebody deletes them (updateStrategy OnDelete)")
    if updated < wanted:
        return Verdict("waiting", f"{updated} of {wanted} nodes have the new pod")
    if available < wanted:
        return Verdict("waiting", f"{available} of {wanted} pods available")
    return Verdict("done", f"{available} of {wanted} pods available" if wanted else "no node is meant for its pods")


def _replica_set(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    wanted, available, total = _replicas(now), _count(now, "availableReplicas"), _count(now, "replicas")
    done = available >= wanted and total <= wanted
    return Verdict("done" if done else "waiting", f"{available} of {wanted} pods available")


_COMPLETED = "Completed"
ENDS = frozenset(
    {
        _COMPLETED,
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "PodFailurePolicy",
    }
)
"""Reasons of events that say how a Job ended."""


def _has_ended(thing: Object) -> bool:
    """Whether it is a Job that is through, be it well or not: it may delete itself then (ttlSecondsAfterFinished)."""
    ends = (condition(thing, name).get("status") for name in ("Complete", "Failed"))
    return (_group(thing), thing["kind"]) == ("batch", "Job") and "True" in ends


def _job(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    failed = condition(now, "Failed")
    if condition(now, "Complete").get("status") == "True":
        return Verdict("done", "it has completed")
    if failed.get("status") == "True":
        return Verdict("failed", f"it has failed: {failed.get('reason', '')}: {failed.get('message', '')}")
    if now["spec"].get("suspend"):
        return Verdict("waiting", "it is suspended (spec.suspend) until somebody resumes it")
    wanted = now["spec"].get("completions") or 1
    return Verdict("waiting", f"{_count(now, 'succeeded')} of {wanted} pods have succeeded")


def _pod(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    phase = dig(now, "status", "phase") or "Pending"
    if phase == "Failed":
        return Verdict("failed", f"it has failed: {dig(now, 'status', 'reason') or 'its containers ended'}")
    if phase == "Succeeded" or condition(now, "Ready").get("status") == "True":
        return Verdict("done", f"it is {'ready' if phase == 'Running' else 'through'}")
    return Verdict("waiting", f"it is {phase} and not ready")


LATER = frozenset({"WaitForFirstConsumer", "WaitForPodScheduled"})
"""Reasons of events that say that a claim waits for its first pod (volumeBindingMode: WaitForFirstConsumer)."""


def _claim(now: Object, _: Object, events: Sequence[Object]) -> Verdict:
    phase = dig(now, "status", "phase") or "Pending"
    if phase == "Bound":
        return Verdict("done", "it is bound")
    if phase == "Lost":
        return Verdict("failed", "its volume is lost")
    if any(event.get("reason") in LATER for event in events):
        return Verdict("done", "it is bound when a pod uses it")
    last = events[-1].get("message") if events else None
    return Verdict("waiting", f"it is not bound yet: {last}" if last else "it is not bound yet")


def _definition(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    names = condition(now, "NamesAccepted")
    if names.get("status") == "False":
        return Verdict("failed", f"its names are not accepted: {names.get('message', '')}")
    if condition(now, "Established").get("status") == "True":
        return Verdict("done", "it is established")
    return Verdict("waiting", "it is not established yet")


def _namespace(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    terminating = dig(now, "status", "phase") == "Terminating"
    return Verdict("failed", "it is being deleted") if terminating else Verdict("done", "it is there")


def _applied(_: Object, __: Object, ___: Sequence[Object]) -> Verdict:
    return Verdict("done", "it is applied")


def _generic(now: Object, _: Object, __: Sequence[Object]) -> Verdict:
    """Stalled, Reconciling and Ready of https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md."""
    stalled, reconciling, ready = (condition(now, name) for name in ("Stalled", "Reconciling", "Ready"))
    if stalled.get("status") == "True" and not _is_of_before(stalled, now):
        return Verdict("failed", f"it is stalled: {_reason(stalled)}")
    if ready and _is_of_before(ready, now):
        return Verdict("waiting", _UNOBSERVED)
    if reconciling.get("status") == "True" and not _is_of_before(reconciling, now):
        return Verdict("waiting", f"it is being reconciled: {_reason(reconciling)}")
    if ready and ready.get("status") != "True":
        return Verdict("waiting", f"it is not ready: {_reason(ready)}")
    return Verdict("done", "it is applied")


def _is_of_before(found: Mapping[str, Any], now: Object) -> bool:
    """Whether a condition was told of an earlier generation, by its own number."""
    seen, generation = found.get("observedGeneration"), now["metadata"].get("generation")
    return isinstance(seen, int) and isinstance(generation, int) and seen < generation


def _reason(found: Mapping[str, Any]) -> str:
    return f"{found.get('reason', '')}: {found.get('message', '')}"


_JUDGES: dict[tuple[str, str], _Judge] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("", "ReplicationController"): _replica_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _applied,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Namespace"): _namespace,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    **{("", kind): _applied for kind in ("Service", "ConfigMap", "Secret", "ServiceAccount", "PersistentVolume")},
}
# Their controllers always write observedGeneration, so its absence means that they have not looked yet.
_COUNTED = {(group, kind) for group, kind in _JUDGES if group == "apps"} | {("", "ReplicationController")}
