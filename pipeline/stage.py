"""The contract between the engine and a kind of stage; it imports nothing of ours.

A kind is a frozen pydantic model whose fields are its `with:` block, a declared `Outputs` model and
one method, `run`. It gets a `StageContext` with a few capabilities and knows nobody else: no journal,
no console, no sibling.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, PlainSerializer, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

__all__ = [
    "FROM_PLAN",
    "UNSET",
    "Cause",
    "CauseKind",
    "Completed",
    "Duration",
    "Effect",
    "Examined",
    "Exported",
    "Files",
    "Finding",
    "Foreseen",
    "Glob",
    "Login",
    "NoOutputs",
    "Outcome",
    "Outputs",
    "PreflightContext",
    "ReleasePart",
    "RunInfo",
    "Script",
    "Secret",
    "SecretFile",
    "SecretKind",
    "SecretName",
    "SecretRef",
    "SecretText",
    "Settled",
    "Severity",
    "Stage",
    "StageContext",
    "StageErrored",
    "StageFailed",
    "Surroundings",
    "doubted",
    "duration_text",
    "is_open",
    "no_program",
    "parse_duration",
    "rewriters",
    "writers",
]

P = ParamSpec("P")
T = TypeVar("T")

# -- how an attempt ends ---------------------------------------------------------------------------


class Outcome(StrEnum):
    """How a stage or a run ended. *failed*: it says no; *errored*: we could not find out."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class CauseKind(StrEnum):
    """Who or what has to change for it to go better next time."""

    USER = "user"
    INFRA = "infra"
    CONFIG = "config"
    DEPENDENCY = "dependency"
    CONDITION = "condition"
    CANCELLED_BY = "cancelled-by"
    SUPERSEDED_BY = "superseded-by"
    TIMEOUT = "timeout"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an end is not green: a kind, one line for people, the lines that prove it, and the way out if it is known."""

    kind: CauseKind
    message: str
    evidence: tuple[str, ...] = ()
    hint: str = ""


class StageFailed(Exception):
    """The stage says no: outcome *failed*. `kind` is `user` unless the file itself is wrong (`config`)."""

    def __init__(
        self, message: str, *, kind: CauseKind = CauseKind.USER, evidence: Sequence[str] = (), hint: str = ""
    ) -> None:
        super().__init__(message)
        self.cause = Cause(kind, message, tuple(evidence), hint)


class StageErrored(Exception):
    """We could not find out: outcome *errored*, cause `infra`, the only one that `retry` repeats by default."""

    def __init__(self, message: str, *, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.cause = Cause(CauseKind.INFRA, message, tuple(evidence))


# -- what is not known yet --------------------------------------------------------------------------

UNSET = "<unset>"
"""Stands for a variable of the host that is not set, where a plan is only looked at."""


def is_open(text: str) -> bool:
    """Whether a value still holds what only another stage or another host can say, so that it cannot be judged yet."""
    return "${" in text or UNSET in text


# -- field types of a `with:` block ----------------------------------------------------------------

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")


def parse_duration(text: object) -> timedelta:
    """Read `1h30m`, `7d`, `500ms`: units descending, never a bare number.

    Raises:
        ValueError: it is not such a text; the message says how to write one.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(f"{text!r} is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first")
    parts = zip(match.groups(), _UNITS.values(), strict=True)
    try:
        return timedelta(seconds=sum(int(count) * unit for count, unit in parts if count))
    except (OverflowError, ValueError):  # int() refuses thousands of digits
        raise ValueError(f"{text!r} is longer than anybody can wait") from None


def duration_text(value: timedelta) -> str:
    """As a file writes it: `1h30m`."""
    rest = round(value.total_seconds() * 1000)
    text = ""
    for unit, seconds in _UNITS.items():
        count, rest = divmod(rest, round(seconds * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$", "examples": ["5m"]}),
]


class ScriptMark:
    """Marks a field whose text goes to an interpreter and is therefore never substituted."""


Script: TypeAlias = Annotated[str, ScriptMark()]
Glob: TypeAlias = str
"""A pattern relative to the stage's folder: `*`, `?`, `[…]` within a part, `**` across, `!` in front takes away."""

SecretKind: TypeAlias = Literal["text", "login", "file", "ssh"]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Marks a field that names a declared secret, and says which kinds of secret it takes."""

    kinds: tuple[SecretKind, ...]


SecretName: TypeAlias = Annotated[str, SecretRef(("login",))]
"""The name of a login. For other kinds write `Annotated[str, SecretRef(("file",))]`."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Marks an output that stages needing this one see as an environment variable of that name."""

    variable: str


FROM_PLAN: Any = cast("Any", SkipJsonSchema)()
"""Marks a field that the plan fills; `with:` has no such key."""


class ReleasePart(BaseModel):
    """What a stage must know of the release that it is a part of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    """What the releases go to: `his` of `his@12`."""
    namespace: str
    """Where its releases are kept."""
    number: int
    """Which release it is, and the ticket by which runs are ordered: a lower one never goes over a higher one."""


# -- secrets ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class SecretText:
    """A secret of kind `text`."""

    value: str


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A secret of kind `login`."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret of kind `file` or `ssh`: the path of a private file (0600) that lives as long as the attempt."""

    path: Path


Secret: TypeAlias = SecretText | Login | SecretFile

# -- what a stage is given -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Which attempt of which leaf of which run this is. `id` is a ULID, unique everywhere."""

    id: str
    number: int
    pipeline: str
    stage: str
    attempt: int
    cancelled_by: str = ""
    """Who had cancelled the run when the attempt began: it closes what others began, and has a few seconds."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended: its exit code (128 + n after signal n) and, if asked for, its standard output."""

    exit_code: int
    stdout: bytes = b""


class Effect(Protocol):
    """One change to the outside. The intent is on disk before the body of `async with`, the proof after it."""

    @property
    def proven(self) -> Mapping[str, JsonValue] | None:
        """The proof that an earlier attempt of this run left for the same key, else None."""

    def proof(self, value: Mapping[str, JsonValue]) -> None:
        """Say what proves that the change is made, at most 64 KiB of JSON and no secret."""


class Surroundings(Protocol):
    """What may be used before an attempt as well as in one: it reaches outside and changes nothing by itself."""

    @property
    def run(self) -> RunInfo:
        """Identity of the run and of this attempt; before the first one the attempt is 0."""

    @property
    def cache(self) -> Path:
        """A folder of this kind that outlives runs and is shared by parallel ones.

        What lies beside a file `NAME.lock` may be removed as a whole when nobody uses it (`pipeline.locks`). What is
        named `*.part` is on its way, and is removed a day later.
        """

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that this stage's processes get, secrets bound by `secrets:` included."""

    @property
    def manifest_env(self) -> Mapping[str, str]:
        """The part of `env` that the file and the run give (no host base, no secrets): what manifests may name."""

    def log(self, text: str | bytes) -> None:
        """Add to the stage's log, masked. Text gets a newline, bytes are taken as they are. Any thread may call."""

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Say in a few words what is going on now, and how much of it is done (0 to 1). Any thread may call."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        capture: bool = False,
        output: Callable[[bytes], None] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program in the workspace and wait for it; its output goes to the log, block by block.

        `env` is laid over the stage's; `capture` returns stdout (at most 4 MiB) instead of logging it;
        `output` gets the blocks instead of the log, to be read and passed on to it.
        On cancel or time-out the whole tree of processes is gone before this returns.

        Raises:
            StageFailed: `check` and the exit code is not 0, or there is no such program.
        """

    async def call(
        self,
        function: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a blocking function in a thread of this stage's own.

        On cancel the function's attribute `stop`, if it has one, is called from another thread to make it
        return; after two seconds it is left behind.
        """

    def secret(self, name: str) -> Secret:
        """The value of a declared secret that this stage names; it is masked in all output from then on."""

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        """A fact found once a run (a branch's commit) and then the same for every stage, attempt and resume."""


class StageContext(Surroundings, Protocol):
    """All that an attempt at a stage may use."""

    @property
    def workspace(self) -> Path:
        """The run's folder, or the stage's `dir:` in it: base of processes, relative paths and globs."""

    @property
    def root(self) -> Path:
        """The workspace itself, whatever `dir:` says; nothing a stage reads or writes lies outside of it."""

    def effect(self, key: str, intent: Mapping[str, JsonValue]) -> AbstractAsyncContextManager[Effect]:
        """Make one change to the outside, named by a natural `key` (`push registry/x:tag`), without the attempt.

        A cancel waits inside the body, at most 8 seconds.
        """

    async def tool(self, name: str, ask: Callable[[], Awaitable[str]]) -> None:
        """Note which version of a tool the stage works with. It never decides an outcome: no answer is no note."""

    def publish(self, what: Literal["junit"], pattern: Glob) -> None:
        """Say where reports of a known sort will lie in the workspace when the stage ends."""

    def warn(self, message: str) -> None:
        """Tell people something that does not change the outcome; it stands at the end of the run too."""


# -- what a kind gives ------------------------------------------------------------------------------


class Outputs(BaseModel):
    """What later stages may name as `${stages.S.NAME}`; at most 64 KiB, never a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoOutputs(Outputs):
    """For kinds that have none."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the outside says about an intent without proof."""

    state: Literal["done", "absent", "unknown"]
    proof: Mapping[str, JsonValue] = field(default_factory=dict)
    message: str = ""


# -- before anything runs --------------------------------------------------------------------------


class Severity(StrEnum):
    """How sure a finding is. Only what *will* fail, when it is reached, ends a run before it has begun."""

    FAILS = "will fail"
    MAY_FAIL = "may fail"
    UNKNOWN = "could not be checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that nobody can tell yet, about a stage that has not run."""

    severity: Severity
    cause: Cause
    place: str = ""
    """`file:line` of a file in the workspace."""
    about: str = ""
    """What it is about: `Service his/web`."""
    source: str = ""
    """Who says so: `the registry r.example`."""
    hint: str = ""
    """The way out."""


class Files(Protocol):
    """The files of a workspace, as they are or as they will be; paths are relative, with `/`. All of it blocks."""

    @property
    def where(self) -> str:
        """What messages call it: a folder, or a repository at a commit."""

    def names(self, below: str = "") -> Iterable[str]:
        """Every file in a folder and in those inside of it; none if there is no such folder."""

    def read(self, name: str) -> bytes:
        """The content of a file; raises OSError as `open` does, also for a link that leads out."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a stage is going to give, as far as that is known before it runs."""

    outputs: Outputs | None = None
    """As `run` will return them, with placeholders of the right form for `made`."""
    made: frozenset[str] = frozenset()
    """Outputs that only the work itself can know."""
    files: Callable[[], Awaitable[Files]] | None = None
    """Fetches what it is going to put into the workspace, so that others can read it now."""
    folder: str = "."
    """Where in the workspace that will be."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a look ahead brought."""

    findings: Sequence[Finding] = ()
    checked: Sequence[str] = ()
    """What was looked at and is well, in a few words each."""
    touches: Mapping[str, str] = field(default_factory=dict)
    """What the stage would change outside, by name, and a fingerprint of how that is now; never a secret."""
    intends: Sequence[str] = ()
    """What it will do that its file does not show, a sentence each: `ConfigMap his/old is deleted`."""


class PreflightContext(Surroundings, Protocol):
    """All that a look ahead may use. Nothing outside is changed, not even for a moment."""

    @property
    def earlier(self) -> Mapping[str, "type[Stage[Outputs]]"]:
        """The leaves that this one needs, directly or through others, and the kind of each."""

    async def files(self) -> Files:
        """What the stage will find in its folder, as the checkouts before it bring it.

        Where that cannot be known yet the look ends here, and is told as one that could not be made.

        Raises:
            StageFailed: a checkout cannot be done.
            StageErrored: it cannot be found out whether it can.
        """

    async def shared(self, key: str, find: Callable[[], Awaitable[T]]) -> T:
        """Something that the looks at several stages need, found once; an error is raised to all of them."""


def writers(ctx: PreflightContext) -> str:
    """Stages before this one that run programs, and so may make a file that is not there yet; empty: none."""
    return _stages(name for name, kind in ctx.earlier.items() if kind.starts_processes)


def rewriters(ctx: PreflightContext) -> str:
    """Stages before this one that do whatever somebody wrote, and so may change what is there; empty: none."""
    return _stages(name for name, kind in ctx.earlier.items() if kind.scripted)


def no_program(ctx: PreflightContext, name: str) -> Finding:
    """What is to be said of a program that is nowhere on PATH."""
    cause = Cause(CauseKind.CONFIG, f"there is no program '{name}'")
    finding = Finding(Severity.FAILS, cause, hint="install it, or put its folder on PATH")
    return doubted(finding, rewriters(ctx), "installs it")


def doubted(finding: Finding, makers: str, how: str = "makes it") -> Finding:
    """The same, but what will fail as things stand only may when stages before can still mend it.

    Args:
        finding: as it is without them.
        makers: those stages, as `writers` and `rewriters` name them; empty: none.
        how: what they would have to do.
    """
    if finding.severity is not Severity.FAILS or not makers:
        return finding
    hint = f"well if {makers} {how}" + (f"; else {finding.hint}" if finding.hint else "")
    return replace(finding, severity=Severity.MAY_FAIL, hint=hint)


def _stages(leaves: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name.partition("[")[0] for name in leaves))


# -- a kind -----------------------------------------------------------------------------------------

OutputsT = TypeVar("OutputsT", bound=Outputs)


class Stage(BaseModel, ABC, Generic[OutputsT]):
    """A kind of stage. Its docstring's first line is what `pipe kinds` prints; describe every field.

    A field named `into` is the folder of the workspace that the kind fills from outside: a run with such a
    stage has a workspace of its own, and no two stages may fill the same folder. A field named `release`, a
    `ReleasePart` that the plan fills, makes its stages parts of the pipeline's `release:`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        # where text is wanted, a number that `${run.number}` brings is its text
        coerce_numbers_to_str=True,
    )

    inner: ClassVar[bool] = False
    """The program makes its stages itself; a file cannot."""
    computes: ClassVar[bool] = False
    """It works on this machine's cores and takes one of `--jobs`; other kinds wait for somebody else's."""
    pool: ClassVar[tuple[str, int] | None] = None
    """A pool that every stage of this kind holds, and how many may hold it at once."""
    heavy: ClassVar[tuple[str, ...]] = ()
    """Modules that `run` imports and that take long to load: an engine loads them while other stages work."""
    default_timeout: ClassVar[timedelta] = timedelta(hours=1)
    """The limit of an attempt when the file names none."""
    contained: ClassVar[bool] = False
    """It changes nothing but the run's workspace and this machine: a stranger's commit may be run through it."""
    secrets_optional: ClassVar[bool] = False
    """What its fields name as secrets opens more to it, and it works without: a stranger's run leaves them out."""
    starts_processes: ClassVar[bool] = False
    """It works through `ctx.exec`, so that `executor:` can move it elsewhere."""
    scripted: ClassVar[bool] = False
    """It does what its author wrote, so nobody can say beforehand what it changes in the workspace or outside."""
    prepares: ClassVar[bool] = False
    """It only brings here what others work on, so it may begin while the preflight still looks."""

    @classmethod
    def outputs_model(cls) -> type[Outputs]:
        """The declared Outputs, found in the kind's bases: `class Push(Stage[PushOutputs])`."""
        for base in cls.__mro__:
            generic = getattr(base, "__pydantic_generic_metadata__", {})
            if generic.get("origin") is Stage:
                model: type[Outputs] = generic["args"][0]
                return model
        return NoOutputs

    @abstractmethod
    async def run(self, ctx: StageContext) -> OutputsT:
        """Do the work. Raise `StageFailed` to say no and `StageErrored` when it cannot be found out."""

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:  # noqa: ARG002
        """Ask the outside whether an intended effect took place, after the attempt that intended it died."""
        return Settled("unknown", message=f"nobody can say whether '{key}' took place")

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:  # noqa: ARG002
        """Before an earlier result is used again: what of it is not there any more, in a few words; empty if all is.

        `outputs` is what `run` returned then. Raise `StageErrored` when it cannot be found out.
        """
        return ""

    async def foresee(self, ctx: PreflightContext) -> Foreseen:  # noqa: ARG002
        """What `run` is going to give, found in a moment and without it.

        Raise `StageFailed` when it cannot succeed, and `StageErrored` when it cannot be found out.
        """
        return Foreseen()

    async def preflight(self, ctx: PreflightContext) -> Examined:  # noqa: ARG002
        """Look whether `run` can succeed: logins, rights, names, room. Changes nothing anywhere.

        A refusal may be raised as `StageFailed` and an outage as `StageErrored`: both are findings that the
        stage will fail. What it cannot tell is a finding of its own; nothing is guessed.
        """
        return Examined()
