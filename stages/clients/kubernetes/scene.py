"""Everything that is known of one object at one moment: its verdict, its new pods and their troubles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from stages.clients.kubernetes.diagnosis import Trouble, claim_troubles, create_troubles, is_ready, pod_troubles
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.pods import all_pods, new_pods, new_replica_set, new_revision
from stages.clients.kubernetes.rollout import Verdict, judge, pods_when_done
from stages.clients.kubernetes.steady import Sightings, unsteady

__all__ = ["WITH_PODS", "Around", "Scene", "look"]

_LASTING = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod"})
_ENDED = ("Failed", "Succeeded")
"""Phases of pods that nobody counts any more: one that was evicted stays, and another is made."""
WITH_PODS = _LASTING | {"Job"}
_COMES_OF_IT = {"crash", "registry"}


@dataclass(frozen=True, slots=True)
class Around:
    """What is known at one moment of what is around objects."""

    revisions: Sequence[Object]
    """The ReplicaSets and ControllerRevisions of the namespace, or more."""
    pods: Sequence[Object] | None
    """Those of the namespace, or more; None if we may not see them."""
    events: Mapping[str, Sequence[Object]]
    """By the uid of the object they are about, the newest last."""
    clock: datetime
    """The time now, by the cluster's clock."""
    sightings: Sightings
    """What was seen running in earlier looks; each look adds to it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One object now."""

    thing: Object
    verdict: Verdict
    pods: tuple[Object, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    waits: str = ""
    """What is waited for beside its own pods, told in place of a trouble that comes of it."""
    seen: bool = True
    """Whether it is what the cluster has now, and not what is left of an earlier answer."""

    @property
    def ref(self) -> Ref:
        """Which object."""
        return identity(self.thing)

    @property
    def summary(self) -> str:
        """`2 of 3 pods ready; pod web-1: it runs, but …`."""
        wanted = dig(self.thing, "spec", "replicas")
        words = self.verdict.message
        if self.pods and wanted and self.verdict.state == "waiting":
            ready = sum(map(is_ready, self.pods))
            words = f"{ready} of {wanted} pods ready" if ready < wanted else words
        if not self.troubles:
            return words
        first = self.troubles[0]
        return f"{words}; {self.waits if self.waits and first.sort in _COMES_OF_IT else first.brief}"


def look(now: Object, then: Object, around: Around) -> Scene:
    """Judge an object and, while it is not done, find what is wrong with the pods of its new revision.

    Args:
        now: the object as the cluster has it.
        then: the same right after the apply.
        around: what else is known.
    """
    uid, events, revisions, pods = now["metadata"]["uid"], around.events, around.revisions, around.pods
    verdict = judge(now, then, events.get(uid, ()))
    if now["kind"] == "PersistentVolumeClaim" and verdict.state == "waiting":
        return Scene(now, verdict, (), tuple(claim_troubles(now, events.get(uid, ()))))
    if now["kind"] not in WITH_PODS:
        return Scene(now, verdict)
    new = new_pods(now, revisions, pods or [])
    staying = [pod for pod in new if dig(pod, "status", "phase") not in _ENDED]
    unsure = unsteady(staying, around.clock, around.sightings)  # in every look, so that time counts from the first
    if verdict.state == "done":
        doubt = _doubt(now, revisions, staying, unsure) if pods is not None else None
        return Scene(now, replace(verdict, state="waiting", message=doubt) if doubt else verdict)
    owner = (new_replica_set(now, revisions) if now["kind"] == "Deployment" else now) or now
    leaving = any(pod["metadata"].get("deletionTimestamp") for pod in all_pods(now, revisions, pods or []))
    troubles = create_troubles(owner, events.get(owner["metadata"]["uid"], ()), making_room=leaving)
    for pod in new:
        may_end = now["kind"] == "Job"
        troubles += pod_troubles(pod, events.get(pod["metadata"]["uid"], ()), may_end=may_end)
    return Scene(now, verdict, tuple(new), tuple(sorted(troubles, key=lambda trouble: trouble.rank)))


def _doubt(now: Object, revisions: Sequence[Object], new: Sequence[Object], unsure: str | None) -> str | None:
    """Why an object that is done by its own words may not be so: what we know of its pods may be older than it is."""
    if now["kind"] not in _LASTING:
        return None
    # Without its revision, which not everybody may see, a DaemonSet's pods of before cannot be told from new ones.
    countable = now["kind"] != "DaemonSet" or new_revision(now, revisions)
    wanted, ready = pods_when_done(now) if countable else 0, sum(map(is_ready, new))
    return f"{ready} of its {wanted} new pods have been seen ready" if ready < wanted else unsure
