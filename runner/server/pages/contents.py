"""What the page of a run tells of its folder: the one cause first, with what proves it and the way out."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipeline.errors import PipeError
from runner.diagnosis import diagnose, useful, way_out
from runner.events import StageRetrying
from runner.folder import RunFolder
from runner.plans import read_plan
from runner.server.artifacts import Left, left_of
from runner.server.users import as_run
from runner.sinks.closing import failed, tested, useful_lines
from runner.sinks.tree import Row, rows
from runner.sinks.view import KeptLogs, RunView
from runner.state import LeafState, RunState, fold

__all__ = ["Blamed", "Contents", "look"]

FILES = 100
"""So many of the files that a run has left are on its page; the API lists them all."""
EXPLAINED = 10
"""Of so many leaves that went wrong, or run, the page shows what their logs say; so many of the last lines are read."""
LONGEST = 500
"""Characters of a line that are shown."""
AGAIN = "start it again"
LOG = "the link leads to its whole log"


@dataclass(frozen=True)
class Blamed:
    """A leaf that is why a run is not green."""

    leaf: LeafState
    lines: Sequence[str] = ()
    """What proves it: evidence, or how its log ends, and what compilers say."""
    way: str = ""
    """What to do about it."""


@dataclass(frozen=True)
class Contents:
    """One run as its page shows it; without stages it has not begun."""

    stages: Sequence[tuple[Row, Sequence[Row]]] = ()
    """Each with its leaves, if it is fanned out."""
    blamed: Sequence[Blamed] = ()
    """The run's own cause first, then what went wrong by itself, then because of it, then what was allowed to."""
    attempts: Sequence[StageRetrying] = ()
    """Those that were followed by another."""
    tests: Sequence[LeafState] = ()
    """The leaves that have reports of tests."""
    saying: Mapping[str, str] = field(default_factory=dict)
    """The last line so far of each leaf that runs."""
    warnings: Sequence[str] = ()
    left: Left = field(default_factory=Left)


def look(folder: RunFolder, works: RunFolder) -> Contents:
    """Read a run from its folder, and what it left from the one where it works. Blocks."""
    try:
        with as_run(folder):
            plan, records = read_plan(folder), list(folder.records())
            state = fold(records)
            view = RunView(plan, KeptLogs(folder), state=state)
            blamed, saying = list(_blamed(view)), dict(_saying(view))
    except PipeError:
        return Contents()
    except ValueError as error:
        return Contents(warnings=[f"its journal is spoiled: {error}"])
    return Contents(
        _stages(rows(view, time.time())),
        blamed,
        [record.event for record in records if isinstance(record.event, StageRetrying)],
        list(tested(state)),
        saying,
        _warnings(state),
        left_of(works, FILES),
    )


def _blamed(view: RunView) -> Iterator[Blamed]:
    found = diagnose(view.plan, view.state)
    red = [found.first, *found.others, *(leaf for leaf in found.followed if failed(leaf))]
    allowed = [leaf for leaf in view.state.leaves.values() if failed(leaf) and leaf.allowed]
    for number, leaf in enumerate([*filter(None, red), *allowed]):
        lines = _shown(partial(useful_lines, view, leaf)) if number < EXPLAINED else ()
        yield Blamed(leaf, lines, way_out(leaf, leaf.cause, again=AGAIN, log=LOG) if leaf.cause else "")


def _saying(view: RunView) -> Iterator[tuple[str, str]]:
    running = [leaf.name for leaf in view.state.leaves.values() if leaf.running]
    for name in running[:EXPLAINED]:
        if said := useful(_shown(partial(view.last_lines, name, EXPLAINED)), (), 1):
            yield name, said[0]


def _shown(read: Callable[[], Iterable[str]]) -> list[str]:
    """Lines of a log, which may go while it is read, as far as a page shows them."""
    try:
        lines = read()
    except OSError as error:
        return [f"its log cannot be read: {error.strerror}"]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST]} …" for line in lines]


def _warnings(state: RunState) -> list[str]:
    leaks = [f"a secret can be read in {leak}: change it, and remove what shows it" for leak in state.leaks]
    return [*leaks, *state.warnings]


def _stages(found: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    stages: list[tuple[Row, list[Row]]] = []
    for row in found:
        if row.depth == 1:
            stages.append((row, []))
        elif row.depth == 2:
            stages[-1][1].append(row)
    return stages
