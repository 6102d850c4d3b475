"""What a message on a run says: pure functions of its row, and of the first cause in its journal."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row

from pipeline.plan import Trigger
from pipeline.stage import Outcome
from runner.server.courier import Message
from runner.sinks.tree import clock
from runner.sinks.view import plain_text
from runner.state import RunState
from runner.status import first_red

__all__ = ["GREEN", "RED", "message_on", "short_ref", "try_out"]

GREEN = (Outcome.SUCCEEDED.value,)
RED = (Outcome.FAILED.value, Outcome.ERRORED.value, Outcome.TIMED_OUT.value)
"""Outcomes that say that something is wrong; a cancelled run says nothing about it."""
LONGEST_LINE = 300
MOST_EVIDENCE = 3
_SORTS = {"fixed": "success", "succeeded": "success", "waiting": "warning", "cancelled": "info", "skipped": "info"}
# text that is shown in another order than it is written in hides what it says
_TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def message_on(run: "Row[Any]", event: str, state: RunState, link: str) -> Message:
    """What a target is told of a run; `state` is the fold of its journal, an empty one when it has none.

    Names, titles and causes come from outside: each is one line of at most 300 characters without control
    characters. That it is no markup either is the courier's to see to, who knows what its receiver reads.
    """
    word = "waiting for approval" if event == "waiting" else event if event == "fixed" else run.outcome
    ref = short_ref(run.ref)
    title = _line(f"{word}: {run.project} {run.pipeline}#{run.number}{f' ({ref})' if ref else ''}")
    why = (
        [_line(f"pipe approve '{run.project}/{run.pipeline}#{run.number}'")] if event == "waiting" else _why(run, state)
    )
    body = "\n".join((*why, *_facts(run, ref), *([link] if link else [])))
    return Message(title, body, _SORTS.get(event, _SORTS.get(run.outcome, "failure")))


def try_out(project: str, target: str) -> Message:
    """A message that says nothing but that it has come."""
    return Message(f"test: {project}", f"The target '{target}' of the project '{project}' is reached.")


def short_ref(ref: str) -> str:
    """A ref as people write it: the branch's name, `tag v1`, or what it is called in full."""
    if ref.startswith("refs/tags/"):
        return f"tag {ref.removeprefix('refs/tags/')}"
    return ref.removeprefix("refs/heads/")


def _why(run: "Row[Any]", state: RunState) -> Iterator[str]:
    """The first cause in a line, and what shows it."""
    red = run.outcome and run.outcome not in GREEN
    leaf = first_red(state) if red else None
    if red and state.cause:
        yield _line(state.cause.message)
    if leaf and leaf.cause:
        yield _line(f"{leaf.name}: {leaf.cause.message}")
        yield from (f"  {_line(text)}" for text in leaf.cause.evidence[:MOST_EVIDENCE])
        if leaf.cause.hint:
            yield f"  what to do: {_line(leaf.cause.hint)}"
    elif run.note:
        first, *more = run.note.splitlines()
        yield _line(first)
        yield from (f"  {_line(text)}" for text in more[:MOST_EVIDENCE])
    elif red and state.cancelled_by and not state.cause:
        yield _line(f"cancelled by {state.cancelled_by}")


def _facts(run: "Row[Any]", ref: str) -> Iterator[str]:
    trigger = Trigger.model_validate_json(run.trigger)
    known = {
        "pipeline": f"{run.pipeline}#{run.number} of {run.project}",
        "ref": ref,
        "commit": run.commit[:12] + (f" by {trigger.author}" if trigger.author else ""),
        "title": trigger.title,
        "took": clock(run.ended - run.started) if run.started and run.ended else "",
    }
    yield from (_line(f"{name}: {value}") for name, value in known.items() if value)


def _line(text: str) -> str:
    """One line without anything that a screen would obey."""
    whole = _TURNING.sub("", plain_text(text))
    return whole if len(whole) <= LONGEST_LINE else f"{whole[: LONGEST_LINE - 1]}…"
