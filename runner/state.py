"""`fold(events)`: the one picture of a run that console, pages and resume all read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod

from pydantic import JsonValue

from pipeline.stage import Cause, Outcome
from runner import events
from runner.events import Record

__all__ = ["EffectState", "LeafState", "RunState", "fold", "run_outcome", "worst"]

_WORST_FIRST = (
    Outcome.FAILED,
    Outcome.TIMED_OUT,
    Outcome.ERRORED,
    Outcome.CANCELLED,
    Outcome.SUCCEEDED,
    Outcome.SKIPPED,
)


@dataclass(slots=True)
class EffectState:
    """The last intent of a change and, once it is made, its proof; `earlier` is an older proof of the same intent."""

    stage: str
    intent: Mapping[str, JsonValue]
    proof: Mapping[str, JsonValue] | None = None
    earlier: Mapping[str, JsonValue] | None = None


@dataclass(slots=True)
class LeafState:
    """What is known of one leaf; times are seconds since the epoch, 0 when it has not happened."""

    name: str
    attempt: int = 0
    queued_for: str = ""
    started: float = 0.0
    finished: float = 0.0
    outcome: Outcome | None = None
    cause: Cause | None = None
    allowed: bool = False
    outputs: Mapping[str, JsonValue] = field(default_factory=dict)
    progress: str = ""
    fraction: float | None = None
    tries: int = 0
    """Attempts that ended badly and were followed by another, since it was opened last."""
    again_at: float = 0.0
    """When the next attempt may start; 0 unless the last one ended badly."""
    lost: bool = False
    """Its engine died with it, and it has not been started again."""
    run: int = 0
    """The epoch in which it started: times of different epochs are no span."""
    ended: int = 0
    """The number of the record that ended it: leaves in the order of their ends."""
    kept: list[Mapping[str, JsonValue]] = field(default_factory=list)
    """The artifacts of its last attempt."""
    tests: events.ReportsRead | None = None
    """Of its last attempt."""
    unsteady: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """Tests that failed in an earlier attempt, by class and name."""
    problems: events.ProblemsFound | None = None
    """Of its last attempt."""

    @property
    def running(self) -> bool:
        """It has started and not ended."""
        return self.started > 0 and self.outcome is None

    def cases(self) -> list[Mapping[str, str]]:
        """Tests of its last attempt that failed or are flaky, those too that failed in an attempt before it alone."""
        if self.tests is None:
            return []
        told = {(case["classname"], case["name"]) for case in self.tests.cases}
        earlier = [case for key, case in self.unsteady.items() if key not in told]
        mended = [{**case, "outcome": "flaky"} for case in earlier] if self.outcome is Outcome.SUCCEEDED else []
        return [*self.tests.cases, *mended]

    def seconds(self, now: float) -> float:
        """How long it ran, or has been running."""
        return (self.finished or now) - self.started if self.started else 0.0


class RunState:
    """The state of one run after some of its records."""

    def __init__(self) -> None:
        self.id = ""
        self.number = 0
        self.pipeline = ""
        self.seq = 0
        self.latest = 0.0
        """When something was heard of it last."""
        self.started = 0.0
        self.finished = 0.0
        self.work_began = 0.0
        """When the first stage started."""
        self.outcome: Outcome | None = None
        self.cause: Cause | None = None
        """Why it ended so, where no stage is the reason."""
        self.cancelled_by = ""
        self.superseded = False
        self.queued_behind = ""
        self.leaves: dict[str, LeafState] = {}
        self.facts: dict[str, JsonValue] = {}
        self.effects: dict[tuple[str, str], EffectState] = {}
        self.warnings: list[str] = []
        self.leaks: list[str] = []
        """Where secrets stand that nobody should see."""
        self.preflight: events.RunPreflighted | None = None
        """The last look ahead."""
        self.epoch = 1
        self.begun = events.RunStarted()
        """The words of the call."""

    def leaf(self, name: str) -> LeafState:
        """The state of a leaf, made when it is first heard of."""
        return self.leaves.setdefault(name, LeafState(name))

    def apply(self, record: Record) -> None:
        """Take one more record; what is not known changes nothing."""
        self.seq, self.latest = record.seq, record.time
        self._take(record.event, record.time)

    @singledispatchmethod
    def _take(self, event: events.Event, time: float) -> None:
        pass

    @_take.register
    def _(self, event: events.RunStarted, time: float) -> None:
        self.id, self.number, self.pipeline = event.id, event.number, event.pipeline
        self.started = self.started or time
        self.begun = event

    @_take.register
    def _(self, event: events.RunResumed, time: float) -> None:
        self.epoch, self.outcome, self.cause, self.finished = event.epoch, None, None, 0.0
        if event.reopened:
            self.cancelled_by, self.warnings, self.leaks = "", [], []
            self.started, self.work_began = time, 0.0

    @_take.register
    def _(self, event: events.RunPreflighted, time: float) -> None:  # noqa: ARG002
        self.preflight = event

    @_take.register
    def _(self, event: events.StageQueued, time: float) -> None:  # noqa: ARG002
        self.leaf(event.stage).queued_for = event.pool

    @_take.register
    def _(self, event: events.StageStarted, time: float) -> None:
        self.queued_behind, self.work_began = "", self.work_began or time
        leaf = self.leaf(event.stage)
        leaf.attempt, leaf.queued_for, leaf.progress, leaf.fraction = event.attempt, "", "", None
        leaf.run = self.epoch if not leaf.started else leaf.run
        leaf.started, leaf.again_at, leaf.lost = leaf.started or time, 0.0, False
        leaf.kept, leaf.tests, leaf.problems = [], None, None

    @_take.register
    def _(self, event: events.StageProgressed, time: float) -> None:  # noqa: ARG002
        leaf = self.leaf(event.stage)
        leaf.progress, leaf.fraction = event.text, event.fraction

    @_take.register
    def _(self, event: events.StageRetrying, time: float) -> None:
        leaf = self.leaf(event.stage)
        leaf.progress = f"attempt {event.attempt} {event.outcome}: {event.cause.message}"
        leaf.tries, leaf.again_at = leaf.tries + 1, time + event.delay

    @_take.register
    def _(self, event: events.StageLost, time: float) -> None:  # noqa: ARG002
        leaf = self.leaf(event.stage)
        leaf.started, leaf.progress, leaf.fraction, leaf.queued_for, leaf.lost = 0.0, "", None, "", True

    @_take.register
    def _(self, event: events.RunReopened, time: float) -> None:  # noqa: ARG002
        for name in event.leaves:
            self.leaves[name] = LeafState(name, self.leaf(name).attempt)
        self.effects = {key: effect for key, effect in self.effects.items() if key[0] not in event.leaves}

    @_take.register
    def _(self, event: events.StageFinished, time: float) -> None:
        leaf = self.leaf(event.stage)
        leaf.attempt, leaf.finished, leaf.queued_for, leaf.ended = event.attempt, time, "", self.seq
        leaf.outcome, leaf.cause, leaf.allowed, leaf.outputs = event.outcome, event.cause, event.allowed, event.outputs

    @_take.register
    def _(self, event: events.FilesKept, time: float) -> None:  # noqa: ARG002
        self.leaf(event.stage).kept += event.files

    @_take.register
    def _(self, event: events.ReportsRead, time: float) -> None:  # noqa: ARG002
        leaf = self.leaf(event.stage)
        leaf.tests = event
        failed = (case for case in event.cases if case["outcome"] == "failed")
        leaf.unsteady |= {(case["classname"], case["name"]): case for case in failed}

    @_take.register
    def _(self, event: events.ProblemsFound, time: float) -> None:  # noqa: ARG002
        self.leaf(event.stage).problems = event

    @_take.register
    def _(self, event: events.SecretLeaked, time: float) -> None:  # noqa: ARG002
        where = f"{event.stage}: {event.where}" if event.stage else event.where
        self.leaks += [where] if where not in self.leaks else []

    @_take.register
    def _(self, event: events.EffectIntended, time: float) -> None:  # noqa: ARG002
        before = self.effects.get((event.stage, event.key))
        same = before is not None and before.intent == event.intent
        earlier = (before.proof or before.earlier) if before and same else None
        self.effects[event.stage, event.key] = EffectState(event.stage, event.intent, earlier=earlier)

    @_take.register
    def _(self, event: events.EffectProven, time: float) -> None:  # noqa: ARG002
        known = self.effects.setdefault((event.stage, event.key), EffectState(event.stage, {}))
        known.proof = event.proof

    @_take.register
    def _(self, event: events.FactFound, time: float) -> None:  # noqa: ARG002
        self.facts[event.key] = event.value

    @_take.register
    def _(self, event: events.RunWarned, time: float) -> None:  # noqa: ARG002
        self.warnings.append(f"{event.stage}: {event.message}" if event.stage else event.message)

    @_take.register
    def _(self, event: events.CancelRequested, time: float) -> None:  # noqa: ARG002
        if not self.cancelled_by:
            self.cancelled_by, self.superseded = event.by, event.superseded

    @_take.register
    def _(self, event: events.RunQueued, time: float) -> None:  # noqa: ARG002
        self.queued_behind = event.behind

    @_take.register
    def _(self, event: events.RunFinished, time: float) -> None:
        self.outcome, self.cause, self.finished = event.outcome, event.cause, time


def fold(records: Iterable[Record]) -> RunState:
    """The state after these records, from the first on.

    Raises:
        ValueError: one of them holds what no engine writes: stages can write where journals lie.
    """
    state = RunState()
    for record in records:
        try:
            state.apply(record)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"record {record.seq} holds what no engine writes: {error!r}") from error
    return state


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a fan-out as a whole; of nothing at all it is *skipped*."""
    return min(outcomes, key=_WORST_FIRST.index, default=Outcome.SKIPPED)


def run_outcome(leaves: Iterable[LeafState]) -> Outcome:
    """Of a run that was not cancelled as a whole: its worst failure that is not allowed, else succeeded.

    A leaf that was cancelled because a sibling failed decides nothing: the sibling does.
    """
    ends = {leaf.outcome for leaf in leaves if leaf.outcome and not leaf.allowed}
    return worst((ends - {Outcome.CANCELLED, Outcome.SKIPPED}) | {Outcome.SUCCEEDED})
