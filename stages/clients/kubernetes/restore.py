"""Going back to an earlier release: what is put back, what is removed, and what stays because it cannot be undone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.applier import Applier
from stages.clients.kubernetes.apply import check, intent, proof, write
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.inventory import Entry
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.needs import parse_need
from stages.clients.kubernetes.objects import RUN, Object, Ref, dig
from stages.clients.kubernetes.order import batches, waves
from stages.clients.kubernetes.records import Head, Part, Terms, overlaid
from stages.clients.kubernetes.removal import find, remove
from stages.clients.kubernetes.scaling import leave_replicas
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.waiting import Allowance, wait_until_done

__all__ = ["Plan", "Restored", "plan_restore", "restore"]

_STAYS = {
    "Job": "what it did stays",
    "Pod": "what it did stays",
    "PersistentVolumeClaim": "it and its data stay",
    "PersistentVolume": "it and its data stay",
    "Namespace": "it stays",
    "CustomResourceDefinition": "it stays",
}
"""What a rollback neither writes nor removes: work that is done, and what others' data hang on."""


@dataclass(frozen=True, slots=True)
class Service:
    """What one deploy has to become again."""

    name: str
    manifests: tuple[Manifest, ...]
    terms: Terms
    """Those of the deploy whose pods start again; but whoever rewrites a field now is met on the terms of now."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What going back means."""

    services: tuple[Service, ...]
    """In the order in which they are written: what went out last goes back first."""
    remove: tuple[Ref, ...]
    """Objects that later releases made and the good one lacks."""
    runs: frozenset[str]
    """The runs of those releases: what bears the mark of another is left alone."""
    words: tuple[str, ...]
    """What cannot be undone."""
    lost: tuple[str, ...] = ()
    """Deploys whose record is gone, so that nobody knows what they were."""


def plan_restore(
    to: Head, parts: Sequence[Part], runs: Iterable[str], *, only: str = "", everything: bool = False, run: str = ""
) -> Plan:
    """Work out how to go back.

    Args:
        to: the release that is to hold again.
        parts: the parts of its state, and those of every release after it.
        runs: the ids of the runs of those later releases.
        only: the one deploy that goes back, by its leaf's name or key; empty: all.
        everything: also the deploys that no later release has touched.
        run: the id of the run that does it, which marks the objects.
    """
    held = [part for part in parts if to.state.get(part.name) == part.number]
    orders = {part.name: part.order for part in held}
    later = [part for part in parts if part.order > orders.get(part.name, to.order) and _meant(part.name, only)]
    lost = tuple(name for name in to.state if name not in orders and _meant(name, only))
    touched = list(dict.fromkeys(part.name for part in reversed(later)))
    if everything:
        touched += [part.name for part in reversed(held) if part.name not in touched and _meant(part.name, only)]
    good = overlaid(held)
    owner = {ref: part.name for part in held for ref in part.refs}
    newest = {part.name: part for part in sorted(parts, key=lambda part: part.order)}
    old = {part.name: part for part in held}

    def service(name: str) -> Service:
        refs = [ref for ref in good if owner[ref] == name and _goes_back(ref)]
        now, then = newest[name], old.get(name, newest[name])
        terms = Terms(on_conflict=now.on_conflict, waits_for=then.waits_for, wait=then.wait)
        return Service(name, tuple(_manifest(good[ref], to, run) for ref in refs), terms)

    services = [service(name) for name in touched]
    created = dict.fromkeys(Ref(*names) for part in later for names in part.created if part.name not in lost)
    remove = tuple(ref for ref in created if ref not in good and _goes_back(ref))
    written = tuple(service for service in services if service.manifests)
    return Plan(written, remove, frozenset(runs), tuple(_words(later, good)), lost)


def _meant(name: str, only: str) -> bool:
    return not only or only in (name, name.partition("[")[2].removesuffix("]"))


def _goes_back(ref: Ref) -> bool:
    return ref.kind not in _STAYS


def _manifest(thing: Object, to: Head, run: str) -> Manifest:
    metadata = thing["metadata"]
    marked = {**metadata, "annotations": {**(metadata.get("annotations") or {}), RUN: run}}
    return Manifest({**thing, "metadata": marked}, to.name, 0)


def _words(later: Iterable[Part], good: Mapping[Ref, Object]) -> Iterable[str]:
    """What later releases did that stays."""
    said = {}
    for part in later:
        for ref, thing in zip(part.refs, part.objects, strict=True):
            if not _goes_back(ref) and _content(thing) != _content(good.get(ref)):
                said[ref] = f"{ref} is not undone: {_STAYS[ref.kind]}"
    return said.values()


def _content(thing: Object | None) -> Object | None:
    """An object but for the mark of the run that wrote it."""
    if thing is None:
        return None
    annotations = {key: value for key, value in (dig(thing, "metadata", "annotations") or {}).items() if key != RUN}
    return {**thing, "metadata": {**thing["metadata"], "annotations": annotations}}


# -- doing it --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Restored:
    """What became of it."""

    services: list[str] = field(default_factory=list)
    objects: int = 0
    removed: list[Ref] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """What was not undone, and why."""
    failure: str = ""
    """Why the target is not as it was; empty if it is."""

    def __str__(self) -> str:
        removed = f", {len(self.removed)} removed" if self.removed else ""
        return f"{len(self.services)} deploys put back ({self.objects} objects{removed})"


async def restore(ctx: StageContext, cluster: Cluster, plan: Plan, guard: Guard) -> Restored:
    """Put everything back, wait until it is done, then remove what is too much. Doing it twice is harmless.

    Each rollout may take as long as when it was deployed; they go on at the same time.

    What the cluster refuses is said, and does not keep the rest from going back; but then nothing is removed, as what
    did not go back may need it.

    Args:
        ctx: whose effects the writes are.
        cluster: where.
        plan: what.
        guard: holds the writes to what is seen under the Lease.
    """
    done = Restored(words=list(plan.words))
    for name in plan.lost:
        _note(done, f"{name} stays as it is: its record is gone, so nobody knows what it was")
    applied: dict[tuple[tuple[str, ...], float], list[Object]] = {}
    for service in plan.services:
        ctx.progress(f"putting {service.name} back")
        objects = await _put_back(ctx, cluster, service, guard, done)
        applied.setdefault((service.terms.waits_for, service.terms.wait), []).extend(objects)
        if objects:
            done.services.append(service.name)
    done.objects = sum(map(len, applied.values()))

    async def wait(waits_for: tuple[str, ...], seconds: float, objects: Sequence[Object]) -> None:
        needs = [parse_need(text) for text in waits_for]
        try:
            await wait_until_done(ctx, cluster, objects, Allowance(seconds), needs=needs)
        except (StageFailed, StageErrored) as error:
            done.failure = done.failure or str(error)

    async with anyio.create_task_group() as tasks:
        for (waits_for, seconds), objects in applied.items():
            tasks.start_soon(wait, waits_for, seconds, objects)
    await _remove(ctx, cluster, plan, guard, done)
    return done


async def _put_back(
    ctx: StageContext, cluster: Cluster, service: Service, guard: Guard, done: Restored
) -> list[Object]:
    scaling = await leave_replicas(cluster, service.manifests)
    applier = Applier(cluster, service.terms.on_conflict, scaled=scaling.scaled, guard=guard)
    allowed = await _allowed(applier, scaling.manifests, guard, done)
    applied: list[Object] = []
    ordered = [(wave, *batch) for wave, members in waves(allowed) for batch in batches(members)]
    for wave, name, batch in ordered:
        of_wave = f" {wave}" if wave != ordered[0][0] else ""
        applied += await _written(ctx, applier, f"{name}{of_wave} of {service.name} again", batch, guard, done)
    return applied


async def _written(
    ctx: StageContext, applier: Applier, name: str, batch: Sequence[Manifest], guard: Guard, done: Restored
) -> list[Object]:
    """What of a batch could be written; where one is refused, each is tried by itself."""
    try:
        return await write(ctx, applier, name, batch)
    except StageFailed as error:
        await guard.ensure()
        if len(batch) == 1:
            _note(done, str(error))
            return []
    return [
        thing
        for manifest in batch
        for thing in await _written(ctx, applier, f"{name}: {manifest.ref}", [manifest], guard, done)
    ]


async def _allowed(applier: Applier, manifests: Sequence[Manifest], guard: Guard, done: Restored) -> list[Manifest]:
    """The objects that the cluster takes, by a dry run of each."""

    async def one(manifest: Manifest) -> Manifest | None:
        ref = manifest.ref
        if await applier.cluster.resource(ref.api_version, ref.kind) is None:
            _note(done, f"{ref} does not go back: the cluster serves no {ref.kind} of {ref.api_version} any more")
            return None
        try:
            checked = await check(applier, [manifest])
        except StageFailed as error:
            _note(done, str(error))
            return None
        for ref, thing in checked.seen.items():
            guard.take_in(ref, thing)
        return manifest

    return [manifest for manifest in await together(one, manifests) if manifest]


def _note(done: Restored, message: str) -> None:
    done.words.append(message)
    done.failure = done.failure or message


async def _remove(ctx: StageContext, cluster: Cluster, plan: Plan, guard: Guard, done: Restored) -> None:
    """Remove what later releases made, where it still is as one of them left it."""
    if done.failure:
        done.words += [f"{ref} stays, as not everything went back; the next rollback removes it" for ref in plan.remove]
        return
    entries = [Entry(ref, plan.runs) for ref in plan.remove]
    found = [(entry, thing) for entry in entries if (thing := await find(cluster, entry))]
    if not found:
        return
    async with ctx.effect("remove what is too much", intent(cluster, [entry.ref for entry, _ in found])) as effect:
        effect.proof(proof([thing for _, thing in found]))
        for entry, _ in found:
            try:
                why = await remove(cluster, entry, guard.ensure)
            except ApiError as error:
                why = error.message
            if why:
                done.words.append(f"{entry.ref} stays: {why}")
            else:
                done.removed.append(entry.ref)
