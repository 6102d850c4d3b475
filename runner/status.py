"""How a run is, told from its folder by whoever looks: an outcome, running, died, or not heard for a while."""

from dataclasses import dataclass

from pipeline.stage import Outcome
from runner.folder import RunFolder
from runner.state import RunState

__all__ = ["Status", "status"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a run is in a word, and what more there is to say."""

    word: str
    note: str = ""


def status(folder: RunFolder, name: str, state: RunState) -> Status:
    """How a run is: an outcome, `running`, `died`, or `not heard for 20 s` when its engine is elsewhere."""
    if state.outcome:
        return Status(str(state.outcome), _first_reason(state))
    owner = folder.ownership.owner()
    if owner and owner.alive():
        waits = f"waits for {state.queued_behind}" if state.queued_behind else ""
        ends = f"cancelling: {state.cancelled_by}" if state.cancelled_by else ""
        return Status("running", ends or waits or f"{owner}")
    go_on = f"`pipe resume '{name}'` goes on with it, `pipe cancel '{name}'` ends it"
    if owner and not owner.is_here():
        return Status(f"not heard for {owner.silent():.0f} s", f"{owner}; {go_on}")
    return Status("died", go_on)


def _first_reason(state: RunState) -> str:
    if state.outcome is Outcome.SUCCEEDED:
        return ""
    bad = [leaf for leaf in state.leaves.values() if leaf.outcome and leaf.cause and not leaf.allowed]
    first = next((leaf for leaf in bad if leaf.outcome not in (Outcome.SUCCEEDED, Outcome.SKIPPED)), None)
    return f"{first.name}: {first.cause.message}" if first and first.cause else ""
