"""The waist: what a run executes, checked, frozen and serialisable; nothing after this reads YAML."""

import re
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.stage import CauseKind, Duration

__all__ = [
    "Cache",
    "Concurrency",
    "Leaf",
    "Limits",
    "Need",
    "NeedWord",
    "Plan",
    "Retry",
    "RunIdentity",
    "SecretSource",
    "Trigger",
    "slug",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NeedWord(StrEnum):
    """What a need asks of the other: `ok` it succeeded; `optional` or a `when:` skipped it; `ended` it ended."""

    OK = "ok"
    OPTIONAL = "optional"
    ENDED = "ended"


class Need(_Frozen):
    """One need of one leaf, expanded to the leaves that it waits for."""

    on: str
    """As written: a stage or one leaf."""
    leaves: tuple[str, ...]
    word: NeedWord = NeedWord.OK
    group: bool = False
    """The leaves of a fan-out as a whole: those skipped by a `when:` do not count, but one must be left."""


class Retry(_Frozen):
    """Further attempts: how many, after which causes, and the first pause, which doubles up to two minutes."""

    times: int = Field(default=0, ge=0, le=20)
    on: tuple[Literal["infra", "timeout", "user"], ...] = ("infra",)
    wait: Duration = Field(default="5s", validate_default=True)

    def repeats(self, cause: CauseKind) -> bool:
        """Whether an attempt that ended for this cause is worth another."""
        return cause.value in self.on


class SecretSource(_Frozen):
    """A declared secret: its kind, and the host variables it may come from instead of the usual ones."""

    kind: Literal["text", "login", "file", "ssh"]
    env: tuple[str, ...] = ()


class Concurrency(_Frozen):
    """Runs of one group exclude each other: a new one waits, or ends the older one."""

    group: str
    busy: Literal["queue", "supersede"] = "queue"


class Limits(_Frozen):
    """What the processes of an attempt may use in all: bytes of memory, and cores."""

    memory: int | None = None
    cpu: float | None = None


class Cache(_Frozen):
    """What is kept between runs as one: paths, and globs of the files whose content says which of them fits."""

    paths: tuple[str, ...]
    key: tuple[str, ...] = ()
    fallback: bool = True
    name: str = ""


class Trigger(_Frozen):
    """Why a run exists; text is empty when unknown."""

    kind: Literal["manual", "push", "tag", "pull_request", "cron", "pipeline", "webhook"] = "manual"
    repo: str = ""
    branch: str = ""
    tag: str = ""
    slug: str = ""
    commit: str = ""
    base: str = ""
    number: str = ""
    title: str = ""
    author: str = ""
    url: str = ""
    fork: bool = False

    @property
    def trusted(self) -> bool:
        """Whether its commit was put into the repository by somebody who may push to it."""
        return not self.fork


def slug(name: str) -> str:
    """A branch or tag as an image tag can hold it: letters, digits, `.`, `_` and `-`, at most 128."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:128]


class RunIdentity(_Frozen):
    """A run's ULID, its display number and how the run before it ended (empty when there was none)."""

    id: str
    number: int
    previous: str = ""
    url: str = ""
    """The page about it of the host that it runs on; empty if there is none."""


class Leaf(_Frozen):
    """One leaf of a stage, or a stage that is not fanned out. Only values that wait for other stages are open."""

    name: str
    """`compile`, or `image[service-hosp]`: unique in the plan, and the key of events, logs and effects."""
    stage: str
    key: str = ""
    title: str = ""
    uses: str
    fields: dict[str, JsonValue] = {}
    """The `with:` block as a form of `pipeline.expressions`: `{"$": ["a ", {"ref": "stages.x.out"}]}` is still open."""
    references: dict[str, tuple[str, str]] = {}
    """Each name that is open in `fields` and `env` → the leaf that has it and the name of its output.

    The outputs `outcome` and `end` (outcome, kind and message of the cause) are every leaf's; a reference to a whole
    fan-out's outcome names the stage, whose worst leaf answers. `run.outcome` (in `finally`) is in here as
    `("", "outcome")`.
    """
    needs: tuple[Need, ...] = ()
    when: str = ""
    """A condition that names `stages.`: decided when the needs are met. Others were decided in the plan."""
    when_values: dict[str, JsonValue] = {}
    """Each name in `when` that is known → its value."""
    when_references: dict[str, tuple[str, str]] = {}
    """Each other name in `when` → leaf and output, as in `references`."""
    skipped: str = ""
    """The condition that was false when the plan was made; empty if the leaf may run."""
    withheld: str = ""
    """Why a run that nobody vouches for leaves it out; empty if it does not."""
    env: dict[str, JsonValue] = {}
    """Variables of the pipeline and the stage: texts, or forms that are still open."""
    secrets: dict[str, str] = {}
    """Variable → `name`, `name.username` or `name.password`."""
    secret_names: tuple[str, ...] = ()
    """Every declared secret that this leaf names, in `secrets` or in a field of its kind."""
    dir: str = ""
    timeout: Duration
    silence: Duration | None = None
    """The longest time without output."""
    resources: Limits | None = None
    retry: Retry = Retry()
    allow_failure: bool = False
    fail_fast: bool = False
    closes: bool = False
    """It brings to an end what others began: a failure that stops the rest of the run does not stop it."""
    pools: tuple[str, ...] = ()
    computes: bool = False
    workspace: Literal["shared", "copy"] = "shared"
    outputs: tuple[str, ...] = ()
    """For `run:`: the names it must write to `$PIPE_OUTPUT`."""
    artifacts: tuple[str, ...] = ()
    """Globs of files in its folder that are kept at the end of an attempt."""
    junit: tuple[str, ...] = ()
    """Globs of the reports of its tests."""
    log: int | None = None
    """Bytes of an attempt's output that are kept; None: as many as usual."""
    cache: tuple[Cache, ...] = ()
    place: str = ""
    """`file:line` of the stage, for messages."""

    @property
    def never(self) -> str:
        """Why the leaf is skipped whatever the others do; empty if it may run."""
        return self.withheld or (f"when: {self.skipped}" if self.skipped else "")


class Plan(_Frozen):
    """Everything a run needs to know, in the order of the file. Secrets are names, never values."""

    version: Literal[1] = 1
    pipeline: str
    file: str
    digest: str = ""
    """SHA-256 of the file's bytes when the plan was made."""
    run: RunIdentity
    trigger: Trigger = Trigger()
    params: dict[str, JsonValue] = {}
    secrets: dict[str, SecretSource] = {}
    pools: dict[str, int] = {}
    timeout: Duration | None = None
    concurrency: Concurrency | None = None
    leaves: tuple[Leaf, ...]
    finally_: tuple[Leaf, ...] = Field(default=(), alias="finally")
    checks_out: bool = False
    """A stage of the plan makes the workspace; else the run works in the caller's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def leaf(self, name: str) -> Leaf:
        """The leaf of that name, in `leaves` or `finally`. Raises KeyError when there is none."""
        for leaf in (*self.leaves, *self.finally_):
            if leaf.name == name:
                return leaf
        raise KeyError(name)
