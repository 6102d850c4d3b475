"""Replicas that an autoscaler sets: a manifest that says them too would undo its work with every deploy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Scaling", "leave_replicas"]

_HPA = "HorizontalPodAutoscaler"
_SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")


@dataclass(frozen=True, slots=True)
class Scaling:
    """What autoscalers mean for a deploy."""

    manifests: list[Manifest]
    """As given, but without the replicas that an autoscaler sets."""
    scaled: frozenset[Ref] = frozenset()
    """The workloads that have one, whether their manifest says replicas or not."""
    notes: Sequence[str] = ()


async def leave_replicas(cluster: Cluster, manifests: Sequence[Manifest]) -> Scaling:
    """Find the autoscalers of these workloads, among the manifests and in the cluster, and leave replicas to them.

    The objects' namespaces are assigned already. One request for each namespace with workloads; where we may not list
    autoscalers only those of the manifests are known.
    """
    workloads = [each.ref for each in manifests if each.ref.kind in _SCALED or "replicas" in _spec(each.object)]
    if not workloads:
        return Scaling(list(manifests))
    known = [each.object for each in manifests if each.ref.kind == _HPA]
    for found in await together(lambda name: _listed(cluster, name), sorted({ref.namespace for ref in workloads})):
        known += found
    by_target = {target: identity(hpa) for hpa in known if (target := _target(hpa))}
    scaled = {ref: by_target[_key(ref)] for ref in workloads if _key(ref) in by_target}
    notes = [
        f"{each.ref}: its replicas are left to {scaled[each.ref]}"
        for each in manifests
        if each.ref in scaled and "replicas" in _spec(each.object)
    ]
    return Scaling([_left(each) if each.ref in scaled else each for each in manifests], frozenset(scaled), notes)


async def _listed(cluster: Cluster, namespace: str) -> Iterable[Object]:
    if await cluster.resource("autoscaling/v2", _HPA) is None:
        return ()
    try:
        found, _ = await cluster.items(Collection("autoscaling/v2", _HPA, namespace))
    except ApiError as error:
        if error.status in (401, 403):
            return ()
        raise
    return found


def _target(hpa: Object) -> tuple[str, str, str, str] | None:
    target = dig(hpa, "spec", "scaleTargetRef")
    kind, name = dig(target, "kind"), dig(target, "name")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    namespace = hpa["metadata"].get("namespace") or ""
    return _key(Ref(str(target.get("apiVersion") or "v1"), kind, namespace, name))


def _key(ref: Ref) -> tuple[str, str, str, str]:
    return ref.group, ref.kind, ref.namespace, ref.name


def _spec(thing: Object) -> Object:
    spec = thing.get("spec")
    return spec if isinstance(spec, dict) else {}


def _left(manifest: Manifest) -> Manifest:
    spec = {name: value for name, value in _spec(manifest.object).items() if name != "replicas"}
    return replace(manifest, object={**manifest.object, "spec": spec})
