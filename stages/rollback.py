"""`rollback`: what `pipe rollback` runs: a target goes back to an earlier release, all of it or one deploy."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import JsonValue

from pipeline.stage import (
    CauseKind,
    Outputs,
    ReleasePart,
    SecretRef,
    Settled,
    Stage,
    StageContext,
    StageFailed,
)
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.fence import tenure
from stages.clients.kubernetes.ledger import Ledger, last_good, passed_irreversible
from stages.clients.kubernetes.records import Head
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.undoing import Undoing, caller, number_for

__all__ = ["Rollback", "RollbackOutputs"]


class RollbackOutputs(Outputs):
    """The release that a rollback is."""

    number: int
    """Its number."""
    name: str
    """As people call it: `his@13`."""
    restores: str
    """The release that holds again: `his@11`."""


class Rollback(Stage[RollbackOutputs]):
    """Go back to an earlier release; `pipe rollback` makes it."""

    target: str
    """What the releases go to."""
    namespace: str
    """Where they are kept."""
    secret: Annotated[str, SecretRef(("file",))] = ""
    """The kubeconfig, as for `deploy`."""
    context: str = ""
    """The kubeconfig's context."""
    kubeconfig: str = ""
    """The path of the kubeconfig, where it is no secret."""
    to: int = 0
    """The number to go back to; 0: the newest complete release before the newest one."""
    service: str = ""
    """The only deploy that goes back."""
    past_irreversible: bool = False
    """Also over releases with stages that cannot be undone."""

    inner: ClassVar[bool] = True
    default_timeout: ClassVar[timedelta] = timedelta(hours=12)
    """Each rollout has a limit of its own."""
    heavy: ClassVar[tuple[str, ...]] = ("stages.clients.kubernetes.sdk",)

    async def run(self, ctx: StageContext) -> RollbackOutputs:
        """Choose the release, draw a number, put everything back."""
        async with await connect(ctx, self.secret, self.context, self.kubeconfig) as cluster:
            try:
                return await self._back(ctx, cluster)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:  # noqa: ARG002
        """Going back is done again as a whole, which changes nothing that is done."""
        return Settled("absent", message=f"'{key}' is done again")

    async def _back(self, ctx: StageContext, cluster: Cluster) -> RollbackOutputs:
        ledger = Ledger(cluster, self.namespace, self.target)
        to = await self._chosen(ledger, ctx.run.id)
        ctx.log(f"back to {to.name} in {self.namespace} at {cluster.server}")
        number = await number_for(ctx, ledger)
        part = ReleasePart(target=self.target, namespace=self.namespace, number=number)
        async with tenure(ctx, cluster, part, closing=True) as held:
            try:
                heads = {known: each for known, each in (await ledger.heads()).items() if known != number}
                self._refuse_past_irreversible(heads, to)  # the holder that was waited for may have passed one
                head = self._head(ctx, to, number, held.turn)
                undoing = Undoing(ctx, ledger, held, heads)
                done = await undoing.back(head, only=self.service, everything=True)
                await self._mark(ledger, heads, to, number)
            finally:
                await held.leave(cluster)
        for word in done.words:
            ctx.warn(word)
        if done.failure:
            raise StageFailed(f"{head.name} went back to {to.name}, {done}, but {done.failure}")
        ctx.log(f"{head.name} went back to {to.name}: {done}")
        return RollbackOutputs(number=number, name=head.name, restores=to.name)

    def _head(self, ctx: StageContext, to: Head, number: int, turn: int) -> Head:
        return Head(
            target=self.target,
            number=number,
            turn=turn,
            run=f"{ctx.run.pipeline}#{ctx.run.number}",
            run_id=ctx.run.id,
            commit=to.commit,
            by=caller(),
            why=f"back to {to.name}" + (f", {self.service} alone" if self.service else ""),
            restores=to.number,
        )

    async def _mark(self, ledger: Ledger, heads: Mapping[int, Head], to: Head, number: int) -> None:
        """Say of the releases after it that they are undone, and close those that never were complete."""
        if to.undone_by and not self.service:
            await ledger.change(to.number, undone_by=0)
        for head in heads.values():
            if head.order > to.order and not self.service and not head.undone_by:
                outcome = "complete" if head.outcome == "complete" else "rolled back"
                await ledger.change(head.number, outcome=outcome, undone_by=number)

    async def _chosen(self, ledger: Ledger, run: str) -> Head:
        """The release that is meant.

        Raises:
            StageFailed: (config) there is none, it holds nothing, or the way back is blocked.
        """
        heads = await ledger.heads()
        begun = next((head.restores for head in heads.values() if head.run_id == run and head.restores), self.to)
        others = {number: head for number, head in heads.items() if head.run_id != run or not head.restores}
        to = others.get(begun) if begun else _before_the_newest(others)
        if to is None:
            known = ", ".join(head.name for head in others.values() if head.state) or "there are none"
            which = f"{self.target}@{self.to} is not kept" if self.to else "there is no release to go back to"
            raise StageFailed(f"{which} in {self.namespace}; releases: {known}", kind=CauseKind.CONFIG)
        if not to.state:
            raise StageFailed(f"{to.name} never was whole, so nobody can go back to it", kind=CauseKind.CONFIG)
        keys = {name.partition("[")[2].removesuffix("]") or name: name for name in to.state}
        if self.service and self.service not in (*keys, *to.state):
            message = f"{to.name} has no deploy '{self.service}'; it has {', '.join(keys)}"
            raise StageFailed(message, kind=CauseKind.CONFIG)
        self._refuse_past_irreversible(others, to)
        return to

    def _refuse_past_irreversible(self, heads: Mapping[int, Head], to: Head) -> None:
        passed = passed_irreversible(heads, to)
        if passed and not self.past_irreversible:
            message = f"between here and {to.name} lies what cannot be undone: {', '.join(passed)}"
            raise StageFailed(f"{message}. If that is known, add --past-irreversible", kind=CauseKind.CONFIG)


def _before_the_newest(heads: Mapping[int, Head]) -> Head | None:
    """The newest complete release before the newest one that deployed something.

    Where that is a way back which did not come to its end, it is gone once more.
    """
    newest = max((head for head in heads.values() if head.turn), key=lambda head: head.order, default=None)
    if newest and newest.restores and newest.outcome != "complete":
        return heads.get(newest.restores)
    return last_good(heads, newest) if newest else None
