"""A run as spans, one for itself and one for each attempt at a leaf: made from its journal, so no engine knows of it.

Names follow OpenTelemetry's conventions for CI/CD (https://opentelemetry.io/docs/specs/semconv/cicd/cicd-spans/),
what they have no name for begins with `pipe.`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod
from urllib.parse import urlsplit, urlunsplit

from ulid_transform import ulid_to_bytes

from pipeline.plan import Plan
from pipeline.stage import Cause, CauseKind, Outcome
from runner import events
from runner.events import Record
from runner.state import RunState
from runner.status import first_red

__all__ = ["RESULTS", "Span", "described", "spans_of", "trace_id"]

RESULTS: Mapping[Outcome, str] = {
    Outcome.SUCCEEDED: "success",
    Outcome.FAILED: "failure",
    Outcome.ERRORED: "error",
    Outcome.TIMED_OUT: "timeout",
    Outcome.CANCELLED: "cancellation",
    Outcome.SKIPPED: "skip",
}
"""`cicd.pipeline.result` and `cicd.pipeline.task.run.result`."""
_WRONG = (Outcome.FAILED, Outcome.ERRORED, Outcome.TIMED_OUT)
MOST_EVIDENCE = 10

Value = str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time, in seconds since the epoch. Its `id` is the same whenever it is made."""

    id: int
    name: str
    started: float
    ended: float
    wrong: str = ""
    """Why it went wrong, in a line; empty if it did not."""
    parent: int = 0
    """0: it is the run itself."""
    attributes: Mapping[str, Value] = field(default_factory=dict)


def trace_id(run: str) -> int:
    """The trace of a run: the 128 bits of its ULID, so that each can be found by the other."""
    try:
        return int.from_bytes(ulid_to_bytes(run))
    except ValueError:  # a run of somebody else's making
        return int.from_bytes(hashlib.sha256(run.encode()).digest()[:16])


def spans_of(records: Iterable[Record], plan: Plan) -> list[Span]:
    """The spans of a run that has ended, the run's own one first; of one that was opened again those since then.

    Empty while it has no end.
    """
    fold = _Fold(plan)
    for record in records:
        fold.apply(record)
    return fold.spans()


def described(plan: Plan, url: str = "") -> dict[str, Value]:
    """What is true of all spans of a run; `url` is its page."""
    trigger = plan.trigger
    known = {
        "cicd.pipeline.name": plan.pipeline,
        "cicd.pipeline.run.id": plan.run.id,
        "cicd.pipeline.run.url.full": url,
        "vcs.repository.url.full": _without_login(trigger.repo),
        "vcs.ref.head.name": trigger.branch or trigger.tag,
        "vcs.ref.head.type": "branch" if trigger.branch else "tag" if trigger.tag else "",
        "vcs.ref.head.revision": trigger.commit,
        "vcs.ref.base.name": trigger.base,
        "vcs.change.id": trigger.number if trigger.kind == "pull_request" else "",
        "vcs.change.title": trigger.title,
        "pipe.trigger.kind": trigger.kind,
    }
    return {"pipe.run.number": plan.run.number, **{name: value for name, value in known.items() if value}}


def _without_login(url: str) -> str:
    """A URL as anybody may see it."""
    parts = urlsplit(url) if url.startswith(("http://", "https://")) else None
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts else url


class _Fold:
    """The attempts of a run as far as they have been heard of."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._state = RunState()
        self._kinds = {leaf.name: leaf.uses for leaf in (*plan.leaves, *plan.finally_)}
        self._opened = 0
        """How often the run was opened again: each time has spans of its own."""
        self._began = 0.0
        self._running: dict[str, float] = {}
        self._attempts: list[Span] = []

    def apply(self, record: Record) -> None:
        """Take one more record."""
        self._state.apply(record)
        self._take(record.event, record.time)

    def spans(self) -> list[Span]:
        """All of them, if the run has ended."""
        state = self._state
        if state.outcome is None:
            return []
        red = first_red(state) if state.outcome in _WRONG else None
        attributes = {"cicd.pipeline.action.name": "RUN", "cicd.pipeline.result": RESULTS[state.outcome]}
        attributes |= {"pipe.cancelled_by": state.cancelled_by} if state.cancelled_by else {}
        cause = red.cause if red else None
        root = Span(
            self._root,
            f"RUN {self._plan.pipeline}",
            self._began,
            state.finished,
            _wrong(state.outcome, cause),
            attributes={**attributes, **_explained(state.outcome, cause)},
        )
        return [root, *self._attempts]

    @property
    def _root(self) -> int:
        return self._id("run")

    def _id(self, *words: object) -> int:
        named = "\0".join(map(str, (self._plan.run.id, self._opened, *words)))
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8])

    @singledispatchmethod
    def _take(self, event: events.Event, time: float) -> None:
        pass

    @_take.register
    def _(self, event: events.RunStarted, time: float) -> None:  # noqa: ARG002
        self._began = self._began or time

    @_take.register
    def _(self, event: events.RunResumed, time: float) -> None:
        if event.reopened:
            self._opened, self._began = self._opened + 1, time
            self._attempts, self._running = [], {}

    @_take.register
    def _(self, event: events.StageStarted, time: float) -> None:
        self._running[event.stage] = time

    @_take.register
    def _(self, event: events.StageRetrying, time: float) -> None:
        self._ended(event.stage, event.attempt, time, event.outcome, event.cause)

    @_take.register
    def _(self, event: events.StageLost, time: float) -> None:
        self._ended(event.stage, event.attempt, time, Outcome.ERRORED, event.cause)

    @_take.register
    def _(self, event: events.StageFinished, time: float) -> None:
        self._ended(event.stage, event.attempt, time, event.outcome, event.cause)

    def _ended(self, leaf: str, attempt: int, time: float, outcome: Outcome, cause: Cause | None) -> None:
        """One more attempt; a leaf that never started has a span without length, which says why."""
        attributes = {
            "cicd.pipeline.task.name": leaf,
            "cicd.pipeline.task.run.id": f"{self._plan.run.id}/{leaf}/{attempt}",
            "cicd.pipeline.task.run.result": RESULTS[outcome],
            "pipe.stage.kind": self._kinds.get(leaf, ""),
            "pipe.attempt": attempt,
            **_explained(outcome, cause),
        }
        began = self._running.pop(leaf, time)
        name = self._id(leaf, attempt)
        self._attempts.append(Span(name, leaf, began, time, _wrong(outcome, cause), self._root, attributes))


def _wrong(outcome: Outcome, cause: Cause | None) -> str:
    return (cause.message if cause else str(outcome)) if outcome in _WRONG else ""


def _explained(outcome: Outcome, cause: Cause | None) -> dict[str, Value]:
    """The cause, and who has to do something about it; `error.type` where something went wrong."""
    wrong = {"error.type": str(cause.kind if cause else CauseKind.BUG)} if outcome in _WRONG else {}
    if cause is None:
        return {**wrong}
    told = {"pipe.cause.kind": str(cause.kind), "pipe.cause.message": cause.message}
    return {**wrong, **told, "pipe.cause.evidence": cause.evidence[:MOST_EVIDENCE]}
