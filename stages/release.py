"""`release`: the last leaf that `release:` adds: when all deploys have ended it says how, and may put all back."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, JsonValue

from pipeline.stage import (
    CauseKind,
    Outputs,
    ReleasePart,
    SecretRef,
    Settled,
    Stage,
    StageContext,
    StageErrored,
    StageFailed,
)
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.fence import Superseded, Tenure, tenure
from stages.clients.kubernetes.ledger import Ledger, last_good, passed_irreversible, state_after, way_back
from stages.clients.kubernetes.records import Head, now
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.undoing import Undoing, number_for

__all__ = ["Release", "ReleaseOutputs"]


class ReleaseOutputs(Outputs):
    """A release that is complete."""

    number: int
    """Its number."""
    name: str
    """As people call it: `his@12`."""


class End(BaseModel):
    """How a leaf ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: str
    kind: str = ""
    message: str = ""

    @property
    def is_left_out(self) -> bool:
        """A condition skipped it: nobody wanted it this time."""
        return self.outcome == "skipped" and self.kind == CauseKind.CONDITION


class Release(Stage[ReleaseOutputs]):
    """Close a release when its deploys have ended; `release:` of a pipeline adds it."""

    target: str
    """What the release goes to."""
    namespace: str
    """Where its releases are kept."""
    secret: Annotated[str, SecretRef(("file",))] = ""
    """The kubeconfig, as for `deploy`."""
    context: str = ""
    """The kubeconfig's context."""
    number: int
    """Its number."""
    on_failure: Literal["keep", "rollback"] = "keep"
    """What happens when a deploy failed."""
    parts: Mapping[str, End]
    """How each deploy ended."""
    allowed: tuple[str, ...] = ()
    """Deploys that may fail."""
    irreversible: Mapping[str, End] = {}
    """How the stages ended that cannot be undone."""

    inner: ClassVar[bool] = True
    default_timeout: ClassVar[timedelta] = timedelta(hours=12)
    """Each rollout of a way back has a limit of its own."""
    heavy: ClassVar[tuple[str, ...]] = ("stages.clients.kubernetes.sdk",)

    async def run(self, ctx: StageContext) -> ReleaseOutputs:
        """Say how the release ended; if it failed, go back to the last good one where that is wanted and possible."""
        async with await connect(ctx, self.secret, self.context) as cluster:
            try:
                return await self._close(ctx, cluster)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:  # noqa: ARG002
        """Going back is done again as a whole, which changes nothing that is done."""
        return Settled("absent", message=f"'{key}' is done again")

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:  # noqa: ARG002
        """What was closed stays closed."""
        return ""

    async def _close(self, ctx: StageContext, cluster: Cluster) -> ReleaseOutputs:
        ledger = Ledger(cluster, self.namespace, self.target)
        heads = await ledger.heads()
        if self.number not in heads:
            raise StageFailed(f"the record of {self.target}@{self.number} is gone from {self.namespace}")
        ended = _Ended(self, ctx, ledger, heads)
        part = ReleasePart(target=self.target, namespace=self.namespace, number=self.number)
        try:
            async with tenure(ctx, cluster, part, closing=True) as held:
                try:
                    return await ended.failed(held) if ended.missing else await ended.complete()
                finally:
                    await held.leave(cluster)
        except Superseded as newer:
            if not ended.missing:  # the newer one came when this was whole
                return await ended.complete()
            await ended.superseded(newer)
            raise


class _Ended:
    """A release whose deploys have all ended."""

    def __init__(self, asked: Release, ctx: StageContext, ledger: Ledger, heads: Mapping[int, Head]) -> None:
        self.asked, self.ctx, self.ledger, self.heads = asked, ctx, ledger, heads
        self.head = heads[asked.number]
        self.done = [name for name, end in asked.parts.items() if end.outcome == "succeeded"]
        self.missing = [
            name
            for name, end in asked.parts.items()
            if name not in self.done and name not in asked.allowed and not end.is_left_out
        ]
        self.passed = tuple(name for name, end in asked.irreversible.items() if end.outcome != "skipped")

    async def complete(self) -> ReleaseOutputs:
        """Everything that was to be deployed is."""
        state = state_after(self.heads, self.head, self.done)
        closed = await self.ledger.close(self.head.number, "complete", state=state, irreversible=self.passed)
        await self.ledger.forget({**self.heads, closed.number: closed})
        self.ctx.log(f"{closed.name} is complete: {len(self.done)} deploys")
        return ReleaseOutputs(number=closed.number, name=closed.name)

    async def failed(self, held: Tenure) -> NoReturn:
        """Keep it or go back; red in any case, the reason first."""
        if self.head.outcome == "rolled back":  # before this engine took the run
            raise StageFailed(self.head.message)
        if by := self.ctx.run.cancelled_by:
            raise await self._cancelled(by)
        good = last_good(self.heads, self.head)
        if self.asked.on_failure == "keep":
            raise await self._partial(way_back(self.heads, self.head))
        if not await self.ledger.parts([self.head.number]):
            raise await self._partial("Nothing was written, so nothing had to be put back")
        if good is None:
            raise await self._partial("It stays as it is: there is no good release before it to go back to")
        here = self.head.model_copy(update={"irreversible": self.passed})
        if passed := passed_irreversible({**self.heads, here.number: here}, good, here.number):
            raise await self._partial(
                f"It is not rolled back: between here and {good.name} lies what cannot be undone: {', '.join(passed)}."
                f" `pipe rollback {good.name} --past-irreversible` goes back all the same"
            )
        raise await self._go_back(held, good)

    async def _cancelled(self, by: str) -> StageFailed:
        await self._close_partial(f"cancelled; missing: {', '.join(self.missing)}")
        missing = ", ".join(self.missing)
        return StageFailed(
            f"{self.head.name} is partial: cancelled by {by}; missing: {missing}. {way_back(self.heads, self.head)}",
            kind=CauseKind.CANCELLED_BY,
            evidence=[by],
        )

    async def superseded(self, newer: Superseded) -> None:
        """A newer run went there before all was deployed."""
        await self._close_partial(str(newer))

    async def _close_partial(self, message: str) -> None:
        state = state_after(self.heads, self.head, self.done)
        await self.ledger.close(self.head.number, "partial", message, state=state, irreversible=self.passed)

    async def _partial(self, what: str) -> StageFailed:
        await self._close_partial(f"{self._reason}; missing: {', '.join(self.missing)}")
        return StageFailed(f"{self._reason}. {self.head.name} is partial. {what}", evidence=self._evidence())

    async def _go_back(self, held: Tenure, good: Head) -> StageFailed | StageErrored:
        await held.undo(self.ledger.cluster)
        number = await number_for(self.ctx, self.ledger)
        back = self.head.model_copy(
            update={
                "number": number,
                "turn": held.turn,
                "restores": good.number,
                "commit": good.commit,
                "why": f"{self.head.name} failed",
                "parts": (),
                "time": now(),
            }
        )
        undoing = Undoing(self.ctx, self.ledger, held, self.heads)
        done = await undoing.back(back)
        how = f"rolled back to {good.name} as {back.name}: {done}"
        message = f"{self._reason}. {self.head.name} is {how}" + (f", but {done.failure}" if done.failure else "")
        await self.ledger.close(self.head.number, "rolled back", message, undone_by=number)
        for word in done.words:
            self.ctx.warn(word)
        services = [f"put back: {name}" for name in done.services]
        removed = [f"removed: {ref}" for ref in done.removed]
        return StageFailed(message, evidence=[*self._evidence(), *services, *removed, *done.words])

    @property
    def _reason(self) -> str:
        """The first deploy that failed of itself, and why."""
        by_weight = sorted(self.missing, key=lambda name: self.asked.parts[name].outcome in ("cancelled", "skipped"))
        first = self.asked.parts[by_weight[0]]
        more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
        return f"{by_weight[0]} {first.outcome}: {first.message}{more}"

    def _evidence(self) -> Sequence[str]:
        ends = self.asked.parts
        return [f"{name} {ends[name].outcome}: {ends[name].message}" for name in self.missing]
