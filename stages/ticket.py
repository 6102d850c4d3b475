"""`ticket`: the first leaf that `release:` adds: it draws the number of the release and says what it is going to be."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import JsonValue

from pipeline.stage import Foreseen, Outputs, PreflightContext, SecretRef, Settled, Stage, StageContext
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.namespaces import make_namespace
from stages.clients.kubernetes.records import Head
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.undoing import caller, number_for

__all__ = ["Ticket", "TicketOutputs"]


class TicketOutputs(Outputs):
    """What was drawn."""

    number: int
    """The number of the release."""
    name: str
    """As people call it: `his@12`."""


class Ticket(Stage[TicketOutputs]):
    """Draw the number of a release; `release:` of a pipeline adds it."""

    target: str
    """What the release goes to."""
    namespace: str
    """Where its releases are kept; made when it is missing."""
    secret: Annotated[str, SecretRef(("file",))] = ""
    """The kubeconfig, as for `deploy`."""
    context: str = ""
    """The kubeconfig's context."""
    parts: tuple[str, ...] = ()
    """The leaves that are going to deploy."""
    irreversible: tuple[str, ...] = ()
    """The leaves that cannot be undone."""
    why: str = ""
    """What started the run."""
    by: str = ""
    """Who did; unless said, who called the program."""

    inner: ClassVar[bool] = True
    default_timeout: ClassVar[timedelta] = timedelta(minutes=5)
    heavy: ClassVar[tuple[str, ...]] = ("stages.clients.kubernetes.sdk",)

    async def run(self, ctx: StageContext) -> TicketOutputs:
        """Draw the number, then write the head of the release."""
        async with await connect(ctx, self.secret, self.context) as cluster:
            try:
                await make_namespace(ctx, cluster, self.namespace)
                ledger = Ledger(cluster, self.namespace, self.target)
                head = self._head(ctx, await number_for(ctx, ledger))
                await ledger.open(head)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error
        ctx.log(f"{head.name}, for {', '.join(self.parts)}")
        return TicketOutputs(number=head.number, name=head.name)

    async def foresee(self, ctx: PreflightContext) -> Foreseen:  # noqa: ARG002
        """A number that only drawing it gives, so that what is part of the release can be looked at."""
        return Foreseen(TicketOutputs(number=0, name=f"{self.target}@0"), frozenset({"number", "name"}))

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:  # noqa: ARG002
        """A number that was drawn and not written down is a gap that hurts nobody."""
        return Settled("absent", message=f"'{key}': another one is drawn")

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:  # noqa: ARG002
        """It does not get old: whether the run may still deploy is decided at the target."""
        return ""

    def _head(self, ctx: StageContext, number: int) -> Head:
        return Head(
            target=self.target,
            number=number,
            run=f"{ctx.run.pipeline}#{ctx.run.number}",
            run_id=ctx.run.id,
            commit=ctx.manifest_env.get("GIT_COMMIT", ""),
            by=self.by or caller(),
            why=self.why,
            parts=self.parts,
            irreversible=self.irreversible,
        )
