"""Applying one object: over what was seen, and on the deploy's terms where a field has another owner.

What `kubectl apply` made is taken over without a conflict the first time; replicas are left to an autoscaler.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import anyio

from stages.clients.kubernetes.api import FIELD_MANAGER, Applied, Cluster
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.ownership import (
    Claim,
    adopted,
    claims,
    is_applied_by,
    kubectl_appliers,
    owners,
    without,
)
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Applier", "OnConflict", "Tried"]

OnConflict: TypeAlias = Literal["fail", "force", "ignore"]

_HANDOVER = "pipe-handover"
"""Owns the replicas of a workload from when its deploy gives them up until its autoscaler first changes them."""
_REPLICAS = ("spec", "replicas")
_TRIES = 3
_GUARDED_TRIES = 8
"""A guarded write also loses against controllers that only change a status."""
_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
"""Seconds between tries, doubled each time: 2.3 in all at most, as a cancel waits for them."""
_ROUNDS = 5
_NAMED = ("name", "namespace", "uid", "resourceVersion")


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of applying an object."""

    manifest: Manifest
    """As it was sent in the end: without the fields that are left to their owners."""
    answer: Applied | ApiError
    forced: tuple[Claim, ...] = ()
    left: tuple[Claim, ...] = ()

    @property
    def words_left(self) -> list[str]:
        """A line for each field that is left to its owner."""
        return [f"{self.manifest.ref} {claim.field} is left to {claim.says}" for claim in self.left]

    @property
    def words_taken(self) -> list[str]:
        """A line for each field that is taken from its owner."""
        taken = self.forced if isinstance(self.answer, Applied) else ()
        return [f"{self.manifest.ref} {claim.field} is taken from {claim.says}" for claim in taken]


@dataclass(slots=True)
class Applier:
    """How one deploy applies. What the dry run of an object finds out is remembered for its write."""

    cluster: Cluster
    on_conflict: OnConflict = "fail"
    scaled: frozenset[Ref] = frozenset()
    """Workloads whose replicas an autoscaler sets; their manifests say none."""
    guard: Guard | None = None
    """Holds the writes to what was seen."""
    _prepared: set[Ref] = field(default_factory=set)
    """Objects whose fields have to change owners before the write."""

    async def check(self, manifest: Manifest) -> Tried:
        """Dry-run an object."""
        tried = await self._try(manifest, dry_run=True)
        ref = manifest.ref
        if isinstance(tried.answer, Applied) and (ref in self.scaled or kubectl_appliers(tried.answer.object)):
            present = await self.cluster.get(ref)
            if present and (_kubectl(present) or self._has_orphans(present, ref)):
                self._prepared.add(ref)
        return tried

    async def write(self, manifest: Manifest) -> Tried:
        """Apply an object that was checked; one whose fields cannot change owners is refused as it is."""
        refused = await self._prepare(manifest.ref) if manifest.ref in self._prepared else None
        return Tried(manifest, refused) if refused else await self._try(manifest, dry_run=False)

    # -- other owners --------------------------------------------------------------------------------

    async def _try(self, manifest: Manifest, *, dry_run: bool) -> Tried:
        forced: tuple[Claim, ...] = ()
        left: tuple[Claim, ...] = ()
        answer = await self._send(manifest, dry_run=dry_run)
        for _ in range(_ROUNDS):
            found = claims(answer)
            if not found or not isinstance(answer, ApiError):
                break
            yielding = await self._yielding(manifest.ref)
            others = tuple(claim for claim in found if claim.owner not in yielding)
            if others and self.on_conflict == "fail":
                answer.causes = [cause for cause, claim in zip(answer.causes, found, strict=True) if claim in others]
                break
            if others and self.on_conflict == "ignore":
                left += others
                fields = [claim.field for claim in others]
                manifest = replace(manifest, object=without(manifest.object, fields))
                answer = await self._send(manifest, dry_run=dry_run)
            else:
                forced += others
                answer = await self._send(manifest, dry_run=dry_run, force=True)
        return Tried(manifest, answer, forced, left)

    async def _yielding(self, ref: Ref) -> frozenset[str]:
        """The owners whose fields are ours to take whatever the terms are."""
        present = await self.cluster.get(ref)
        return frozenset({_HANDOVER}) | (_kubectl(present) if present else frozenset())

    async def _prepare(self, ref: Ref) -> ApiError | None:
        """Change owners of fields, no value: nothing is lost that has an owner the moment before and after.

        The error if that cannot be: without it the write would give up a field that is nobody else's.
        """
        lost: ApiError | None = None
        for at in range(_GUARDED_TRIES):
            await _pause_before(at)
            present = await self.cluster.get(ref)
            if self.guard:
                await self.guard.ensure()
            if present is None:
                return None
            try:
                now = await self._give_owners(ref, present)
            except ApiError as error:
                if error.status != 409:
                    raise
                lost = error
            else:
                if self.guard:
                    self.guard.take_in(ref, now)
                return None
        return lost

    async def _give_owners(self, ref: Ref, present: Object) -> Object:
        if self._has_orphans(present, ref):
            metadata = {key: present["metadata"][key] for key in _NAMED if key in present["metadata"]}
            thing = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata}
            given = {**thing, "spec": {"replicas": present["spec"]["replicas"]}}
            present = (await self.cluster.apply(given, manager=_HANDOVER)).object
        if managers := _kubectl(present):
            fields = adopted(present, managers, FIELD_MANAGER)
            version = present["metadata"]["resourceVersion"]
            changes = {"metadata": {"managedFields": fields, "resourceVersion": version}}
            present = await self.cluster.merge(ref, changes)
        return present

    def _has_orphans(self, present: Object, ref: Ref) -> bool:
        """Whether replicas would fall to the default, as we are their only owner and give them up.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
        """
        if ref not in self.scaled or dig(present, *_REPLICAS) is None:
            return False
        return not owners(present, *_REPLICAS) - {FIELD_MANAGER} - _kubectl(present)

    # -- sending -------------------------------------------------------------------------------------

    async def _send(self, manifest: Manifest, *, dry_run: bool, force: bool = False) -> Applied | ApiError:
        guard = None if dry_run else self.guard
        answer = await self._once(manifest, guard, dry_run=dry_run, force=force)
        for at in range(1, _GUARDED_TRIES if guard else _TRIES):
            if not _is_race(answer):
                break
            await _pause_before(at)
            if guard:
                await guard.look_again(self.cluster, manifest.ref)
            answer = await self._once(manifest, guard, dry_run=dry_run, force=force)
        return answer

    async def _once(self, manifest: Manifest, guard: Guard | None, *, dry_run: bool, force: bool) -> Applied | ApiError:
        thing = (await guard.pinned(self.cluster, manifest) if guard else manifest).object
        try:
            return await self.cluster.apply(thing, dry_run=dry_run, force=force)
        except ApiError as error:
            return error


async def _pause_before(at: int) -> None:
    """Let a race pass: controllers write a status several times in a row."""
    if at:
        await anyio.sleep(min(_LONGEST_PAUSE, _PAUSE * 2 ** (at - 1)))


def _kubectl(present: Object) -> frozenset[str]:
    """The managers of `kubectl apply` that give way: where we have applied before, theirs is a change after ours."""
    return frozenset() if is_applied_by(present, FIELD_MANAGER) else kubectl_appliers(present)


def _is_race(answer: Applied | ApiError) -> bool:
    """A 409 without causes is a race for the same object with somebody else, not a conflict of fields."""
    return isinstance(answer, ApiError) and answer.status == 409 and not answer.causes
