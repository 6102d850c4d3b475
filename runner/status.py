"""How a run is, told from its folder by whoever looks: an outcome, running, died, or not heard for a while."""

from dataclasses import dataclass

from pipeline.stage import CauseKind, Outcome
from runner.folder import RunFolder
from runner.state import LeafState, RunState

__all__ = ["Status", "doing", "ended", "first_red", "status"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a run is in a word, and what more there is to say."""

    word: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.word}; {self.note}" if self.note else self.word


def status(folder: RunFolder, name: str, state: RunState) -> Status:
    """How a run is: an outcome, `running`, `died`, or `not heard for 20 s` when its engine is elsewhere."""
    if (end := ended(state)) is not None:
        return end
    owner = folder.ownership.owner()
    if owner and owner.alive():
        return Status("running", doing(state) or f"{owner}")
    go_on = f"`pipe resume '{name}'` goes on with it, `pipe cancel '{name}'` ends it"
    if owner and not owner.is_here():
        return Status(f"not heard for {owner.silent():.0f} s", f"{owner}; {go_on}")
    return Status("died", go_on)


def ended(state: RunState) -> Status | None:
    """How a run ended, and the first reason why it is not green; None when it has no end."""
    return Status(str(state.outcome), _first_reason(state)) if state.outcome else None


def doing(state: RunState) -> str:
    """What a run is at beside its stages: ending, or waiting for its turn; mostly nothing."""
    if state.cancelled_by:
        return f"cancelling: {state.cancelled_by}"
    return f"waits for {state.queued_behind}" if state.queued_behind else ""


def first_red(state: RunState) -> LeafState | None:
    """The leaf that went wrong first and was not allowed to: its cause is the run's."""
    bad = [leaf for leaf in state.leaves.values() if leaf.outcome and leaf.cause and not leaf.allowed]
    red = [leaf for leaf in bad if leaf.outcome not in (Outcome.SUCCEEDED, Outcome.SKIPPED)]
    return min(red, key=lambda leaf: leaf.ended, default=None)


def _first_reason(state: RunState) -> str:
    if state.cause:
        return state.cause.message
    first = first_red(state) if state.outcome is not Outcome.SUCCEEDED else None
    if first is None or first.cause is None:
        return ""
    of_the_run = first.cause.kind in (CauseKind.CANCELLED_BY, CauseKind.SUPERSEDED_BY)
    return first.cause.message if of_the_run else f"{first.name}: {first.cause.message}"
