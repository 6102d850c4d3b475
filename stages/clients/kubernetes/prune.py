"""Deleting what a deploy describes no more: only what is still as an earlier deploy of this stage left it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pipeline.stage import StageContext
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.apply import Checked, intent, proof
from stages.clients.kubernetes.inventory import Entry, Inventory
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.order import batches
from stages.clients.kubernetes.refusals import explain
from stages.clients.kubernetes.removal import Ensure, find, remove, whose
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["KeptKind", "Pruning", "Surplus", "find_surplus", "refused_removals"]

KeptKind: TypeAlias = Literal["Namespace", "PersistentVolume", "PersistentVolumeClaim", "CustomResourceDefinition"]
"""What goes only by an explicit word, as others' data hang on it."""
_KEPT = frozenset(get_args(KeptKind))


@dataclass(frozen=True, slots=True)
class Surplus:
    """What earlier deploys have applied and no manifest describes any more."""

    going: Mapping[Ref, Object]
    """What is to be deleted, as it is now."""
    entries: Mapping[Ref, Entry]
    stayed: tuple[Ref, ...]
    """What is ours and stays, because nobody has said that such a kind may go."""
    gone: tuple[Ref, ...]
    """What is not there, or not ours any more."""
    words: tuple[str, ...]
    """Why something stays."""

    @property
    def intends(self) -> list[str]:
        """What is going to happen, a line each."""
        return [*(f"{ref} is deleted: no manifest describes it any more" for ref in self.going), *self.words]


async def find_surplus(
    cluster: Cluster,
    entries: Iterable[Entry],
    manifests: Iterable[Manifest],
    seen: Iterable[Object],
    also: Collection[str],
) -> Surplus:
    """Look at everything that is described no more. One request for each such object.

    Args:
        cluster: where.
        entries: what earlier deploys have applied.
        manifests: what is described now.
        seen: the same as their dry run found it: an object may have got another API group and be the same one.
        also: the kinds of `KeptKind` that may go.
    """
    described = {_key(manifest.ref) for manifest in manifests}
    same = {dig(thing, "metadata", "uid") for thing in seen}
    surplus = [entry for entry in entries if _key(entry.ref) not in described]
    going: dict[Ref, Object] = {}
    stayed, gone, words = [], [], []
    for entry, present in zip(surplus, await together(lambda each: find(cluster, each), surplus), strict=True):
        ref = entry.ref
        if present is None or present["metadata"].get("deletionTimestamp") or present["metadata"]["uid"] in same:
            gone.append(ref)
        elif why := whose(entry, present):
            gone.append(ref)
            words.append(f"{ref} stays: {why}")
        elif ref.kind in _KEPT and ref.kind not in also:
            stayed.append(ref)
            words.append(f"{ref} stays: it is deleted only by `prune: {{also: [{ref.kind}]}}`")
        else:
            going[ref] = present
    return Surplus(going, {entry.ref: entry for entry in surplus}, tuple(stayed), tuple(gone), tuple(words))


@dataclass(frozen=True, slots=True)
class Pruning:
    """What one deploy prunes: found before it writes anything, deleted when all that it applied is done."""

    ctx: StageContext
    cluster: Cluster
    inventory: Inventory
    surplus: Surplus

    @staticmethod
    async def prepare(
        ctx: StageContext, cluster: Cluster, inventory: Inventory, checked: Checked, also: Collection[str]
    ) -> "Pruning":
        """Find what is described no more, and see that it may be deleted.

        Raises:
            StageFailed: (config) with a table of what the cluster refuses to delete.
        """
        entries = await inventory.entries()
        surplus = await find_surplus(cluster, entries, checked.manifests, checked.seen.values(), also)
        if refused := await refused_removals(cluster, surplus):
            raise explain(refused)
        for line in surplus.words:
            ctx.log(line)
        return Pruning(ctx, cluster, inventory, surplus)

    async def begin(self, manifests: Iterable[Manifest]) -> None:
        """Note what is about to be applied."""
        await self.inventory.begin(self.ctx, [manifest.object for manifest in manifests])

    async def end(self, applied: Iterable[Object], ensure: Ensure | None) -> None:
        """Delete what is described no more, and note what is there now; each only if it still is as it was left.

        Raises:
            StageFailed: (config) with a table of what the cluster refuses; the rest is deleted.
        """
        removed = await _remove_all(self.ctx, self.cluster, self.surplus, ensure)
        await self.inventory.end(self.ctx, applied, (*self.surplus.gone, *removed))


async def refused_removals(cluster: Cluster, surplus: Surplus) -> list[tuple[Manifest, ApiError]]:
    """What the cluster refuses to delete, by a dry run."""
    return [each for each in await together(lambda ref: _try(cluster, ref, surplus), surplus.going) if each]


async def _remove_all(ctx: StageContext, cluster: Cluster, surplus: Surplus, ensure: Ensure | None) -> list[Ref]:
    """Delete it, each object only if it still is as an earlier deploy left it, workloads before their configuration.

    Raises:
        StageFailed: (config) with a table of what the cluster refuses; the rest is deleted.
    """
    if not surplus.going:
        return []
    outcomes: dict[Ref, str] = {}
    refused: list[tuple[Manifest, ApiError]] = []
    named = {identity(thing): ref for ref, thing in surplus.going.items()}

    async def one(manifest: Manifest) -> None:
        ref = named[manifest.ref]
        try:
            outcomes[ref] = await remove(cluster, surplus.entries[ref], ensure)
        except ApiError as error:
            refused.append((manifest, error))

    async with ctx.effect("delete what is described no more", intent(cluster, list(surplus.going))) as effect:
        for _, batch in reversed(batches([_as_manifest(thing) for thing in surplus.going.values()])):
            await together(one, batch)
        removed = [ref for ref, why in outcomes.items() if not why]
        effect.proof(proof([surplus.going[ref] for ref in removed]))
    for ref, why in outcomes.items():
        ctx.log(f"{ref} stays: {why}" if why else f"{ref} is deleted: no manifest describes it any more")
    if refused:
        raise explain(refused)
    return removed


def _key(ref: Ref) -> tuple[str, str, str, str]:
    return ref.group, ref.kind, ref.namespace, ref.name


def _as_manifest(thing: Object) -> Manifest:
    """What refusals call it."""
    return Manifest(thing, "described no more", 0)


async def _try(cluster: Cluster, ref: Ref, surplus: Surplus) -> tuple[Manifest, ApiError] | None:
    present = surplus.going[ref]
    try:
        await cluster.delete(identity(present), present["metadata"]["uid"], dry_run=True)
    except ApiError as error:
        return _as_manifest(present), error
    return None
