"""A rollback is a release of its own: it gets a number, says what it restores, and ends like any other."""

import getpass
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.stage import StageContext
from stages.clients.kubernetes.fence import Tenure, draw
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.ledger import Ledger, state_after, unsettled
from stages.clients.kubernetes.records import Head, Part
from stages.clients.kubernetes.restore import Restored, plan_restore, restore

__all__ = ["Undoing", "caller", "number_for"]


def caller() -> str:
    """Who called the program: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, in a pod say
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


async def number_for(ctx: StageContext, ledger: Ledger) -> int:
    """The number of the release that this stage makes: the same in every attempt and after a crash."""
    place = {"server": ledger.cluster.server, "namespace": ledger.namespace, "target": ledger.target}
    async with ctx.effect(f"ticket {ledger.target}", place) as effect:
        known = (effect.proven or {}).get("number")
        number = known if isinstance(known, int) else await draw(ledger.cluster, ledger.namespace, ledger.target)
        effect.proof({"number": number})
    return number


@dataclass(frozen=True, slots=True)
class Undoing:
    """Going back to a release, by a run that holds the target."""

    ctx: StageContext
    ledger: Ledger
    held: Tenure
    heads: Mapping[int, Head]

    async def back(self, head: Head, *, only: str = "", everything: bool = False) -> Restored:
        """Make the release that `head` announces; what it goes back to is `head.restores`.

        A run that dies meanwhile and goes on does all of it again, which changes nothing that is done.
        """
        await self.ledger.open(head)
        to = self.heads[head.restores]
        plan = plan_restore(
            to, await self._parts(to), self._runs(to), only=only, everything=everything, run=self.ctx.run.id
        )
        guard = Guard(self._ensure)
        done = await restore(self.ctx, self.ledger.cluster, plan, guard)
        outcome = "partial" if done.failure else "complete"
        state = to.state
        if only:
            here = state_after(self.heads, head, ())
            state = {**here, **{service.name: to.state[service.name] for service in plan.services}}
        await self.ledger.close(head.number, outcome, done.failure, state=state)
        return done

    async def _ensure(self) -> None:
        await self.held.confirm(self.ledger.cluster, closing=True)

    async def _parts(self, to: Head) -> list[Part]:
        return await self.ledger.parts([*to.state.values(), *self._since(to)])

    def _runs(self, to: Head) -> list[str]:
        return [self.heads[number].run_id for number in self._since(to)]

    def _since(self, to: Head) -> list[int]:
        """The releases whose work may be there and is not that of `to`."""
        later = [number for number, head in self.heads.items() if head.order > to.order]
        return [*later, *(number for number in unsettled(self.heads) if number not in later)]
