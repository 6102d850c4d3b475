"""How a run ended, for people: the useful lines of each failure, the tests that failed, the tree, the warnings."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.stage import Outcome
from runner.problems import EXCEPTIONS, Problem, find
from runner.sinks.tree import Row, clock, rows
from runner.sinks.view import RunView, plain_text
from runner.state import LeafState, RunState

__all__ = ["LAST_LINES", "closing", "count", "failed", "problems_of", "test_lines", "tested", "useful_lines"]

LAST_LINES = 50
MOST_PROBLEMS = 20
_GREEN_OR_SKIPPED = (Outcome.SUCCEEDED, Outcome.SKIPPED, Outcome.CANCELLED)


def closing(view: RunView, paint: Callable[[Row], str]) -> Iterator[str]:
    """The end of a run for a console."""
    for leaf in view.state.leaves.values():
        if failed(leaf) and not leaf.allowed:
            yield from _failure(view, leaf)
    yield from _tests(view)
    yield ""
    yield from map(paint, rows(view, time.time()))
    for leak in view.state.leaks:
        yield f"  a secret can be read in {plain_text(leak)}: change it, and remove what shows it"
    for warning in view.state.warnings:
        yield f"  warning: {plain_text(warning)}"
    yield f"  logs: {view.logs.shelf}"


def failed(leaf: LeafState) -> bool:
    """Whether it ended and is neither green, nor skipped, nor cancelled."""
    return leaf.outcome is not None and leaf.outcome not in _GREEN_OR_SKIPPED


def _failure(view: RunView, leaf: LeafState) -> Iterator[str]:
    yield ""
    yield f"---- {_named(view, leaf.name)} {leaf.outcome}: {plain_text(leaf.cause.message) if leaf.cause else ''}"
    for line in useful_lines(view, leaf):
        yield f"  {plain_text(line)}"
    if leaf.cause and leaf.cause.hint:
        yield f"  what to do: {plain_text(leaf.cause.hint)}"


def useful_lines(view: RunView, leaf: LeafState) -> list[str]:
    """What explains a failure, nothing twice: evidence or the end of the log, last what was found in all of it."""
    found = problems_of(leaf)
    lines: Sequence[str] = leaf.cause.evidence if leaf.cause else ()
    lines = lines or view.last_lines(leaf.name, LAST_LINES)
    cases = leaf.tests.cases if leaf.tests else ()
    kept = [line for line in lines[-LAST_LINES:] if not (found and _is_problem(line)) and not _is_case(line, cases)]
    told = found[:MOST_PROBLEMS]
    shown = [str(problem) for problem in told if not _is_shown(problem, kept)]
    total = leaf.problems.total if leaf.problems else 0
    more = [f"… and {total - len(told)} more"] if total > len(told) else []
    return [*kept, *shown, *more]


def problems_of(leaf: LeafState) -> list[Problem]:
    """What compilers complained of in its last attempt."""
    return [Problem(**problem) for problem in leaf.problems.problems] if leaf.problems else []  # type: ignore[arg-type]


def _is_shown(problem: Problem, lines: Sequence[str]) -> bool:
    """Whether an exception stands among these lines with its trace."""
    return problem.tool in EXCEPTIONS and any(line.rstrip().endswith(problem.message) for line in lines)


def _is_problem(line: str) -> bool:
    return next(find([line]), None) is not None


def _is_case(line: str, cases: Sequence[Mapping[str, str]]) -> bool:
    """Whether a line of a build tool names a failed test that is told apart anyway."""
    names = (f"{case['classname'].rpartition('.')[2]}.{case['name']}" for case in cases)
    return line.startswith("[ERROR]") and any(name in line for name in names)


# -- tests -----------------------------------------------------------------------------------------


def tested(state: RunState) -> Iterator[LeafState]:
    """The leaves that have reports of tests."""
    return (leaf for leaf in state.leaves.values() if leaf.tests)


def _tests(view: RunView) -> Iterator[str]:
    lines = [line for leaf in tested(view.state) for line in test_lines(leaf, _named(view, leaf.name))]
    if lines:
        yield ""
        yield from map(plain_text, lines)


def test_lines(leaf: LeafState, name: str) -> Iterator[str]:
    """How the tests of a leaf went; of those that failed or are flaky what they say and where."""
    if leaf.tests is None or not (leaf.tests.failed or leaf.cases()):
        return
    yield f"---- tests of {name}: {count(leaf)}"
    for case in leaf.cases():
        flaky = "flaky: " if case["outcome"] == "flaky" else ""
        message = f": {case['message']}" if case["message"] else ""
        yield f"  {flaky}{case['classname']}.{case['name']}{message}"
        if case["line"]:
            yield f"      {case['line']}"
    told = sum(case["outcome"] == "failed" for case in leaf.tests.cases)
    if leaf.tests.failed > told:
        yield f"  … and {leaf.tests.failed - told} more in junit.xml"


def count(leaf: LeafState) -> str:
    """`3 of 120 failed, 1 flaky, 2 skipped, in 12s`."""
    told = leaf.tests
    if told is None:
        return ""
    flaky = max(told.flaky, sum(case["outcome"] == "flaky" for case in leaf.cases()))
    rest = [f"{number} {word}" for number, word in ((flaky, "flaky"), (told.skipped, "skipped")) if number]
    verdict = f"{told.failed} of {told.total} failed" if told.failed else f"{told.total - told.skipped} passed"
    return ", ".join([verdict, *rest, f"in {clock(told.seconds)}"])


def _named(view: RunView, leaf: str) -> str:
    return f"{view.label}/{leaf}" if view.label else leaf
