"""Which pods belong to the revision that is being rolled out; old broken ones must not fail a good deploy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.clients.kubernetes.objects import Object, dig, references

__all__ = ["Family", "all_pods", "new_pods", "new_replica_set", "new_revision", "selector"]

_HASH = "pod-template-hash"
_REVISION = "controller-revision-hash"
_GENERATION = "pod-template-generation"
_DAEMON_GENERATION = "deprecated.daemonset.template.generation"


def new_pods(workload: Object, revisions: Sequence[Object], pods: Sequence[Object]) -> list[Object]:
    """The pods that run the workload's present template and are not being deleted.

    `revisions` are the ReplicaSets of a Deployment, the ControllerRevisions of a DaemonSet, and maybe others.
    """
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    match workload["kind"]:
        case "Deployment":
            owner = new_replica_set(workload, revisions)
            return _owned(owner, alive) if owner else []
        case "StatefulSet":
            revision = dig(workload, "status", "updateRevision")
            return [pod for pod in _owned(workload, alive) if _label(pod, _REVISION) == revision]
        case "DaemonSet":
            return [pod for pod in _owned(workload, alive) if _is_of(workload, new_revision(workload, revisions), pod)]
        case "Pod":
            return [workload]
        case _:
            return _owned(workload, alive)


def all_pods(workload: Object, replica_sets: Sequence[Object], pods: Sequence[Object]) -> list[Object]:
    """The pods of a workload, of whichever revision."""
    if workload["kind"] == "Pod":
        return [workload]
    return _owned_by_any([workload, *_owned(workload, replica_sets)], pods)


def new_replica_set(deployment: Object, replica_sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet with the Deployment's present pod template, by the rule of its controller.

    That is `FindNewReplicaSet` of k8s.io/kubernetes/pkg/controller/deployment/util: equal templates but for
    the hash label, the oldest if there are several.
    """
    template = _template(deployment)
    same = [each for each in _owned(deployment, replica_sets) if _template(each) == template]
    return min(same, key=lambda each: str(each["metadata"].get("creationTimestamp")), default=None)


def new_revision(workload: Object, revisions: Sequence[Object]) -> Object | None:
    """The ControllerRevision of a DaemonSet's present template: one that comes back is numbered anew."""
    return max(_owned(workload, revisions), key=lambda each: int(each.get("revision") or 0), default=None)


def _is_of(daemons: Object, revision: Object | None, pod: Object) -> bool:
    """The rule of its controller, `IsPodUpdated` of k8s.io/kubernetes/pkg/controller/daemon/util.

    A pod of a template that was changed and changed back has an old generation and the right hash.
    """
    if _label(pod, _GENERATION) == dig(daemons, "metadata", "annotations", _DAEMON_GENERATION):
        return True
    return revision is not None and _label(pod, _REVISION) == _label(revision, _REVISION)


def selector(workload: Object) -> str:
    """A workload's selector as a query parameter; of a ReplicationController's plain map, too."""
    spec = dig(workload, "spec", "selector") or {}
    labels = spec.get("matchLabels") or ({} if "matchExpressions" in spec else spec)
    expressions = [_expression(each) for each in spec.get("matchExpressions") or ()]
    return ",".join([*(f"{key}={value}" for key, value in labels.items()), *expressions])


def _expression(each: Mapping[str, Any]) -> str:
    key, values = each["key"], ",".join(each.get("values") or ())
    forms = {"Exists": key, "DoesNotExist": f"!{key}", "In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})"}
    return str(forms[each["operator"]])


class Family:
    """Some workloads and what belongs to them, by uids."""

    def __init__(self, uids: Iterable[str]) -> None:
        self._uids = set(uids)

    def includes(self, thing: Object) -> bool:
        """Whether it is one of them or has an owner among them."""
        return thing["metadata"]["uid"] in self._uids or not self._uids.isdisjoint(references(thing))

    def learn(self, things: Iterable[Object]) -> None:
        """Take in those that have an owner among them: what these own belongs to the family, too."""
        self._uids.update([each["metadata"]["uid"] for each in things if self.includes(each)])


def _owned(owner: Object, things: Sequence[Object]) -> list[Object]:
    return _owned_by_any([owner], things)


def _owned_by_any(owners: Sequence[Object], things: Sequence[Object]) -> list[Object]:
    uids = {owner["metadata"]["uid"] for owner in owners}
    return [each for each in things if not uids.isdisjoint(references(each))]


def _label(thing: Object, name: str) -> object:
    return dig(thing, "metadata", "labels", name)


def _template(thing: Object) -> Mapping[str, Any]:
    template = thing["spec"].get("template") or {}
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != _HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}
