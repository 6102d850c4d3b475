"""What earlier deploys of a stage have applied: with a release that is in its records, else in a ConfigMap of ours."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pipeline.stage import CauseKind, RunInfo, StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.apply import intent, proof
from stages.clients.kubernetes.ledger import Ledger, state_now
from stages.clients.kubernetes.objects import MANAGED_BY, RUN, Object, Ref, identity
from stages.clients.kubernetes.records import slug
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Book", "Entry", "Inventory", "Records"]

_OBJECTS = "objects"
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """An object that a deploy of the stage has applied, or was going to."""

    ref: Ref
    runs: frozenset[str]
    """The ids of the runs whose mark it may bear; with another one it belongs to somebody else."""
    uid: str = ""
    """Empty: not known."""


Entries: TypeAlias = dict[Ref, Entry]


class Inventory(Protocol):
    """What is known of the objects of one stage. Every method raises what `Transport.send` does."""

    async def entries(self) -> list[Entry]:
        """What earlier deploys have applied, as far as nobody has removed it for being described no more."""

    async def begin(self, ctx: StageContext, objects: Iterable[Object]) -> None:
        """Note what is going to be applied, before it is."""

    async def end(self, ctx: StageContext, objects: Iterable[Object], gone: Iterable[Ref]) -> None:
        """Note what was applied, and what is not there any more."""


@dataclass(frozen=True, slots=True)
class Records:
    """The inventory of a deploy of a release. Nothing has to be noted: each deploy keeps what it applies."""

    ledger: Ledger
    stage: str
    number: int
    """The release that is being deployed."""

    async def entries(self) -> list[Entry]:
        """What the target holds of this stage, with what later releases tried; nothing that is another stage's now."""
        heads = {number: head for number, head in (await self.ledger.heads()).items() if number != self.number}
        state = state_now(heads)
        undone = {number for number, head in heads.items() if head.undone_by}
        # The head of a release that has long been forgotten is gone, when what it deployed still stands.
        standing = heads.get(state.get(self.stage, 0))
        since = standing.order if standing else (0, 0)
        later = [number for number, head in heads.items() if head.order > since]
        parts = await self.ledger.parts([*state.values(), *later])
        held = [part for part in parts if part.order > since or state.get(part.name) == part.number]
        in_force = [part for part in held if part.number not in undone or state.get(part.name) == part.number]
        others = {ref for part in in_force if part.name != self.stage for ref in part.refs}
        mine = dict.fromkeys(ref for part in held if part.name == self.stage for ref in (*part.refs, *part.stayed))
        runs = frozenset([*(head.run_id for head in heads.values()), *(part.run_id for part in held)])
        return [Entry(ref, runs) for ref in mine if ref not in others]

    async def begin(self, ctx: StageContext, objects: Iterable[Object]) -> None:
        """Nothing to do."""

    async def end(self, ctx: StageContext, objects: Iterable[Object], gone: Iterable[Ref]) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class Book:
    """The inventory of a deploy without a release: a ConfigMap with addresses and marks, never content.

    It is changed by compare-and-swap, and only by what this deploy did: what another one noted meanwhile stays.
    """

    cluster: Cluster
    namespace: str
    run: RunInfo
    _known: Entries = field(default_factory=dict)
    _version: str | None = None
    """None: nobody has looked yet; empty: there is none."""

    @property
    def ref(self) -> Ref:
        """The object."""
        name = f"pipe-inventory.{slug(f'{self.run.pipeline} {self.run.stage}')}"
        return Ref("v1", "ConfigMap", self.namespace, name)

    async def entries(self) -> list[Entry]:
        """As the object says; StageFailed (config) if it cannot be read."""
        await self._look()
        return list(self._known.values())

    async def begin(self, ctx: StageContext, objects: Iterable[Object]) -> None:
        """From now on it may bear this run's mark, too."""
        refs = [identity(thing) for thing in objects]

        def noted(known: Entries) -> Entries:
            before = {ref: known[ref].runs if ref in known else frozenset() for ref in refs}
            return {**known, **{ref: Entry(ref, runs | {self.run.id}) for ref, runs in before.items()}}

        await self._change(ctx, "inventory", noted)

    async def end(self, ctx: StageContext, objects: Iterable[Object], gone: Iterable[Ref]) -> None:
        """This run's mark, and these very objects."""
        run = frozenset({self.run.id})
        mine = {identity(thing): Entry(identity(thing), run, thing["metadata"]["uid"]) for thing in objects}
        left = set(gone)

        def noted(known: Entries) -> Entries:
            return {**{ref: each for ref, each in known.items() if ref not in left}, **mine}

        await self._change(ctx, "inventory in the end", noted)

    async def _change(self, ctx: StageContext, key: str, change: Callable[[Entries], Entries]) -> None:
        async with ctx.effect(key, intent(self.cluster, [self.ref])) as effect:
            for _ in range(_TRIES):
                if self._version is None:
                    await self._look()
                entries = change(self._known)
                thing = _written(self.ref, entries, self.run.id, self._version or "")
                try:
                    written = await (self.cluster.replace(thing) if self._version else self.cluster.create(thing))
                except ApiError as error:
                    if error.status != 409:
                        raise
                    self._version = None
                else:
                    self._known, self._version = entries, written["metadata"]["resourceVersion"]
                    effect.proof(proof([written]))
                    return
        raise StageErrored(f"{self.ref} cannot be changed: others change it all the time")

    async def _look(self) -> None:
        found = await self.cluster.get(self.ref)
        self._version = found["metadata"]["resourceVersion"] if found else ""
        self._known = _read(found) if found else {}


def _written(ref: Ref, entries: Entries, run: str, version: str) -> Object:
    said = [
        [*(each.ref.api_version, each.ref.kind, each.ref.namespace, each.ref.name), each.uid, sorted(each.runs)]
        for each in entries.values()
    ]
    metadata: Object = {
        "name": ref.name,
        "namespace": ref.namespace,
        "labels": dict(MANAGED_BY),
        "annotations": {RUN: run},
    }
    if version:
        metadata["resourceVersion"] = version
    lines = ",\n".join(json.dumps(each) for each in said)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_OBJECTS: f"[{lines}]\n"}}


def _read(thing: Object) -> Entries:
    try:
        said = json.loads(thing["data"][_OBJECTS])
        entries = [Entry(Ref(*map(str, names)), frozenset(runs), uid) for *names, uid, runs in said]
    except (KeyError, TypeError, ValueError) as error:
        message = f"{identity(thing)} is no inventory of pipe's: {error}; delete it, and what it knew is pruned no more"
        raise StageFailed(message, kind=CauseKind.CONFIG) from error
    return {entry.ref: entry for entry in entries}
