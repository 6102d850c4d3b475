"""`pipe logs`: the output of a run or of one stage, as it is kept, and while it grows."""

import os
import sys
import time
from collections.abc import Callable, Iterable

from pipeline.errors import PipeError, hinted
from runner.commands.where import where
from runner.runs import Run
from runner.sinks.groups import groups_for
from runner.sinks.plain import Plain
from runner.sinks.view import RunView, cleaned
from runner.state import LeafState

__all__ = ["logs"]


def logs(words: str, stage: str, attempt: int, server: str, *, follow: bool, raw: bool) -> int:
    """Print the log of a leaf, or those of a whole run in whole lines behind their leaves' names.

    A leaf's comes byte for byte, but on a terminal without `raw` nothing in it can move the cursor or hide text.

    Raises:
        PipeError: there is no such run, leaf or attempt.
    """
    run = where(server).find(words)
    if not stage and raw:
        raise PipeError("--raw is for the log of one leaf: name it")
    show = _as_it_is if raw or not sys.stdout.isatty() else _inert
    return _one(run, stage, attempt, show, follow=follow) if stage else _all(run, follow=follow)


def _as_it_is(blocks: Iterable[bytes]) -> None:
    for block in blocks:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


def _inert(blocks: Iterable[bytes]) -> None:
    for text in cleaned(blocks):
        sys.stdout.write(text)
        sys.stdout.flush()


def _all(run: Run, *, follow: bool) -> int:
    view = None
    renderer = Plain(sys.stdout, groups_for(os.environ))
    for record in run.follow(logs=True, wait=follow):
        if record is not None:
            view = view or RunView(run.plan(), run.logs)
            view.state.apply(record)
            renderer.record(view, record)
        else:
            renderer.frame(time.time())
    if view is None:
        raise PipeError(f"{run.name} has no logs: {run.summary().status}")
    renderer.finish()
    return 0


def _one(run: Run, stage: str, attempt: int, show: Callable[[Iterable[bytes]], None], *, follow: bool) -> int:
    if follow:
        _wait_for_begin(run)
    plan = run.plan()
    known = [leaf.name for leaf in (*plan.leaves, *plan.finally_)]
    if leaves := [leaf.name for leaf in plan.leaves if leaf.stage == stage != leaf.name]:
        raise PipeError(f"{stage} is fanned out: name one of {', '.join(leaves)}")
    if stage not in known:
        raise PipeError(hinted(f"{run.name} has no leaf '{stage}'", stage, known))
    leaf = _until(run, stage, _has_begun) if follow else run.state().leaf(stage)
    number = attempt or leaf.attempt
    if not 0 < number <= leaf.attempt:
        raise PipeError(_why_none(leaf, attempt))
    while True:
        show(run.log(stage, number, follow=follow))
        if not follow or attempt or not _goes_on(run, stage, number):
            return 0
        number += 1


def _wait_for_begin(run: Run) -> None:
    """Return when there is a plan; a run on a server may wait for its start."""
    for record in run.follow():
        if record is not None:
            return


def _has_begun(leaf: LeafState) -> bool:
    return bool(leaf.attempt or leaf.outcome)


def _goes_on(run: Run, stage: str, number: int) -> bool:
    """Wait until another attempt has begun, or it is sure that none will."""
    leaf = _until(run, stage, lambda leaf: bool(leaf.attempt > number or leaf.outcome))
    if not leaf.outcome and leaf.attempt == number:
        sys.stderr.write(f"pipe: the engine of the run died; {stage} has no end\n")
    return leaf.attempt > number


def _until(run: Run, stage: str, holds: Callable[[LeafState], bool]) -> LeafState:
    """A leaf once something holds of it, or nobody is there any more to make it so."""
    state = run.state()
    if holds(state.leaf(stage)):
        return state.leaf(stage)
    for record in run.follow(state):
        if record is not None:
            state.apply(record)
        if holds(state.leaf(stage)):
            break
    return state.leaf(stage)


def _why_none(leaf: LeafState, attempt: int) -> str:
    if attempt:
        return f"{leaf.name} has no attempt {attempt}; it had {leaf.attempt or 'none'} so far"
    if leaf.outcome and leaf.cause:
        return f"{leaf.name} has no log: {leaf.outcome}: {leaf.cause.message}"
    return f"{leaf.name} has not started"
