"""What a deploy must be allowed to do, and whether it is: asked of the cluster itself, which changes nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.stage import PreflightContext
from stages.clients.kubernetes.api import Cluster, Resource
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import Request

__all__ = ["Right", "denied", "for_reasons", "to_apply", "to_keep_records", "to_keep_secrets"]

_REVIEW = "authorization.k8s.io/v1"
_WATCHED = {"Deployment", "StatefulSet", "DaemonSet", "Job", "Pod", "PersistentVolumeClaim"}


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a resource; no namespace means all of the cluster."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        what = f"{name}/{self.subresource}" if self.subresource else name
        return f"{self.verb} {what}" + (f" in the namespace {self.namespace}" if self.namespace else " in the cluster")


def to_apply(objects: Mapping[Ref, tuple[Resource, Object | None]]) -> Iterator[Right]:
    """What applying these objects and waiting for them needs; an object that is not there has to be made too."""
    for ref, (resource, present) in objects.items():
        namespace = ref.namespace if resource.namespaced else ""
        verbs = ["patch", *(["create"] if present is None else [])]
        verbs += ["list", "watch"] if ref.kind in _WATCHED else []
        yield from (Right(verb, ref.group, resource.plural, namespace) for verb in verbs)


def for_reasons(namespaces: Iterable[str]) -> Iterator[Right]:
    """What only the reasons of a failure need: without it a deploy works, and tells less."""
    for namespace in namespaces:
        yield from (Right(verb, "", "pods", namespace) for verb in ("list", "watch"))
        yield from (Right(verb, "apps", "replicasets", namespace) for verb in ("list", "watch"))
        yield from (Right(verb, "", "events", namespace) for verb in ("list", "watch"))
        yield Right("get", "", "pods", namespace, "log")


def to_keep_secrets(namespaces: Iterable[str]) -> Iterator[Right]:
    """What keeping pull secrets needs."""
    for namespace in namespaces:
        yield from (Right(verb, "", "secrets", namespace) for verb in ("get", "create", "update"))


def to_keep_records(namespace: str) -> Iterator[Right]:
    """What Helm needs to keep its releases there, and we to note how they ended."""
    yield from (
        Right(verb, "", "secrets", namespace) for verb in ("get", "list", "create", "update", "patch", "delete")
    )


async def denied(ctx: PreflightContext, cluster: Cluster, account: str, rights: Iterable[Right]) -> dict[Right, str]:
    """Those that we have not, each with the reason that the cluster gives. Each is asked once for all stages.

    https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
    """

    async def one(right: Right) -> tuple[bool, str]:
        async def ask() -> tuple[bool, str]:
            return await _review(cluster, right)

        return await ctx.shared(f"right {cluster.server} {account} {right}", ask)

    asked = list(dict.fromkeys(rights))
    answers = await together(one, asked)
    return {right: reason for right, (allowed, reason) in zip(asked, answers, strict=True) if not allowed}


async def _review(cluster: Cluster, right: Right) -> tuple[bool, str]:
    wanted = {
        "namespace": right.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
    }
    body = {
        "apiVersion": _REVIEW,
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in wanted.items() if value}},
    }
    path = f"/apis/{_REVIEW}/selfsubjectaccessreviews"
    status = (await cluster.ask(Request("POST", path, "ask for our rights", body=body))).get("status") or {}
    return bool(status.get("allowed")), str(status.get("reason") or "")
