"""The namespaces of a deploy: which object lies in which, and those that are missing are made."""

from collections.abc import Sequence

from pipeline.stage import CauseKind, StageContext, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.applier import Applier
from stages.clients.kubernetes.apply import check, write
from stages.clients.kubernetes.manifests import Manifest, written_twice
from stages.clients.kubernetes.objects import MANAGED_BY, RUN, Object, Ref, dig
from stages.clients.kubernetes.order import CRD
from stages.clients.kubernetes.transport import ApiError

__all__ = [
    "assign_namespaces",
    "described_namespace",
    "fill_in_namespaces",
    "has_namespace",
    "make_namespace",
    "make_namespaces",
]


async def assign_namespaces(cluster: Cluster, manifests: Sequence[Manifest], namespace: str) -> None:
    """Give every namespaced object that names none the namespace of the stage, in place.

    Raises:
        StageFailed: (config) an object names another one, or none is known for it, or its kind is unknown, or with
            its namespace it turns out to be the same as another.
    """
    await fill_in_namespaces(cluster, manifests, namespace)
    _refuse(list(written_twice(manifests)))


async def fill_in_namespaces(cluster: Cluster, manifests: Sequence[Manifest], namespace: str) -> None:
    """The same for the objects of a chart: one may stand there twice, and Helm upgrades it nonetheless."""
    problems = [await _assign(cluster, manifest, manifests, namespace) for manifest in manifests]
    _refuse([problem for problem in problems if problem])


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StageFailed(problems[0] + more, kind=CauseKind.CONFIG, evidence=problems)


async def _assign(cluster: Cluster, manifest: Manifest, manifests: Sequence[Manifest], namespace: str) -> str | None:
    ref = manifest.ref
    resource = await cluster.resource(ref.api_version, ref.kind)
    namespaced = resource.namespaced if resource else _scope(ref, manifests)
    if namespaced is None:
        return f"{manifest.place}: the cluster knows no {ref.kind} of {ref.api_version}; is its definition installed?"
    if not namespaced:
        manifest.object["metadata"].pop("namespace", None)
        return None
    if ref.namespace and namespace and ref.namespace != namespace:
        return (
            f"{manifest.place}: {ref.kind} {ref.name} names the namespace '{ref.namespace}', the stage '{namespace}':"
            " leave one of them out, or make them equal"
        )
    if not ref.namespace and not namespace:
        return f"{manifest.place}: {ref.kind} {ref.name} names no namespace: add one, or `namespace:` to the stage"
    manifest.object["metadata"]["namespace"] = ref.namespace or namespace
    return None


def _scope(ref: Ref, manifests: Sequence[Manifest]) -> bool | None:
    """Whether a kind that the cluster does not know yet is namespaced, by its definition among the manifests."""
    for manifest in manifests:
        spec = dig(manifest.object, "spec")
        if manifest.ref.kind == CRD and (dig(spec, "group"), dig(spec, "names", "kind")) == (ref.group, ref.kind):
            return bool(dig(spec, "scope") == "Namespaced")
    return None


async def make_namespaces(ctx: StageContext, cluster: Cluster, manifests: Sequence[Manifest]) -> None:
    """Make the namespaces that are missing: the one write before the dry run, which would fail without them.

    Raises:
        StageFailed: (config) we may not, or one is just being deleted.
    """
    for name in sorted({each.ref.namespace for each in manifests} - {""}):
        await make_namespace(ctx, cluster, name, described_namespace(name, manifests, ctx.run.id))


async def make_namespace(ctx: StageContext, cluster: Cluster, name: str, described: Manifest | None = None) -> None:
    """Make one namespace if it is missing; raises as `make_namespaces`."""
    if await has_namespace(cluster, name):
        return
    manifest = described or Manifest(_namespace(name, ctx.run.id), "made by pipe", 0)
    applier = Applier(cluster)
    await check(applier, [manifest])
    ctx.log(f"making the namespace {name}")
    await write(ctx, applier, f"namespace {name}", [manifest])


def described_namespace(name: str, manifests: Sequence[Manifest], run: str) -> Manifest:
    """A namespace as one of the manifests describes it, else as we make it."""
    described = (each for each in manifests if each.ref.kind == "Namespace" and each.ref.name == name)
    return next(described, None) or Manifest(_namespace(name, run), "made by pipe", 0)


async def has_namespace(cluster: Cluster, name: str) -> bool:
    """Whether a namespace is there; StageFailed (config) if it is just being deleted."""
    try:
        found = await cluster.get(Ref("v1", "Namespace", "", name))
    except ApiError as error:
        if error.status == 403:
            # Accounts of one namespace may not look at it; the dry run tells if it is missing.
            return True
        raise
    if found is not None and dig(found, "status", "phase") == "Terminating":
        raise StageFailed(f"the namespace {name} is being deleted: wait until it is gone", kind=CauseKind.CONFIG)
    return found is not None


def _namespace(name: str, run: str) -> Object:
    metadata = {"name": name, "labels": dict(MANAGED_BY), "annotations": {RUN: run}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
