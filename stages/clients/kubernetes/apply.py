"""Writing objects: a dry run of everything, then batch by batch inside effects.

Server-side apply, field manager `pipe`, never by force: what belongs to somebody else is a refusal, not a prize.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
from pydantic import JsonValue

from pipeline.stage import Settled, StageContext, StageFailed
from stages.clients.kubernetes.api import Applied, Cluster
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import RUN, Object, Ref, dig, identity
from stages.clients.kubernetes.refusals import explain
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["annotate", "check", "intent", "proof", "unmet", "write", "written"]

_TRIES = 3
_GUARDED_TRIES = 8
"""A guarded write also loses against controllers that only change a status."""
_LOOKS, _PAUSE = 40, 0.25


def annotate(manifests: Sequence[Manifest], run: str, annotations: Mapping[str, str]) -> None:
    """Put the run's id and the stage's own annotations on every object, in place."""
    for manifest in manifests:
        metadata = manifest.object["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations, RUN: run}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a dry run said."""

    seen: Mapping[Ref, Object]
    """The objects as they would be, with the version that they have now; none if they are not there."""
    notes: Sequence[str] = ()
    """Words on those that cannot be checked yet, because what they need is part of the same deploy."""


async def check(cluster: Cluster, manifests: Sequence[Manifest]) -> Checked:
    """Dry-run every object at the cluster, so that a refusal comes before the first write.

    Raises:
        StageFailed: (config) with all refusals as a table.
    """

    async def one(manifest: Manifest) -> str | ApiError | Applied:
        ref = manifest.ref
        if await cluster.resource(ref.api_version, ref.kind) is None:
            return f"{ref} is not checkable: its definition is part of this deploy"
        answer = await _apply(cluster, manifest, dry_run=True)
        if isinstance(answer, ApiError) and (need := unmet(answer, manifests)):
            return f"{ref} is not checkable: it needs {need}, which is part of this deploy"
        return answer

    results = await together(one, manifests)
    _raise_refused(manifests, results)
    pairs = zip(manifests, results, strict=True)
    seen = {manifest.ref: result.object for manifest, result in pairs if isinstance(result, Applied)}
    return Checked(seen, [result for result in results if isinstance(result, str)])


def unmet(error: ApiError, manifests: Sequence[Manifest]) -> Ref | None:
    """The object of the same deploy that a refusal misses."""
    refs = (manifest.ref for manifest in manifests)
    return next((ref for ref in refs if f'"{ref.name}" not found' in error.message), None)


async def write(
    ctx: StageContext, cluster: Cluster, name: str, manifests: Sequence[Manifest], guard: Guard | None = None
) -> list[Object]:
    """Apply a batch as one effect: a cancel waits until it is through. The objects as the cluster has them now.

    `guard` holds the writes to what was seen.

    Raises:
        StageFailed: (config) with a table of those that were refused; the others are applied.
    """
    refs = [manifest.ref for manifest in manifests]
    await _until_known(cluster, refs)
    async with ctx.effect(f"apply {name}", intent(cluster, refs)) as effect:
        answers = await together(lambda each: _write_one(cluster, each, guard), manifests)
        applied = [answer for answer in answers if isinstance(answer, Applied)]
        effect.proof(proof([each.object for each in applied]))
    if guard:
        await _confirm(cluster, guard, applied)
    for warning in dict.fromkeys(warning for each in applied for warning in each.warnings):
        ctx.log(f"the cluster warns: {warning}")
    _raise_refused(manifests, answers)
    return [each.object for each in applied]


async def _until_known(cluster: Cluster, refs: Sequence[Ref]) -> None:
    """Wait a moment for kinds whose definition has just been established: discovery lags behind."""
    for _ in range(_LOOKS):
        if all([await cluster.resource(ref.api_version, ref.kind) for ref in refs]):
            return
        await anyio.sleep(_PAUSE)


def intent(cluster: Cluster, refs: Sequence[Ref]) -> dict[str, JsonValue]:
    """What is about to be written, enough to look for it later: addresses and names, never content."""
    names: list[JsonValue] = [[ref.api_version, ref.kind, ref.namespace, ref.name] for ref in refs]
    return {"server": cluster.server, "objects": names}


def proof(objects: Sequence[Object]) -> dict[str, JsonValue]:
    """What the cluster says about the objects now: uid, generation and resource version of each."""
    return {"objects": [[str(identity(each)), *_version(each)] for each in objects]}


def _version(thing: Object) -> list[JsonValue]:
    metadata = thing["metadata"]
    return [metadata.get("uid"), metadata.get("generation"), metadata.get("resourceVersion")]


async def _apply(cluster: Cluster, manifest: Manifest, *, dry_run: bool) -> Applied | ApiError:
    for _ in range(_TRIES - 1):
        try:
            return await cluster.apply(manifest.object, dry_run=dry_run)
        except ApiError as error:
            # A 409 without causes is a race for the same object with somebody else, not a conflict of fields.
            if error.status != 409 or error.causes:
                return error
    try:
        return await cluster.apply(manifest.object, dry_run=dry_run)
    except ApiError as error:
        return error


async def _write_one(cluster: Cluster, manifest: Manifest, guard: Guard | None) -> Applied | ApiError:
    if guard is None:
        return await _apply(cluster, manifest, dry_run=False)
    for _ in range(_GUARDED_TRIES - 1):
        try:
            return await cluster.apply((await guard.pinned(cluster, manifest)).object)
        except ApiError as error:
            if error.status != 409 or error.causes:
                return error
        await guard.look_again(cluster, manifest.ref)
    try:
        return await cluster.apply((await guard.pinned(cluster, manifest)).object)
    except ApiError as error:
        return error


async def _confirm(cluster: Cluster, guard: Guard, applied: Sequence[Applied]) -> None:
    """See that nobody took over while the batch was written; what only we have is taken back then.

    No version holds back an object that nobody else makes, so that is the one write that has to be undone.
    """
    try:
        await guard.ensure()
    except StageFailed:
        made = [each.object for each in applied if guard.is_new(identity(each.object))]
        await together(lambda thing: cluster.delete(identity(thing), thing["metadata"]["uid"]), made)
        raise


def _raise_refused(manifests: Sequence[Manifest], results: Sequence[object]) -> None:
    pairs = zip(manifests, results, strict=True)
    refused = [(manifest, result) for manifest, result in pairs if isinstance(result, ApiError)]
    if refused:
        raise explain(refused)


async def written(cluster: Cluster, run: str, intent: Mapping[str, JsonValue]) -> Settled:
    """Whether all objects of an intent are there with the mark of the run; `absent` as well if only some are."""
    refs = [Ref(*map(str, names)) for names in intent.get("objects") or () if isinstance(names, list)]  # type: ignore[union-attr]
    found = await together(cluster.get, refs)
    ours = [each for each in found if each is not None and dig(each, "metadata", "annotations", RUN) == run]
    if refs and len(ours) == len(refs):
        return Settled("done", proof(ours))
    return Settled("absent", message=f"{len(ours)} of {len(refs)} objects are written")
