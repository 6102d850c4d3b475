"""Who may write to a target now: tickets in the order of commits, and a Lease that one run holds at a time.

Both are in one object, so that drawing, taking and being overtaken are each one compare-and-swap: the Lease
`pipe-TARGET`, whose annotations say which ticket was drawn last and which one was applied last. No clock of another
machine is read: a holder is dead when its Lease has not changed for as long as it promised, as seen by who waits.
"""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import anyio

from pipeline.stage import CauseKind, ReleasePart, RunInfo, StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import MANAGED_BY, Object, Ref
from stages.clients.kubernetes.records import KIND, TARGET, Head, read_head
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Superseded", "Tenure", "draw", "lease_ref", "tenure"]

_DRAWN, _APPLIED, _BY, _UNDONE = "pipe-ci/drawn", "pipe-ci/applied", "pipe-ci/applied-by", "pipe-ci/undone"
_TRIES = 60
_PAUSE = 1.0
_SECONDS = 15
"""How long a holder that says nothing is believed to live."""
_RENEWED_EVERY = 4.0
_TRUSTED = 9.0
"""Seconds after a renewal in which nobody else can have the Lease, if this machine does not sleep."""
_WAIT = 30 * 60.0
_LEAVES_WITHIN = 2.0


class Superseded(StageFailed):
    """A newer run has been at the target: this one writes nothing any more."""

    def __init__(self, target: str, number: int, by: str, applied: int) -> None:
        message = f"superseded by {by}: {target}@{applied} went there, and this is the older {target}@{number}"
        super().__init__(message, kind=CauseKind.SUPERSEDED_BY, evidence=[by])


def lease_ref(namespace: str, target: str) -> Ref:
    """The object that all runs of a target share."""
    return Ref("coordination.k8s.io/v1", "Lease", namespace, f"pipe-{target}")


async def draw(cluster: Cluster, namespace: str, target: str) -> int:
    """Draw the next number of a target. A crash right after it leaves a gap, never a number that two have.

    Raises:
        StageErrored: too many others draw at the same time.
    """
    for _ in range(_TRIES):
        lease = await cluster.get(lease_ref(namespace, target))
        try:
            if lease is None:
                heads = await _recorded(cluster, namespace, target)
                number = 1 + max((head.number for head in heads), default=0)
                await cluster.create(_new(namespace, target, number, heads))
            else:
                number = 1 + _number(lease, _DRAWN)
                lease["metadata"]["annotations"] = {**_annotations(lease), _DRAWN: str(number)}
                await cluster.replace(lease)
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            return number
    raise StageErrored(f"no number could be drawn for {target}: others change its Lease all the time")


async def _recorded(cluster: Cluster, namespace: str, target: str) -> list[Head]:
    """What was released, by the records: somebody may have deleted the Lease."""
    heads, _ = await cluster.items(Collection("v1", "Secret", namespace, f"{TARGET}={target},{KIND}=head"))
    return [read_head(head) for head in heads]


def _new(namespace: str, target: str, number: int, heads: Sequence[Head]) -> Object:
    """A Lease that knows what the one before it did."""
    ref = lease_ref(namespace, target)
    marks = {_DRAWN: str(number)}
    if applied := max((head for head in heads if head.turn), key=lambda head: head.number, default=None):
        marks |= {_APPLIED: str(applied.number), _BY: applied.run}
    if undone := max((head.number for head in heads if head.outcome == "rolled back"), default=0):
        marks[_UNDONE] = str(undone)
    labels = {**MANAGED_BY, TARGET: target}
    metadata = {"name": ref.name, "namespace": namespace, "labels": labels, "annotations": marks}
    turn = max((head.turn for head in heads), default=0)
    return {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, "spec": {"leaseTransitions": turn}}


def _annotations(lease: Object) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}


def _number(lease: Object, name: str) -> int:
    return int(_annotations(lease).get(name) or 0)


# -- holding it ------------------------------------------------------------------------------------


@dataclass(eq=False)
class Tenure:
    """A run's hold on a target, shared by all of its stages in this process."""

    target: str
    namespace: str
    number: int
    run: RunInfo
    turn: int = 0
    """Which hold of the Lease this is; they are counted."""
    noted: bool = False
    """The release's record says so."""
    _renewed: float = float("-inf")
    _watched: tuple[object, float] = (None, 0.0)
    """What the Lease of another said, and since when it says that."""
    noting: anyio.Lock = field(default_factory=anyio.Lock)
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def holder(self) -> str:
        """As the Lease names us."""
        return f"{self.run.pipeline}#{self.run.number} on {socket.gethostname()} ({self.run.id})"

    async def ensure(self, cluster: Cluster, ctx: StageContext | None = None, *, closing: bool = False) -> None:
        """Return when we hold the Lease; right away if nobody else can have it. Waits for another holder, bounded.

        Args:
            cluster: where the target is.
            ctx: who tells that it waits, and for whom.
            closing: the run undoes or closes its release; else one that was rolled back is written no more.

        Raises:
            Superseded: a newer run has been there.
            StageFailed: the release was rolled back.
            StageErrored: the other holder did not let go in half an hour.
        """
        async with self._lock:
            deadline = anyio.current_time() + _WAIT
            while anyio.current_time() - self._renewed > _TRUSTED:
                holder = await self._take(cluster, closing=closing)
                if not holder:
                    return
                if ctx:
                    ctx.progress(f"waiting for {holder}, which is deploying to {self.target}")
                if anyio.current_time() > deadline:
                    raise StageErrored(f"{holder} was still deploying to {self.target} after {_WAIT / 60:.0f} minutes")
                await anyio.sleep(_PAUSE)

    async def confirm(self, cluster: Cluster, *, closing: bool = False) -> None:
        """Return when we hold the Lease by the cluster's own word: no clock of ours goes on while a machine sleeps.

        Raises:
            As `ensure`, which it falls back on.
        """
        async with self._lock:
            lease = await cluster.get(lease_ref(self.namespace, self.target))
            if lease is not None:
                self._refuse(lease, closing=closing)
                if f"({self.run.id})" in ((lease.get("spec") or {}).get("holderIdentity") or ""):
                    return
            self._renewed = float("-inf")
        await self.ensure(cluster, closing=closing)

    async def _take(self, cluster: Cluster, *, closing: bool) -> str:
        """Take or renew the Lease; the name of another holder that seems to live."""
        began = anyio.current_time()
        lease = await cluster.get(lease_ref(self.namespace, self.target))
        if lease is None:
            await draw(cluster, self.namespace, self.target)
            return "a Lease that was deleted"
        self._refuse(lease, closing=closing)
        spec = lease.get("spec") or {}
        if self._is_anothers(spec):
            return str(spec["holderIdentity"])
        if await self._write(cluster, lease, self.holder):
            self._renewed = began
            return ""
        return "somebody who changed the Lease at the same time"

    def _refuse(self, lease: Object, *, closing: bool) -> None:
        applied = _number(lease, _APPLIED)
        if applied > self.number:
            raise Superseded(self.target, self.number, _annotations(lease).get(_BY, "another run"), applied)
        if not closing and _number(lease, _UNDONE) >= self.number:
            again = f"`pipe rerun '{self.run.pipeline}#{self.run.number}' --from ticket` deploys it as a new one"
            message = f"{self.target}@{self.number} was rolled back, so nothing more of it is deployed; {again}"
            raise StageFailed(message, kind=CauseKind.CONFIG)

    def _is_anothers(self, spec: Object) -> bool:
        """Whether somebody else holds the Lease and has changed it within the time that it promised."""
        if not spec.get("holderIdentity") or f"({self.run.id})" in spec["holderIdentity"]:
            return False
        said = (spec["holderIdentity"], spec.get("renewTime"))
        if said != self._watched[0]:
            self._watched = (said, anyio.current_time())
        return anyio.current_time() - self._watched[1] < (spec.get("leaseDurationSeconds") or _SECONDS)

    async def _write(self, cluster: Cluster, lease: Object, holder: str, **marks: str) -> bool:
        """Put the Lease as ours; whether nobody was quicker."""
        spec, time = dict(lease.get("spec") or {}), datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        turn = spec.get("leaseTransitions") or 0
        if holder and holder != spec.get("holderIdentity"):
            turn += 1
            spec |= {"acquireTime": time, "leaseTransitions": turn}
        spec |= {"holderIdentity": holder, "renewTime": time, "leaseDurationSeconds": _SECONDS}
        by = f"{self.run.pipeline}#{self.run.number}"
        lease["metadata"]["annotations"] = {**_annotations(lease), _APPLIED: str(self.number), _BY: by, **marks}
        try:
            await cluster.replace({**lease, "spec": spec})
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        self.turn = turn
        return True

    async def undo(self, cluster: Cluster) -> None:
        """Note that the release is being rolled back: nothing more of it may be deployed."""
        await self._mark(cluster, self.holder, **{_UNDONE: str(self.number)})

    async def leave(self, cluster: Cluster) -> None:
        """Let go of the Lease, so that nobody has to wait. It never fails: what is not let go of runs out."""
        self._renewed = float("-inf")
        with anyio.CancelScope(shield=True), anyio.move_on_after(_LEAVES_WITHIN), suppress(StageErrored, ApiError):
            await self._mark(cluster, "")

    async def _mark(self, cluster: Cluster, holder: str, **marks: str) -> None:
        for _ in range(_TRIES):
            lease = await cluster.get(lease_ref(self.namespace, self.target))
            if lease is None or f"({self.run.id})" not in ((lease.get("spec") or {}).get("holderIdentity") or ""):
                return
            if await self._write(cluster, lease, holder, **marks):
                return

    async def keep(self, cluster: Cluster) -> None:
        """Renew for as long as somebody works under it; of several at once one does. Raises what `ensure` does.

        A cluster that cannot be asked takes the Lease from nobody: that is tried again.
        """
        while True:
            await anyio.sleep(_RENEWED_EVERY / 2)
            async with self._lock:
                if anyio.current_time() - self._renewed < _RENEWED_EVERY:
                    continue
                try:
                    holder = await self._take(cluster, closing=True)
                except (StageErrored, ApiError):
                    continue
            if holder and anyio.current_time() - self._renewed > _SECONDS:
                await self.ensure(cluster, closing=True)


_TENURES: "WeakValueDictionary[tuple[str, str, str, int, str], Tenure]" = WeakValueDictionary()


@asynccontextmanager
async def tenure(
    ctx: StageContext, cluster: Cluster, release: ReleasePart, *, closing: bool = False
) -> AsyncIterator[Tenure]:
    """Hold a target while something is written to it. The stages of one run share one hold; it outlives each of them.

    Whoever closes the release lets go of the Lease (`leave`); else it runs out when nobody renews it any more.

    Raises:
        As `Tenure.ensure`, also in the middle, when a newer run has taken over because this process stood still.
    """
    key = (cluster.server, release.namespace, release.target, release.number, ctx.run.id)
    held = _TENURES.get(key)
    if held is None:
        held = _TENURES[key] = Tenure(release.target, release.namespace, release.number, ctx.run)
    await held.ensure(cluster, ctx, closing=closing)
    async with _kept(held, cluster):
        yield held


@asynccontextmanager
async def _kept(held: Tenure, cluster: Cluster) -> AsyncIterator[None]:
    """Renew meanwhile; when the hold is lost, what goes on below it is cancelled and the reason raised."""
    failures: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def keep() -> None:
            try:
                await held.keep(cluster)
            except Exception as error:  # noqa: BLE001  # raised below: a task group would wrap it
                failures.append(error)
                tasks.cancel_scope.cancel()

        tasks.start_soon(keep)
        try:
            yield
        except Exception as error:  # noqa: BLE001  # as above
            failures.append(error)
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
