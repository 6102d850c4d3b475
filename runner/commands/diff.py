"""`pipe diff`: what is different between two runs."""

import json
import time
from collections.abc import Iterator, Mapping

import click
from pydantic import JsonValue

from pipeline.plan import Plan
from runner.commands.where import where
from runner.sinks.tree import clock
from runner.sinks.view import plain_text
from runner.state import RunState

__all__ = ["diff"]


def diff(before: str, after: str, server: str) -> int:
    """Print what differs between two runs: parameters, commits, tools, outputs, ends, and times."""
    known = where(server)
    found = [known.find(words) for words in (before, after)]
    pairs = [(run.plan(), run.state()) for run in found]
    names = [run.name for run in found]
    lines = list(_differences(*pairs))
    click.echo("\n".join([f"{names[0]} → {names[1]}", *lines]) if lines else f"{names[0]} and {names[1]} do not differ")
    return 0


def _differences(before: tuple[Plan, RunState], after: tuple[Plan, RunState]) -> Iterator[str]:
    (old_plan, old), (new_plan, new) = before, after
    yield from _changed("pipe", {"": old.begun.version}, {"": new.begun.version})
    yield from _changed("file", {"": old_plan.digest[:12]}, {"": new_plan.digest[:12]})
    yield from _changed("param", old_plan.params, new_plan.params)
    yield from _changed("", old.facts, new.facts)
    yield from _changed("outcome", _ends(old), _ends(new))
    yield from _changed("output", _outputs(old), _outputs(new))
    yield from _slower(old, new)


def _changed(what: str, old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            label = f"{what} {name}".strip()
            yield plain_text(f"  {label}: {_text(old.get(name))} → {_text(new.get(name))}")


def _text(value: JsonValue) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ends(state: RunState) -> dict[str, JsonValue]:
    return {name: str(leaf.outcome) for name, leaf in state.leaves.items() if leaf.outcome}


def _outputs(state: RunState) -> dict[str, JsonValue]:
    return {f"{name}.{key}": value for name, leaf in state.leaves.items() for key, value in leaf.outputs.items()}


def _slower(old: RunState, new: RunState) -> Iterator[str]:
    """Leaves that took at least a second and a fifth more or less."""
    for name in new.leaves.keys() & old.leaves.keys():
        was, took = (state.leaves[name].seconds(time.time()) for state in (old, new))
        if abs(took - was) >= max(1.0, was / 5):
            yield f"  time {name}: {clock(was)} → {clock(took)}"
