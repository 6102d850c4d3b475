"""What went wrong in a run: the one cause first, then what came of it. Pure functions of its plan and its state."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.graph import Reach
from pipeline.plan import Plan
from pipeline.stage import Cause, CauseKind, Outcome
from runner.state import LeafState, RunState

__all__ = ["Diagnosis", "diagnose", "useful", "way_out"]

_RED = (Outcome.FAILED, Outcome.ERRORED, Outcome.TIMED_OUT)
_STOPPED = (Outcome.SKIPPED, Outcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The leaf whose cause is the run's, None if none went wrong; leaves in the order of their ends.

    `followed` went wrong or never ran because of it, `others` went wrong by themselves.
    """

    first: LeafState | None
    followed: tuple[LeafState, ...] = ()
    others: tuple[LeafState, ...] = ()


def diagnose(plan: Plan, state: RunState) -> Diagnosis:
    """Find the first leaf that went wrong by itself: none that it waited for had gone wrong before it."""
    needs = {leaf.name: [name for need in leaf.needs for name in need.leaves] for leaf in plan.leaves + plan.finally_}
    reach = Reach(needs)
    ended = sorted((leaf for leaf in state.leaves.values() if leaf.outcome), key=lambda leaf: leaf.ended)
    red = [leaf for leaf in ended if leaf.outcome in _RED and not leaf.allowed]
    roots = [leaf for leaf in red if not any(reach.waits(leaf.name, other.name) for other in red)]
    if not roots:
        return Diagnosis(None, others=tuple(red))
    first = roots[0]
    followed = [leaf for leaf in ended if leaf is not first and _followed(leaf, first, reach)]
    others = [leaf for leaf in red if leaf is not first and leaf not in followed]
    return Diagnosis(first, tuple(followed), tuple(others))


def _followed(leaf: LeafState, first: LeafState, reach: Reach) -> bool:
    """Whether a leaf is not green because of another: it waited for it, or its cause names it."""
    named = leaf.cause is not None and leaf.cause.evidence[:1] == (first.name,)
    waited = reach.waits(leaf.name, first.name)
    return (leaf.outcome in (*_RED, *_STOPPED) and waited) or (leaf.outcome in _STOPPED and named)


def useful(lines: Iterable[str], known: Iterable[str], most: int) -> list[str]:
    """The last lines of a log that say something: no empty ones, no repetitions, none that is known already."""
    told = {line.strip() for line in known}
    kept: list[str] = []
    for line in lines:
        text = line.strip()
        if text and text not in told and not (kept and kept[-1].strip() == text):
            kept.append(line.rstrip())
    return kept[-most:]


_WAYS = {
    CauseKind.INFRA: "when it answers again, {again}",
    CauseKind.CONFIG: "correct what the message names, and run again",
    CauseKind.TIMEOUT: "see what took so long, or give it a longer `timeout:`",
    CauseKind.CANCELLED_BY: "{again}",
    CauseKind.SUPERSEDED_BY: "nothing: the other run takes its place",
    CauseKind.BUG: "please report it, with the lines above",
}
_OF_USER = "mend what the message names; {log}"


def way_out(leaf: LeafState, cause: Cause, *, again: str, log: str) -> str:
    """What to do about the cause of a leaf: what the cause itself says, else what its kind asks for.

    `again` and `log` say how, where this is read, one runs it again and where the whole log is.
    """
    way = _WAYS.get(cause.kind, _OF_USER if leaf.attempt else _WAYS[CauseKind.CONFIG])
    return cause.hint or way.format(again=again, log=log)
