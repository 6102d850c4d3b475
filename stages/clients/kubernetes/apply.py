"""Writing objects: a dry run of everything, then batch by batch inside effects.

Server-side apply, field manager `pipe`: what belongs to somebody else is a refusal, unless the file says more.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
from pydantic import JsonValue

from pipeline.stage import Settled, StageContext, StageFailed
from stages.clients.kubernetes.api import Applied, Cluster
from stages.clients.kubernetes.applier import Applier, Tried
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import RUN, Object, Ref, dig, identity
from stages.clients.kubernetes.refusals import explain
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Checked", "annotate", "check", "intent", "proof", "unmet", "write", "written"]

_LOOKS, _PAUSE = 40, 0.25
_MISSING = re.compile(r'(\S+) "([^"]+)" not found')


def annotate(manifests: Sequence[Manifest], run: str, annotations: Mapping[str, str]) -> None:
    """Put the run's id and the stage's own annotations on every object, in place."""
    for manifest in manifests:
        metadata = manifest.object["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations, RUN: run}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a dry run said."""

    manifests: Sequence[Manifest]
    """As they are to be written: without the fields that are left to their owners."""
    seen: Mapping[Ref, Object]
    """The objects as they would be, with the version that they have now; none if they are not there."""
    notes: Sequence[str] = ()
    """Words on what is left to others, and on what cannot be checked yet as it needs a part of the same deploy."""


async def check(applier: Applier, manifests: Sequence[Manifest]) -> Checked:
    """Dry-run every object at the cluster, so that a refusal comes before the first write.

    Raises:
        StageFailed: (config) with all refusals as a table.
    """

    async def one(manifest: Manifest) -> Tried | str:
        ref = manifest.ref
        if await applier.cluster.resource(ref.api_version, ref.kind) is None:
            return f"{ref} is not checkable: its definition is part of this deploy"
        tried = await applier.check(manifest)
        if isinstance(tried.answer, ApiError) and (need := unmet(tried.answer, manifest, manifests)):
            return f"{ref} is not checkable: it needs {need}, which is part of this deploy"
        return tried

    results = await together(one, manifests)
    tried = [result for result in results if isinstance(result, Tried)]
    _raise_refused(tried)
    as_sent = {each.manifest.ref: each.manifest for each in tried}
    return Checked(
        [as_sent.get(manifest.ref, manifest) for manifest in manifests],
        {each.manifest.ref: each.answer.object for each in tried if isinstance(each.answer, Applied)},
        [
            *(result for result in results if isinstance(result, str)),
            *(word for each in tried for word in each.words_left),
        ],
    )


def unmet(error: ApiError, manifest: Manifest, manifests: Sequence[Manifest]) -> Ref | None:
    """The other object of the same deploy that a refusal of `manifest` misses."""
    missing = {(kind.partition(".")[0].lower(), name) for kind, name in _MISSING.findall(error.message)}
    others = (each.ref for each in manifests if each.ref != manifest.ref and _may_be_meant(each.ref, manifest, error))
    return next((ref for ref in others if any((word, ref.name) in missing for word in _words_for(ref.kind))), None)


def _may_be_meant(ref: Ref, manifest: Manifest, error: ApiError) -> bool:
    """What an object names lies beside it or in no namespace; only the service of a webhook lies anywhere."""
    return ref.namespace in ("", manifest.ref.namespace) or f"{ref.name}.{ref.namespace}.svc" in error.message


def _words_for(kind: str) -> Iterator[str]:
    """How a kind is called in messages: `serviceaccount`, `networkpolicies`."""
    word = kind.lower()
    yield from (word, f"{word}s", f"{word}es", f"{word.removesuffix('y')}ies")


async def write(ctx: StageContext, applier: Applier, name: str, manifests: Sequence[Manifest]) -> list[Object]:
    """Apply a batch as one effect: a cancel waits until it is through. The objects as the cluster has them now.

    Raises:
        StageFailed: (config) with a table of those that were refused; the others are applied.
    """
    cluster, refs = applier.cluster, [manifest.ref for manifest in manifests]
    await _until_known(cluster, refs)
    made: list[Object] = []

    async def one(manifest: Manifest) -> Tried:
        tried = await applier.write(manifest)
        if isinstance(tried.answer, Applied) and applier.guard and applier.guard.is_new(manifest.ref):
            made.append(tried.answer.object)
        return tried

    async with ctx.effect(f"apply {name}", intent(cluster, refs)) as effect:
        try:
            tried = await together(one, manifests)
        finally:
            if applier.guard:
                await _confirm(cluster, applier.guard, made)
        applied = [each.answer for each in tried if isinstance(each.answer, Applied)]
        effect.proof(proof([each.object for each in applied]))
    for warning in dict.fromkeys(warning for each in applied for warning in each.warnings):
        ctx.log(f"the cluster warns: {warning}")
    for line in (word for each in tried for word in (*each.words_left, *each.words_taken)):
        ctx.log(line)
    _raise_refused(tried)
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


async def _confirm(cluster: Cluster, guard: Guard, made: Sequence[Object]) -> None:
    """See that nobody took over while the batch was written; what only we have is taken back then.

    No version holds back an object that nobody else makes, so that is the one write that has to be undone; what
    somebody else has written since is theirs.
    """
    try:
        await guard.ensure()
    except StageFailed:
        await together(partial(_take_back, cluster), made)
        raise


async def _take_back(cluster: Cluster, made: Object) -> None:
    """Delete what we made, as long as it bears our mark; a controller that writes its status does not make it his."""
    for _ in range(_LOOKS):
        thing = await cluster.get(identity(made))
        if thing is None or _whose(thing) != _whose(made):
            return
        try:
            await cluster.delete(identity(made), thing["metadata"]["uid"], thing["metadata"]["resourceVersion"])
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            return
        await anyio.sleep(_PAUSE)


def _whose(thing: Object) -> tuple[str, object]:
    return thing["metadata"]["uid"], dig(thing, "metadata", "annotations", RUN)


def _raise_refused(tried: Sequence[Tried]) -> None:
    refused = [(each.manifest, each.answer) for each in tried if isinstance(each.answer, ApiError)]
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
