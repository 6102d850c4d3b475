"""One deploy of a release while it goes on: under the Lease, over what was seen, with its end on record."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio

from pipeline.stage import ReleasePart, StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.apply import intent, proof
from stages.clients.kubernetes.fence import Tenure, tenure
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref, identity
from stages.clients.kubernetes.records import Head, Part, Terms, end_of_part, write_part
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Deploying", "deploying"]

_LAST_WORDS = 3.0
"""Seconds that a deploy may take to say how it ended when it is cancelled."""


@dataclass(slots=True)
class Deploying:
    """A deploy while it is part of a release: it may write while the run holds the target, over what it has seen."""

    ctx: StageContext
    ledger: Ledger
    held: Tenure
    head: Head
    part: Part

    def guard(self, seen: Mapping[Ref, Object]) -> Guard:
        """What holds its writes to the versions that were seen under the Lease."""
        guard = Guard(self._ensure)
        for ref, thing in seen.items():
            guard.take_in(ref, thing)
        return guard

    async def _ensure(self) -> None:
        await self.held.confirm(self.ledger.cluster)

    async def begin(
        self,
        manifests: Iterable[Manifest],
        guard: Guard,
        terms: Terms,
        stayed: tuple[Ref, ...] = (),
    ) -> None:
        """Keep what is about to be applied and how, what was not there before, and what stays without being applied."""
        objects = tuple(manifest.object for manifest in manifests)
        refs = [identity(thing) for thing in objects]
        created = tuple((ref.api_version, ref.kind, ref.namespace, ref.name) for ref in refs if guard.is_new(ref))
        before = self.part.created
        known = tuple(dict.fromkeys(before + created))
        noted = {"objects": objects, "created": known, "stayed": stayed, **dict(terms)}
        self.part = self.part.model_copy(update=noted)
        secrets = write_part(self.part, self.head, self.ledger.namespace)
        self.part = self.part.model_copy(update={"pieces": len(secrets)})
        names = intent(self.ledger.cluster, [identity(secret) for secret in secrets])
        async with self.ctx.effect(f"record {self.head.name}", names) as effect:
            effect.proof(proof(await self.ledger.write(secrets)))

    async def end(self, outcome: str, message: str = "") -> None:
        """Say how the deploy ended, if it has begun to write."""
        if not self.part.objects:
            return
        self.part = self.part.model_copy(update={"outcome": outcome, "message": message})
        (first, *_) = write_part(self.part, self.head, self.ledger.namespace)
        await self.ledger.cluster.merge(identity(first), end_of_part(self.part))


@asynccontextmanager
async def deploying(ctx: StageContext, cluster: Cluster, release: ReleasePart) -> AsyncIterator[Deploying]:
    """Make a deploy part of a release: under the Lease, and with its end on record however it ends."""
    async with tenure(ctx, cluster, release) as held:
        ledger = Ledger.of(cluster, release)
        await _note(ledger, held)
        head = Head(target=release.target, number=release.number, run="", run_id=ctx.run.id)
        earlier = await _earlier(ledger, ctx, release)
        part = Part(name=ctx.run.stage, number=release.number, turn=held.turn, run_id=ctx.run.id, created=earlier)
        doing = Deploying(ctx, ledger, held, head, part)
        try:
            yield doing
            await held.confirm(cluster)
        except (StageFailed, StageErrored, ApiError) as error:
            with suppress(StageErrored, ApiError):
                await doing.end("failed", str(error))
            raise
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORDS), suppress(StageErrored, ApiError):
                await doing.end("cancelled", "it was cancelled")
            raise
        await doing.end("succeeded")


async def _note(ledger: Ledger, held: Tenure) -> None:
    """The first deploy of a run says that the release has begun; the others go on when it has."""
    async with held.noting:
        if not held.noted:
            await ledger.note_turn(held.number, held.turn)
            held.noted = True


async def _earlier(ledger: Ledger, ctx: StageContext, release: ReleasePart) -> tuple[tuple[str, str, str, str], ...]:
    """What an earlier attempt of this deploy created, by what it kept before it wrote."""
    if ctx.run.attempt == 1:
        return ()
    parts = await ledger.parts([release.number])
    return next((part.created for part in parts if part.name == ctx.run.stage), ())
