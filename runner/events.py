"""What happens in a run, as flat records: the only output of an engine, versioned from the first day.

A minor addition (a new event, a new field with a default) keeps VERSION; readers ignore what they do not know.
"""

import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar, dataclass_transform

from pydantic import JsonValue

from pipeline.stage import Cause, CauseKind, Outcome

__all__ = [
    "CancelRequested",
    "EffectIntended",
    "EffectProven",
    "Event",
    "FactFound",
    "FilesKept",
    "ProblemsFound",
    "Record",
    "ReportPublished",
    "ReportsRead",
    "RunFinished",
    "RunPreflighted",
    "RunQueued",
    "RunReopened",
    "RunResumed",
    "RunStarted",
    "RunWarned",
    "SecretLeaked",
    "StageFinished",
    "StageLost",
    "StageProgressed",
    "StageQueued",
    "StageRetrying",
    "StageStarted",
    "decode",
    "encode",
]

VERSION = 1
_BY_NAME: dict[str, type["Event"]] = {}
E = TypeVar("E", bound="Event")


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `type` is the name on the wire, `free` the fields that hold text from outside."""

    type: ClassVar[str] = ""
    free: ClassVar[tuple[str, ...]] = ()

    def masked(self, mask: Callable[[str], str]) -> "Event":
        """The same event with secrets taken out of its free fields; names of stages and keys are ours."""
        changed = {name: value for name in self.free if (value := _masked(getattr(self, name), mask))}
        return replace(self, **changed) if changed else self


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    match value:
        case str():
            return mask(value)
        case Cause():
            evidence = tuple(map(mask, value.evidence))
            return replace(value, message=mask(value.message), evidence=evidence, hint=mask(value.hint))
        case Mapping():
            return {key: _masked(item, mask) for key, item in value.items()}
        case list() | tuple():
            return [_masked(item, mask) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Record:
    """An event in its place in the journal; `time` is seconds since the epoch, in milliseconds' steps."""

    seq: int
    time: float
    event: Event


@dataclass_transform(frozen_default=True)
def _named(name: str) -> Callable[[type[E]], type[E]]:
    def register(cls: type[E]) -> type[E]:
        made = dataclass(frozen=True, slots=True)(cls)
        made.type = name
        _BY_NAME[name] = made
        return made

    return register


@_named("run.started")
class RunStarted(Event):
    """An engine took the run."""

    id: str = ""
    number: int = 0
    pipeline: str = ""
    host: str = ""
    pid: int = 0
    trigger: str = "manual"
    version: str = ""
    jobs: int = 0
    fail_fast: bool = False
    strict: bool = False
    preflight: bool = True
    private: str = ""
    """The folder for files with secrets on that host; the guardian removes it."""
    folder: str = ""
    """Where it was called: the workspace of a run that checks nothing out."""
    source: Mapping[str, str] = field(default_factory=dict)
    """What `checkout` takes when it has no url."""


@_named("run.resumed")
class RunResumed(Event):
    """Another engine took the run over; the first record of its epoch. What stands behind `after` is void."""

    epoch: int
    after: int
    reopened: bool = False
    """It had ended, and somebody wants some of it again: a cancel of then means nothing now."""
    host: str = ""
    pid: int = 0
    version: str = ""
    private: str = ""


@_named("run.queued")
class RunQueued(Event):
    """The run waits for its turn in its concurrency group."""

    group: str
    behind: str


@_named("run.preflighted")
class RunPreflighted(Event):
    """Somebody looked ahead: what will or may fail, and what could not be told; `checked` is how much is well."""

    free = ("findings",)
    findings: Sequence[Mapping[str, JsonValue]]
    checked: int = 0
    seconds: float = 0.0


@_named("stage.queued")
class StageQueued(Event):
    """The needs are met, but a slot or pool is full."""

    stage: str
    pool: str


@_named("stage.started")
class StageStarted(Event):
    """An attempt began."""

    stage: str
    attempt: int


@_named("stage.progressed")
class StageProgressed(Event):
    """A few words on what is going on; `fraction` of the work that is done, 0 to 1."""

    free = ("text",)
    stage: str
    text: str
    fraction: float | None = None


@_named("effect.intended")
class EffectIntended(Event):
    """About to change the outside; on disk before it happens."""

    free = ("intent",)
    stage: str
    attempt: int
    key: str
    intent: Mapping[str, JsonValue]


@_named("effect.proven")
class EffectProven(Event):
    """The change is made, and this proves it."""

    free = ("proof",)
    stage: str
    attempt: int
    key: str
    proof: Mapping[str, JsonValue]


@_named("fact.found")
class FactFound(Event):
    """A fact found once, the same for the rest of the run."""

    free = ("value",)
    key: str
    value: JsonValue


@_named("report.published")
class ReportPublished(Event):
    """Where reports of a known sort lie in the workspace."""

    stage: str
    what: str
    pattern: str


@_named("files.kept")
class FilesKept(Event):
    """Artifacts of an attempt that lie in the run's folder now; many of them come in several events."""

    free = ("files",)
    stage: str
    attempt: int
    files: Sequence[Mapping[str, JsonValue]]
    """`path` in the stage's folder, `size` in bytes and `sha256` of each."""


@_named("reports.read")
class ReportsRead(Event):
    """What the reports of an attempt say of its tests; `cases` are those to look at, not more than fifty."""

    free = ("cases",)
    stage: str
    attempt: int
    total: int
    failed: int = 0
    skipped: int = 0
    flaky: int = 0
    """Those that failed and then succeeded."""
    seconds: float = 0.0
    cases: Sequence[Mapping[str, str]] = ()
    """`outcome` (failed or flaky), `classname`, `name`, `message` and `line` (where it broke) of each."""


@_named("problems.found")
class ProblemsFound(Event):
    """What compilers say in the log of an attempt that failed; not more than a hundred of `total`."""

    free = ("problems",)
    stage: str
    attempt: int
    total: int
    problems: Sequence[Mapping[str, JsonValue]]
    """`tool`, `level` (error or warning), `file`, `line`, `column`, `message` and `rule` of each."""


@_named("secret.leaked")
class SecretLeaked(Event):
    """A secret stands where anybody can read it: in a file of the run, or among the arguments of a program."""

    free = ("where",)
    where: str
    stage: str = ""


@_named("stage.retrying")
class StageRetrying(Event):
    """An attempt ended badly and another one starts after `delay` seconds."""

    free = ("cause",)
    stage: str
    attempt: int
    outcome: Outcome
    cause: Cause
    delay: float


@_named("stage.lost")
class StageLost(Event):
    """An attempt that had no end when its engine died; another one follows."""

    stage: str
    attempt: int
    cause: Cause


@_named("run.reopened")
class RunReopened(Event):
    """Leaves that had ended are to be run again, each with the reason why. What they did before stays readable."""

    free = ("leaves",)
    leaves: Mapping[str, str]


@_named("stage.finished")
class StageFinished(Event):
    """A leaf ended for good; `attempt` is 0 when it never started, `allowed` when its failure may be."""

    free = ("cause", "outputs")
    stage: str
    attempt: int
    outcome: Outcome
    cause: Cause | None = None
    outputs: Mapping[str, JsonValue] = field(default_factory=dict)
    allowed: bool = False


@_named("run.warned")
class RunWarned(Event):
    """Something that people should know and that does not change the outcome."""

    free = ("message",)
    message: str
    stage: str = ""
    logged: bool = False
    """It stands in the stage's log too."""


@_named("run.cancelling")
class CancelRequested(Event):
    """Somebody or something wants the run to end; `superseded` when it is the run that takes its place."""

    by: str
    superseded: bool = False


@_named("run.finished")
class RunFinished(Event):
    """The last record of a run."""

    free = ("cause",)
    outcome: Outcome
    cause: Cause | None = None
    """Why, where it is not for the end of a stage."""


def _plain(value: object) -> object:
    if isinstance(value, Cause):
        hint = {"hint": value.hint} if value.hint else {}
        return {"kind": value.kind, "message": value.message, "evidence": list(value.evidence), **hint}
    return dict(value) if isinstance(value, Mapping) else value


def encode(record: Record) -> bytes:
    """One line of JSON with its newline."""
    event = record.event
    wire = {"v": VERSION, "seq": record.seq, "time": record.time, "type": event.type}
    wire.update((f.name, _plain(getattr(event, f.name))) for f in fields(event))
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _outcome(value: Any) -> Outcome:
    return Outcome(value)


def _cause(value: Any) -> Cause | None:
    return value and Cause(CauseKind(value["kind"]), value["message"], tuple(value["evidence"]), value.get("hint", ""))


_READERS = types.MappingProxyType({"outcome": _outcome, "cause": _cause})


def decode(line: bytes) -> Record | None:
    """Read one line back; None when its type is newer than this program.

    Raises:
        ValueError: the line is no record (a torn last line after a crash, or what a stage wrote there).
    """
    wire = json.loads(line)
    try:
        cls = _BY_NAME.get(wire["type"])
        if cls is None:
            return None
        seq, moment = wire["seq"], wire["time"]
        if not isinstance(seq, int) or not isinstance(moment, int | float) or not math.isfinite(moment):
            raise ValueError("its number or its time is none")
        known = {f.name for f in fields(cls)}
        values = {name: _READERS.get(name, lambda v: v)(value) for name, value in wire.items() if name in known}
        return Record(seq, moment, cls(**values))
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"it is no record: {error!r}") from error
