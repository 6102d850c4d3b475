"""`junit.xml`: a case for each leaf, with its time and the reason of its end, and all that the tests of stages say."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from pipeline.plan import Leaf
from pipeline.stage import CauseKind, Outcome
from runner.folder import RunFolder
from runner.junit import Case, Result, Writer
from runner.sinks.closing import useful_lines
from runner.sinks.view import RunView, plain_text
from runner.state import LeafState

__all__ = ["no_run", "write_tests"]

_RESULTS: dict[Outcome, Result] = {
    Outcome.SUCCEEDED: "passed",
    Outcome.FAILED: "failed",
    Outcome.ERRORED: "errored",
    Outcome.TIMED_OUT: "errored",
    Outcome.CANCELLED: "skipped",
    Outcome.SKIPPED: "skipped",
}


def write_tests(file: IO[str], runs: Sequence[tuple[RunView, RunFolder]], mask: Callable[[str], str]) -> None:
    """Write one report on some runs. There is a case in it whatever became of them, for Jenkins fails on none."""
    writer = Writer(file.write, mask, ", ".join(view.name for view, _ in runs))
    for view, _ in runs:
        began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(view.state.started))
        writer.suite(f"pipe: {view.name}", view.name, began, _cases(view))
    for view, folder in runs:
        for path in _reports(view, folder):
            with path.open(encoding="utf-8") as report:
                writer.copy(report)
    writer.close()


def no_run(file: IO[str], why: str) -> None:
    """Write a report on a run that never began."""
    writer = Writer(file.write, str, "pipe")
    case = Case("pipe", "", "pipe", "the file and the call", result="errored", message=plain_text(why), text=why)
    writer.suite("pipe", "pipe", "", [case])
    writer.close()


def _cases(view: RunView) -> Iterator[Case]:
    for leaf in (*view.plan.leaves, *view.plan.finally_):
        yield _case(view, leaf, view.state.leaf(leaf.name), last=leaf in view.plan.finally_)
    if view.state.cause or not view.plan.leaves:
        message = view.state.cause.message if view.state.cause else ""
        text = "\n".join(view.state.cause.evidence) if view.state.cause else ""
        result: Result = "failed" if message else "passed"
        yield Case(view.name, "", _class(view), "the run as a whole", result=result, message=message, text=text)


def _class(view: RunView) -> str:
    return f"pipe.{view.plan.pipeline}"


def _case(view: RunView, leaf: Leaf, state: LeafState, *, last: bool) -> Case:
    """A leaf as a test. What may fail, and what fails in `finally`, is no reason to call the run's tests red."""
    result = _RESULTS[state.outcome] if state.outcome else "skipped"
    seconds = state.seconds(view.state.finished or view.state.latest)
    case = Case(view.name, "", _class(view), leaf.name, max(0.0, seconds), result)
    if state.cause:
        case.message, case.type = state.cause.message, state.cause.kind.value
    if case.bad:
        case.text = "\n".join((f"{state.outcome}: {case.message}", *map(plain_text, useful_lines(view, state))))
        if state.allowed or last:
            case.result, case.message = "skipped", f"{state.outcome}, and it may be: {case.message}"
    elif not state.outcome:
        case.message, case.type = "the run stopped before it ended", CauseKind.INFRA.value
    elif state.outcome is Outcome.SUCCEEDED and state.attempt > 1 and state.tries:
        case.retried = [("flakyError", f"attempt {state.attempt} was the first to succeed", "", "")]
    elif state.outcome is Outcome.CANCELLED:
        case.message = f"cancelled: {case.message}"
    return case


def _reports(view: RunView, folder: RunFolder) -> Iterator[Path]:
    """What the tests of each leaf's last attempt said."""
    for name, leaf in view.state.leaves.items():
        path = folder.reports(name, leaf.attempt)
        if leaf.tests and path.exists():
            yield path
