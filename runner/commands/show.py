"""`pipe show`: one run with times, reasons, earlier attempts, and what took longest."""

import json
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import click
from pydantic import JsonValue

from pipeline.graph import critical_path
from pipeline.plan import Plan
from runner import events
from runner.commands.where import where
from runner.events import Record
from runner.findings import lines, read
from runner.sinks.closing import count, test_lines
from runner.sinks.tree import clock, rows
from runner.sinks.view import RunView, plain_text
from runner.sizes import size
from runner.state import LeafState, RunState, fold
from runner.status import Status

__all__ = ["show"]

MOST_FILES = 20


def show(words: str, server: str, *, as_json: bool) -> int:
    """Print one run: its tree with times and reasons, its earlier attempts, and what took longest."""
    run = where(server).find(words)
    plan, records = run.plan(), list(run.records())
    state = fold(records)
    how = run.status(state)
    if as_json:
        click.echo(json.dumps(_as_json(plan, state, how), ensure_ascii=False, indent=2))
        return 0
    for line in _shown(RunView(plan, run.logs, state=state), records, how):
        click.echo(line)
    return 0


def _shown(view: RunView, records: Iterable[Record], how: Status) -> Iterator[str]:
    now = _now(view.state, how)
    for row in rows(view, now):
        said = row.note if row.depth or how.word == "running" else how.word
        note = f"  {said}" if said else ""
        yield f"{'  ' * row.depth}{row.mark} {row.name}  {row.time}{note}".rstrip()
    yield ""
    if how.note and not view.state.outcome:
        yield f"  {how.word}: {how.note}"
    yield from _facts(view, now)
    yield from _attempts(records)
    yield from _left(view)
    for leak in view.state.leaks:
        yield f"  a secret can be read in {plain_text(leak)}"
    for warning in view.state.warnings:
        yield f"  warning: {plain_text(warning)}"
    yield f"  logs: {view.logs.shelf}"


def _now(state: RunState, how: Status) -> float:
    """The moment up to which what has no end has lasted."""
    return time.time() if how.word == "running" else state.finished or state.latest


def _facts(view: RunView, now: float) -> Iterator[str]:
    state = view.state
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started)) if state.started else "never"
    yield f"  started {began}, {view.plan.trigger.kind}, pipe {state.begun.version}, run.id {view.plan.run.id}"
    yield from (f"  {plain_text(line)}" for line in _why(view.plan) if line)
    for name, value in view.plan.params.items():
        yield f"  {name} = {plain_text(value if isinstance(value, str) else json.dumps(value))}"
    if state.preflight:
        yield f"  preflight in {state.preflight.seconds:.1f} s: {state.preflight.checked} thing(s) are well"
        yield from (f"    {plain_text(line)}" for line in lines(map(read, state.preflight.findings)))
    path = _longest(view.plan, state, now)
    if len(path) > 1:
        took = {name: state.leaves[name].seconds(now) for name in path}
        steps = " → ".join(f"{name} {clock(took[name])}" for name in path)
        yield f"  critical path, {clock(sum(took.values()))}: {steps}"


def _why(plan: Plan) -> Iterator[str]:
    """Where the run came from, as far as that is known."""
    trigger = plan.trigger
    place = f"tag {trigger.tag}" if trigger.tag else f"branch {trigger.branch}" if trigger.branch else ""
    onto = f" onto {trigger.base}" if trigger.base else ""
    commit = f"commit {trigger.commit[:12]}" if trigger.commit else ""
    fork = "of a fork" if trigger.fork else ""
    yield ", ".join(filter(None, (place + onto, commit, fork, trigger.repo)))
    request = f"change request {trigger.number}" if trigger.kind == "pull_request" and trigger.number else ""
    author = f"by {trigger.author}" if trigger.author else ""
    yield ", ".join(filter(None, (request, trigger.title, author, trigger.url)))
    yield plan.run.url


def _longest(plan: Plan, state: RunState, now: float) -> tuple[str, ...]:
    ran = {name: leaf.seconds(now) for name, leaf in state.leaves.items() if leaf.started}
    needs = {
        leaf.name: [name for need in leaf.needs for name in need.leaves if name in ran]
        for leaf in plan.leaves
        if leaf.name in ran
    }
    return critical_path(needs, ran) if needs else ()


def _attempts(records: Iterable[Record]) -> Iterator[str]:
    """Every attempt but the last of each leaf, with its end."""
    for record in records:
        match record.event:
            case events.StageRetrying(stage, attempt, outcome, cause):
                yield f"  {stage} attempt {attempt} {outcome}: {plain_text(cause.message)}"
            case events.StageLost(stage, attempt, cause):
                yield f"  {stage} attempt {attempt} lost: {cause.message}"
            case events.RunReopened(leaves):
                yield from (f"  {stage} run again: {plain_text(reason)}" for stage, reason in leaves.items())


def _left(view: RunView) -> Iterator[str]:
    """What the last attempts left: how their tests went, and their artifacts."""
    for leaf in view.state.leaves.values():
        if leaf.tests:
            yield f"  tests of {leaf.name}: {count(leaf)}"
            yield from (f"  {plain_text(line)}" for line in islice(test_lines(leaf, leaf.name), 1, None))
        if leaf.kept:
            total = sum(int(str(file["size"])) for file in leaf.kept)
            yield f"  artifacts of {leaf.name}: {len(leaf.kept)} file(s), {size(total)}"
            for file in leaf.kept[:MOST_FILES]:
                yield f"    {plain_text(str(file['path']))}  {size(int(str(file['size'])))}  sha256:{file['sha256']}"
            if len(leaf.kept) > MOST_FILES:
                yield f"    … and {len(leaf.kept) - MOST_FILES} more, see --json"


def _tests_as_json(leaf: LeafState) -> JsonValue:
    told = leaf.tests
    if told is None:
        return None
    counts: dict[str, JsonValue] = {"total": told.total, "failed": told.failed, "skipped": told.skipped}
    cases: list[JsonValue] = [dict(case) for case in leaf.cases()]
    return {**counts, "flaky": told.flaky, "seconds": told.seconds, "cases": cases}


def _preflight(state: RunState) -> JsonValue:
    if state.preflight is None:
        return None
    findings = [dict(finding) for finding in state.preflight.findings]
    return {"seconds": state.preflight.seconds, "checked": state.preflight.checked, "findings": [*findings]}


def _in_order(plan: Plan, state: RunState) -> Iterator[tuple[str, LeafState]]:
    """The leaves of which there is something to tell, as they stand in the file."""
    for leaf in (*plan.leaves, *plan.finally_):
        if leaf.name in state.leaves:
            yield leaf.name, state.leaves[leaf.name]


def _as_json(plan: Plan, state: RunState, how: Status) -> JsonValue:
    return {
        "run": f"{plan.pipeline}#{plan.run.number}",
        "id": plan.run.id,
        "status": how.word,
        "note": how.note,
        "started": state.started,
        "finished": state.finished,
        "url": plan.run.url,
        "trigger": plan.trigger.model_dump(),
        "params": dict(plan.params),
        "facts": dict(state.facts),
        "warnings": list(state.warnings),
        "leaks": list(state.leaks),
        "preflight": _preflight(state),
        "critical_path": list(_longest(plan, state, _now(state, how))),
        "order": [name for name, _ in _in_order(plan, state)],
        "leaves": {
            name: {
                "outcome": leaf.outcome,
                "allowed": leaf.allowed,
                "attempt": leaf.attempt,
                "seconds": round(leaf.seconds(_now(state, how)), 3),
                "cause": {"kind": leaf.cause.kind, "message": leaf.cause.message} if leaf.cause else None,
                "outputs": dict(leaf.outputs),
                "artifacts": [dict(file) for file in leaf.kept],
                "tests": _tests_as_json(leaf),
                "problems": [dict(problem) for problem in leaf.problems.problems] if leaf.problems else [],
            }
            for name, leaf in _in_order(plan, state)
        },
    }
