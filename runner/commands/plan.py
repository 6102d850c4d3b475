"""`pipe plan` and `pipe check`: what a file says, without a network and without starting anything."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import click
from pydantic import JsonValue
from rich.cells import cell_len, set_cell_size

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Need, Plan, RunIdentity
from pipeline.stage import Cause, CauseKind, Outcome
from runner.commands.load import open_call
from runner.hosts import detect
from runner.schedule import End, Schedule
from runner.store import Store

__all__ = ["check", "show", "tree"]


def show(file: str, pipelines: Sequence[str], params: Sequence[str], *, as_json: bool) -> int:
    """Print the plans of the chosen pipelines as trees, or as JSON lines."""
    host = detect(dict(os.environ))
    call = open_call(file, pipelines, params, host)
    store = Store(host.environ, Path.cwd())
    for name in call.pipelines:
        run = RunIdentity(id="<run.id>", number=host.number or store.next_number(name), url=host.url)
        plan = call.plan(name, run, offline=True)
        if as_json:
            click.echo(plan.model_dump_json(by_alias=True, exclude_defaults=True))
        else:
            click.echo("\n".join(tree(plan, never(plan))))
    return 0


def check(files: Sequence[str]) -> int:
    """Print the problems of every file; 0 when there are none."""
    host = detect(dict(os.environ))
    problems: list[str] = []
    for file in files:
        try:
            call = open_call(file, (), (), host)
            for name in call.pipelines:
                call.plan(name, RunIdentity(id="<run.id>", number=1), offline=True)
        except PipeError as error:
            problems.append(str(error))
        else:
            click.echo(f"{file}: ok ({', '.join(call.pipelines)})")
    if problems:
        raise PipeError("\n".join(problems))
    return 0


def tree(plan: Plan, skipped: Mapping[str, str], *, verdicts: bool = False) -> Iterator[str]:
    """A plan for people. `skipped`: leaves that will not run, and why; `verdicts`: say of the others that they run."""
    yield f"{plan.pipeline}  {plan.file}"
    for name, value in plan.params.items():
        yield f"  {name} = {_value(value)}"
    yield ""
    said = {
        leaf.name: f"skipped: {skipped[leaf.name]}" for leaf in (*plan.leaves, *plan.finally_) if leaf.name in skipped
    }
    lines = [
        *_stages(plan.leaves, said, verdicts=verdicts),
        *(["finally"] if plan.finally_ else []),
        *_stages(plan.finally_, said, verdicts=verdicts),
    ]
    widths = [max((cell_len(cells[i]) for cells in lines if isinstance(cells, tuple)), default=0) for i in range(2)]
    for line in lines:
        yield line if isinstance(line, str) else _aligned(line, widths)
    yield ""
    yield _count((*plan.leaves, *plan.finally_), len(said))


def never(plan: Plan) -> dict[str, str]:
    """The leaves that are skipped whatever happens, each with the reason."""
    return {**_never(plan.leaves), **_never(plan.finally_)}


def _value(value: JsonValue) -> str:
    """As `-p` takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _never(leaves: Sequence[Leaf]) -> dict[str, str]:
    """The leaves that are skipped whatever the others say, each with the reason."""
    found: dict[str, str] = {}
    schedule = Schedule(leaves)
    for leaf, never in schedule.ready():
        cause = never or _own_reason(leaf, found)
        if cause:
            found[leaf.name] = cause.message
        schedule.ended(leaf.name, End(Outcome.SKIPPED, cause) if cause else End(Outcome.SUCCEEDED))
    return found


def _own_reason(leaf: Leaf, skipped: Mapping[str, str]) -> Cause | None:
    if leaf.never:
        return Cause(CauseKind.CONDITION, leaf.never, (leaf.name,))
    if source := _missing(leaf, skipped):
        return Cause(CauseKind.DEPENDENCY, f"needs a value of {source}, which is skipped", (source, "skipped"))
    return None


def _missing(leaf: Leaf, skipped: Mapping[str, str]) -> str:
    """A leaf whose output this one cannot do without, and which will not give it."""
    asked = (source for source, output in leaf.references.values() if output != "outcome")
    return next((source for source in asked if source in skipped), "")


def _count(leaves: Sequence[Leaf], skipped: int) -> str:
    stages = len({leaf.stage for leaf in leaves})
    parallel = sum(bool(leaf.key) for leaf in leaves)
    words = [f"{stages} stage{'s' if stages != 1 else ''}"]
    words += [f"{parallel} parallel leaves"] if parallel else []
    words += [f"{skipped} skipped"] if skipped else []
    return ", ".join(words)


def _aligned(cells: Sequence[str], widths: list[int]) -> str:
    padded = [set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*padded, *cells[len(widths) :]]).rstrip()


def _stages(leaves: Sequence[Leaf], said: Mapping[str, str], *, verdicts: bool) -> Iterator[tuple[str, ...]]:
    def word(leaf: Leaf, rest: str = "") -> str:
        condition = said.get(leaf.name) or "; ".join(filter(None, [rest, leaf.when and f"when: {leaf.when}"]))
        return f"run{', ' + condition if condition else ''}" if verdicts and leaf.name not in said else condition

    for stage, group in groupby(leaves, key=lambda leaf: leaf.stage):
        members = list(group)
        first = members[0]
        if not first.key:
            yield f"  {stage}", first.title, first.uses, word(first, _needs(first.needs))
            continue
        yield f"  {stage}", f"{len(members)} leaves", first.uses, _needs(first.needs)
        for leaf in members:
            yield f"    {leaf.name}", leaf.title, word(leaf)


def _needs(needs: Sequence[Need]) -> str:
    words = [_need(need) for need in needs]
    return f"needs {', '.join(words)}" if words else ""


def _need(need: Need) -> str:
    extra = [need.word.value] if need.word.value != "ok" else []
    if need.group:
        extra.append("all")
    return f"{need.on} ({', '.join(extra)})" if extra else need.on
