"""What the cluster would say to the objects of a chart when Helm writes them, and where each of them would lie."""

from collections.abc import Sequence

from stages.clients.kubernetes.api import FIELD_MANAGER, Applied, Cluster
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.namespaces import fill_in_namespaces
from stages.clients.kubernetes.objects import Object, identity
from stages.clients.kubernetes.order import CRD
from stages.clients.kubernetes.refusals import has_no_dry_run
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError, Request

__all__ = ["AsHelm", "api_versions", "assign_release_namespace"]

_MANAGER = "helm"
_OWN_WAYS = ("immutable", "updates to statefulset spec")


class AsHelm(Cluster):
    """The same cluster, whose dry runs say what Helm is going to hear.

    What is not there yet Helm creates. What is there it changes by the difference to what it wrote before, whoever owns
    a field; no dry run of ours is that. So of a change only what no difference could avoid counts as refused.
    """

    async def apply(
        self, thing: Object, *, dry_run: bool = False, force: bool = False, manager: str = FIELD_MANAGER
    ) -> Applied:
        """What is not a dry run is written as ever."""
        if not dry_run:
            return await super().apply(thing, force=force, manager=manager)
        present = await self.get(identity(thing))
        try:
            if present is None:
                return Applied(await self.create(thing, dry_run=True))
            return await super().apply(thing, dry_run=True, force=True, manager=_MANAGER)
        except ApiError as error:
            if has_no_dry_run(error) or (present and error.status in (422, 500) and not _is_final(error)):
                return Applied(thing)
            raise


def _is_final(error: ApiError) -> bool:
    """Whether no other way to write the same would do."""
    said = [error.message, *(cause.get("message", "") for cause in error.causes)]
    return any(sign in text for sign in _OWN_WAYS for text in said)


async def assign_release_namespace(cluster: Cluster, manifests: Sequence[Manifest], namespace: str) -> None:
    """Give objects that name no namespace that of their release, in place; a chart may name others.

    Raises:
        StageFailed: (config) the cluster does not know a kind, and the chart does not define it.
    """
    definitions = [each for each in manifests if each.ref.kind == CRD]
    others = [each for each in manifests if each.ref.kind != CRD]
    await fill_in_namespaces(cluster, [*definitions, *(each for each in others if each.ref.namespace)], "")
    await fill_in_namespaces(cluster, [*definitions, *(each for each in others if not each.ref.namespace)], namespace)


async def api_versions(cluster: Cluster) -> list[str]:
    """What charts ask the cluster for by `.Capabilities.APIVersions` and no helm knows by itself: its further kinds."""
    answer = await cluster.ask(Request("GET", "/apis", "list its groups"))
    groups = [each for each in answer.get("groups") or () if not _is_built_in(each["name"])]
    versions = [version["groupVersion"] for group in groups for version in group["versions"]]

    async def kinds(version: str) -> list[str]:
        try:
            found = await cluster.ask(Request("GET", f"/apis/{version}", f"look up {version}"))
        except ApiError:  # a group whose server is away
            return [version]
        return [
            version,
            *(f"{version}/{each['kind']}" for each in found.get("resources") or () if "/" not in each["name"]),
        ]

    return [each for some in await together(kinds, versions) for each in dict.fromkeys(some)]


def _is_built_in(group: str) -> bool:
    return "." not in group or group.endswith(".k8s.io")
