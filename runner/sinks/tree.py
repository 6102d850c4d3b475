"""A run as a tree of stages and leaves with their times: the same rows for every console."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.plan import Leaf
from pipeline.stage import Cause, Outcome
from runner.sinks.view import RunView, plain_text
from runner.state import LeafState, worst

__all__ = ["MARKS", "RUNNING", "Row", "clock", "rows"]

MARKS = {
    Outcome.SUCCEEDED: "✔",
    Outcome.FAILED: "✖",
    Outcome.ERRORED: "✖",
    Outcome.TIMED_OUT: "✖",
    Outcome.CANCELLED: "■",
    Outcome.SKIPPED: "↷",
}
RUNNING = "●"
WAITING = "○"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: how deep it is, its mark, name, a note on its state, and how long it took (empty if it did not run)."""

    depth: int
    mark: str
    name: str
    note: str = ""
    time: str = ""
    outcome: Outcome | None = None
    running: bool = False
    leaf: str = ""
    """The leaf whose log this is about; empty for the run and for a fan-out as a whole."""


def clock(seconds: float) -> str:
    """`0.8s`, `12s`, `3m 04s`, `1h 02m`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"


def rows(view: RunView, now: float) -> Iterator[Row]:
    """The run, then each stage in the order of the file; a fan-out is one row with its leaves below."""
    state = view.state
    seconds = (state.finished or now) - state.started if state.started else 0
    mark = MARKS[state.outcome] if state.outcome else RUNNING
    doing = f"waits for {state.queued_behind}" if state.queued_behind else "running"
    doing = f"cancelling: {state.cancelled_by}" if state.cancelled_by else doing
    ended = f"{state.outcome}: {plain_text(state.cause.message)}" if state.cause else state.outcome
    yield Row(0, mark, view.name, ended or doing, clock(seconds), state.outcome, state.outcome is None)
    for _, group in groupby((*view.plan.leaves, *view.plan.finally_), key=lambda leaf: leaf.stage):
        leaves = list(group)
        if leaves[0].key:
            yield _fan_out(leaves, view, now)
        for leaf in leaves:
            yield _leaf(leaf, view.state.leaf(leaf.name), now)


def _leaf(leaf: Leaf, state: LeafState, now: float) -> Row:
    mark = MARKS[state.outcome] if state.outcome else RUNNING if state.running else WAITING
    time = clock(state.seconds(now)) if state.started else ""
    name = f"{leaf.name}  {leaf.title}" if leaf.title else leaf.name
    return Row(
        2 if leaf.key else 1,
        mark,
        plain_text(name),
        plain_text(_note(state)),
        time,
        state.outcome,
        state.running,
        leaf.name,
    )


def _note(state: LeafState) -> str:
    """What is going on, or why the end is not green; the mark already says *failed* and *skipped*."""
    if state.outcome is None:
        return f"waits for {state.queued_for}" if state.queued_for else _progress(state)
    if state.outcome is Outcome.SUCCEEDED:
        return f"attempt {state.attempt}" if state.attempt > 1 else ""
    words = [] if state.outcome in (Outcome.FAILED, Outcome.SKIPPED) else [state.outcome.value]
    words += [f"attempt {state.attempt}"] if state.attempt > 1 else []
    words += ["allowed"] if state.allowed else []
    return f"{', '.join(words)}: {_reason(state.cause)}" if words else _reason(state.cause)


def _progress(state: LeafState) -> str:
    percent = f" {state.fraction:.0%}" if state.fraction is not None else ""
    attempt = f"attempt {state.attempt}: " if state.attempt > 1 else ""
    return f"{attempt}{state.progress}{percent}" if state.running else ""


def _reason(cause: Cause | None) -> str:
    return cause.message if cause else ""


def _fan_out(leaves: Sequence[Leaf], view: RunView, now: float) -> Row:
    states = [view.state.leaf(leaf.name) for leaf in leaves]
    ended = [state.outcome for state in states if state.outcome]
    newest = max((state.run for state in states if state.started), default=0)
    started = [state.started for state in states if state.started and state.run == newest]
    running = any(state.running for state in states)
    whole = worst(ended) if len(ended) == len(leaves) else None
    last = max((state.finished for state in states), default=0) if whole else now
    mark = MARKS[whole] if whole else RUNNING if started else WAITING
    counts = f"{sum(outcome is Outcome.SUCCEEDED for outcome in ended)}/{len(leaves)}"
    time = clock(last - min(started)) if started else ""
    return Row(1, mark, f"{leaves[0].stage}  {counts}", "", time, whole, running)
