"""`pipe doctor`: why a run failed, on one screen: the cause, what proves it, what to do, and what came of it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
from pydantic import JsonValue

from pipeline.stage import Cause, Outcome
from runner.commands.where import where
from runner.diagnosis import Diagnosis, diagnose, useful, way_out
from runner.runs import Run, Runs
from runner.sinks.tree import clock
from runner.sinks.view import clean, plain_text
from runner.state import LeafState, RunState
from runner.status import Status

__all__ = ["doctor"]

_LOOKED_AT = 100
"""Runs that are looked through for one that failed."""
_TAIL, _LOG = 200, 16
_EVIDENCE_HEAD, _EVIDENCE_TAIL = 8, 32
_NAMES = 3
_WIDTH = 240


@dataclass(frozen=True, slots=True)
class _Seen:
    """One run and what is wrong with it."""

    run: Run
    state: RunState
    how: Status
    found: Diagnosis
    log: Sequence[str]
    """How the log of the first leaf ends, beyond what its cause says already."""


def doctor(words: str, server: str, *, as_json: bool) -> int:
    """Say why a run failed; without words the newest that did. No run, or none that failed, is told and no error."""
    runs = where(server)
    run = runs.find(words) if words else _newest_failed(runs)
    seen = _look(run) if run else None
    if as_json:
        click.echo(json.dumps(_as_json(runs, seen), ensure_ascii=False, indent=2))
        return 0
    for line in _shown(seen) if seen else [_nothing(runs)]:
        click.echo(line)
    return 0


def _newest_failed(runs: Runs) -> Run | None:
    for run in runs.newest("", _LOOKED_AT):
        summary = run.summary()
        if summary.outcome is not Outcome.SUCCEEDED and summary.started and summary.status.word != "running":
            return run
    return None


def _look(run: Run) -> _Seen:
    plan, state = run.plan(), run.state()
    found = diagnose(plan, state)
    first = found.first
    tail = run.logs.tail(first.name, first.attempt, _TAIL) if first and first.attempt else []
    said = [first.cause.message, *first.cause.evidence] if first and first.cause else []
    log = useful((clean(line.encode()) for line in tail), said, _LOG)
    return _Seen(run, state, run.status(state), found, log)


def _nothing(runs: Runs) -> str:
    newest = next(iter(runs.newest("", 1)), None)
    if newest is None:
        return f"There are no runs in {runs.place}. `pipe run FILE` makes one, `pipe init` writes a first FILE."
    return f"None of the newest runs in {runs.place} failed. {newest.name} is {newest.summary().status.word}."


# -- for people ------------------------------------------------------------------------------------


def _shown(seen: _Seen) -> Iterator[str]:
    state, first, name = seen.state, seen.found.first, seen.run.name
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started)) if state.started else "never"
    took = f" after {clock(state.finished - state.started)}" if state.finished else ""
    yield f"{name} {seen.how.word}{took}, started {began}"
    if first is None or first.cause is None:
        yield from _without_cause(seen)
    else:
        yield from _cause(seen, first, first.cause)
    yield from _titled("because of it", [*_grouped(seen.found.followed)])
    yield from _titled("failed by itself as well", [*_grouped(seen.found.others)])
    yield from _titled("warnings", [plain_text(warning) for warning in state.warnings])
    yield ""
    yield f"  all of it: pipe show '{name}'" + (f", pipe logs '{name}' '{first.name}'" if first else "")


def _cause(seen: _Seen, first: LeafState, cause: Cause) -> Iterator[str]:
    attempt = f" in attempt {first.attempt}" if first.attempt > 1 else ""
    yield ""
    yield f"✖ {first.name} {first.outcome}{attempt}: {plain_text(cause.message)}"
    yield from _titled("evidence", _shortened(cause.evidence))
    yield from _titled("the end of its log", seen.log)
    yield from _titled("what to do", [_way_out(seen, first, cause)])


def _way_out(seen: _Seen, first: LeafState, cause: Cause) -> str:
    name = seen.run.name
    again = f"`pipe rerun '{name}' --failed` does what did not succeed"
    return way_out(first, cause, again=again, log=f"`pipe logs '{name}' '{first.name}'` shows the whole log")


def _without_cause(seen: _Seen) -> Iterator[str]:
    said = seen.how.note or (f"by {seen.state.cancelled_by}" if seen.state.cancelled_by else "")
    yield ""
    yield f"  {seen.how.word}: {plain_text(said)}" if said else "  nothing in it failed"


def _shortened(lines: Sequence[str]) -> list[str]:
    """Evidence that fits on a screen: its beginning and its end."""
    if len(lines) <= _EVIDENCE_HEAD + _EVIDENCE_TAIL:
        return [*lines]
    between = len(lines) - _EVIDENCE_HEAD - _EVIDENCE_TAIL
    return [*lines[:_EVIDENCE_HEAD], f"… {between} more lines, see --json …", *lines[-_EVIDENCE_TAIL:]]


def _titled(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield f"  {title}"
        yield from (f"    {_cut(plain_text(line))}".rstrip() for line in lines)


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _grouped(leaves: Sequence[LeafState]) -> Iterator[str]:
    """Each end once, with the leaves that ended so."""
    ends: dict[str, list[str]] = {}
    for leaf in leaves:
        ends.setdefault(_end(leaf), []).append(leaf.name)
    for end, names in ends.items():
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        yield f"{', '.join(names[:_NAMES])}{more}  {end}"


def _end(leaf: LeafState) -> str:
    return f"{leaf.outcome}: {leaf.cause.message}" if leaf.cause else str(leaf.outcome)


# -- for programs ----------------------------------------------------------------------------------


def _as_json(runs: Runs, seen: _Seen | None) -> JsonValue:
    return {"place": runs.place, "run": _run_as_json(seen) if seen else None}


def _run_as_json(seen: _Seen) -> JsonValue:
    first, state = seen.found.first, seen.state
    cause = first.cause if first else None
    return {
        "run": seen.run.name,
        "id": state.id,
        "status": seen.how.word,
        "note": seen.how.note,
        "started": state.started,
        "finished": state.finished,
        "cause": _leaf_as_json(first) if first else None,
        "evidence": [*cause.evidence] if cause else [],
        "log": [*seen.log],
        "what_to_do": _way_out(seen, first, cause) if first and cause else "",
        "because_of_it": [_leaf_as_json(leaf) for leaf in seen.found.followed],
        "others": [_leaf_as_json(leaf) for leaf in seen.found.others],
        "warnings": [*state.warnings],
    }


def _leaf_as_json(leaf: LeafState) -> JsonValue:
    kind, message = (leaf.cause.kind.value, leaf.cause.message) if leaf.cause else ("", "")
    return {
        "leaf": leaf.name,
        "outcome": str(leaf.outcome),
        "attempt": leaf.attempt,
        "kind": kind,
        "message": message,
    }
