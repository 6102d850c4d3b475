"""What may be written in a pipeline file: every key with its shape and its description.

The models take what YAML says as texts, lists and maps. JSON schema and documentation come from them too.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import PurePosixPath
from types import GenericAlias
from typing import Annotated, Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from pipeline.errors import quoted
from pipeline.globs import compiled
from pipeline.stage import Duration, Glob, SecretKind

__all__ = [
    "INHERITED",
    "NOT_BUILT",
    "Approval",
    "CronTrigger",
    "Defaults",
    "ParamSpec",
    "PipelineSpec",
    "PipelineTrigger",
    "PullRequestTrigger",
    "PushTrigger",
    "RetrySpec",
    "SecretSpec",
    "StageSpec",
    "TagTrigger",
    "TriggerSpec",
    "Triggers",
    "WebhookTrigger",
    "next_time",
    "not_built",
]

INHERITED: Final = ("params", "secrets", "vars", "env", "defaults", "limits")
"""What may stand beside `pipelines:`, for all of them."""


class _NotBuilt:
    """Marks a key that is part of the language and of no program yet."""


NOT_BUILT: Final = _NotBuilt()

# -- scalars ---------------------------------------------------------------------------------------


def _is_bool(value: object) -> object:
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, bool):
        return value
    raise ValueError(f"'{value}' is neither true nor false" if isinstance(value, str) else "it must be true or false")


def _is_int(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value):
        return int(value)
    raise ValueError(f"'{value}' is not a whole number" if isinstance(value, str) else "it must be a whole number")


def _is_text(value: object) -> object:
    """Numbers and booleans that a single `${…}` brought become the text that they are."""
    return str(value).lower() if isinstance(value, bool | int | float) else value


def _named(pattern: str, rule: str) -> Callable[[str], str]:
    compiled = re.compile(pattern, re.ASCII)

    def check(name: str) -> str:
        if not compiled.fullmatch(name):
            raise ValueError(f"'{name}' is no name here: {rule}")
        return name

    return check


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str | bool | int) else value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("it must be longer than nothing")
    return value


WORD: Final = "small letters, digits and _, a letter first"
IDENTIFIER: Final = "letters, digits and _ (a hyphen would be a minus in conditions), no digit first"
FREE: Final = "letters, digits, `.`, `_` and `-`, a letter or digit first"
FREE_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"

Bool: TypeAlias = Annotated[bool, BeforeValidator(_is_bool)]
Int: TypeAlias = Annotated[int, BeforeValidator(_is_int)]
Text: TypeAlias = Annotated[str, BeforeValidator(_is_text)]
Limit: TypeAlias = Annotated[Duration, AfterValidator(_positive)]

_WORD_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_]*$"})
_FREE_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^{FREE_PATTERN}$"})
_NAME_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})

Word: TypeAlias = Annotated[str, AfterValidator(_named(r"[a-z][a-z0-9_]*", WORD)), _WORD_SCHEMA]
Identifier: TypeAlias = Annotated[str, AfterValidator(_named(r"[A-Za-z_]\w*", IDENTIFIER)), _NAME_SCHEMA]
Free: TypeAlias = Annotated[str, AfterValidator(_named(FREE_PATTERN, FREE)), _FREE_SCHEMA]


def _variable(name: str) -> str:
    if name == "CI" or name.startswith("PIPE_"):
        raise ValueError(f"`{name}` is set by pipe itself")
    return _named(r"[A-Za-z_]\w*", "letters, digits and _, no digit first")(name)


Variable: TypeAlias = Annotated[str, AfterValidator(_variable), _NAME_SCHEMA]


def _positive_count(size: int) -> int:
    if size < 1:
        raise ValueError("it must be 1 or more")
    return size


Pools: TypeAlias = Annotated[
    tuple[Free, ...], BeforeValidator(_one_or_more, json_schema_input_type=Free | tuple[Free, ...])
]
Stages: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...])
]
Value: TypeAlias = Any
"""Texts, lists and maps, free in shape."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# -- needs -----------------------------------------------------------------------------------------

NeedWordText: TypeAlias = Literal["ok", "optional", "ended", "all"]


def _needs(value: object) -> object:
    """A name, a list of names, or name → word(s): always the last."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list):
        for name in names:
            if not isinstance(name, str):
                raise ValueError("a need is the name of a stage; words go into a map: `{NAME: optional}`")  # noqa: TRY004
            if names.count(name) > 1:
                raise ValueError(f"'{name}' stands in it twice")
        return {name: ["ok"] for name in names}
    if isinstance(names, Mapping):
        return {name: _one_or_more(words) for name, words in names.items()}
    return value


NeedWords: TypeAlias = tuple[NeedWordText, ...]
NeedsSpec: TypeAlias = Annotated[
    dict[str, NeedWords],
    BeforeValidator(_needs, json_schema_input_type=str | tuple[str, ...] | dict[str, NeedWordText | NeedWords]),
]

# -- the parts of a pipeline -----------------------------------------------------------------------


class ParamSpec(_Spec):
    """An input of the pipeline: from `-p` or the trigger, else the host's variable, else the default."""

    type: Literal["text", "bool", "int", "list"] = "text"
    """What it is; a list is written `a,b` on the command line."""
    default: Any = None
    """The value when nobody gives one; without it the parameter must be given."""
    env: Identifier | None = None
    """The variable of the host that it comes from."""
    choices: tuple[Text, ...] = ()
    """The only values it may have."""
    pattern: str | None = None
    """A regular expression that the whole value must match."""
    description: str = ""
    """What it is for."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            with warnings.catch_warnings(action="error"):
                re.compile(pattern or "")
        except (re.error, FutureWarning, OverflowError, RecursionError) as error:
            raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return pattern


def _secret(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


class SecretSpec(_Spec):
    """A secret that the host has to have."""

    kind: SecretKind
    """`text`, `login` (user name and password), `file`, or `ssh` (a key)."""
    env: Annotated[
        tuple[Identifier, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=Identifier | tuple[Identifier, ...]),
    ] = ()
    """The host's variables that it comes from, if not from the usual ones; two for a login."""

    @model_validator(mode="after")
    def _enough_variables(self) -> "SecretSpec":
        wanted = 2 if self.kind == "login" else 1
        if self.env and len(self.env) != wanted:
            raise ValueError(f"a secret of kind {self.kind} comes from {wanted} variable{'s' * (wanted - 1)}")
        return self


Secrets: TypeAlias = Annotated[SecretSpec, BeforeValidator(_secret, json_schema_input_type=SecretKind | SecretSpec)]


def _retry(value: object) -> object:
    return {"times": value} if isinstance(value, str | int) else value


Retried: TypeAlias = Literal["infra", "timeout", "user"]


class RetrySpec(_Spec):
    """Further attempts after one that failed."""

    times: Annotated[int, Field(ge=0, le=20), BeforeValidator(_is_int)]
    """How many."""
    on: Annotated[
        tuple[Retried, ...], BeforeValidator(_one_or_more, json_schema_input_type=Retried | tuple[Retried, ...])
    ] = ("infra",)
    """After which cause or causes."""
    wait: Duration = timedelta(seconds=5)
    """The first pause; it doubles up to two minutes."""


class ExecutorSpec(_Spec):
    """A container or pod for the processes of a stage."""

    image: Text | None = None
    """The image that it starts from."""
    cpu: Text | None = None
    """Cores, as Kubernetes writes them."""
    memory: Text | None = None
    """Memory, as Kubernetes writes it."""
    template: Text | None = None
    """A pod template of the host."""


class ServiceSpec(_Spec):
    """Something that runs beside a stage, a database say."""

    image: Text
    """The image that it starts from."""
    port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(_is_int)] | None = None
    """The port that it listens on."""
    env: dict[Variable, Text] = {}
    """Its variables."""
    ready: Text | None = None
    """A command inside that succeeds once it is ready."""
    timeout: Limit | None = None
    """How long it may take to become ready."""


def _inside(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"'{folder}' is not in the workspace: write a path below it")
    return folder


def _below(glob: str) -> str:
    compiled(glob.removeprefix("!"))
    _inside(glob.removeprefix("!"))
    return glob


Kept: TypeAlias = Annotated[Glob, AfterValidator(_below)]
"""A glob of files that a stage leaves in its folder."""


class ReportsSpec(_Spec):
    """Reports that a stage leaves behind."""

    junit: tuple[Kept, ...] = ()
    """JUnit XML files, as globs from the stage's folder."""


Retries: TypeAlias = Annotated[RetrySpec, BeforeValidator(_retry, json_schema_input_type=Int | RetrySpec)]
Executor: TypeAlias = Annotated[
    Annotated[Literal["local"], Tag("host")] | Annotated[ExecutorSpec, Tag("container")],
    Discriminator(lambda value: "host" if isinstance(value, str) else "container"),
]


_SIZE = re.compile(r"([1-9][0-9]{0,14})(Ki|Mi|Gi|Ti)?")
_SCALES = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_CORES = re.compile(r"([1-9][0-9]{0,5})m|([0-9]{1,4}(?:\.[0-9]{1,3})?)")


def _size(value: object) -> object:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None and not (isinstance(value, int) and value > 0):
        raise ValueError(f"'{value}' is no size: write 512Mi or 2Gi, or a number of bytes")
    size = int(match[1]) * _SCALES[match[2] or ""] if match else value
    if isinstance(size, int) and size < _SCALES["Mi"]:
        raise ValueError(f"'{value}' is {size} bytes, too little for anything: write 512Mi or 2Gi")
    return size


def _cores(value: object) -> object:
    match = _CORES.fullmatch(str(value))
    cores = (int(match[1]) / 1000 if match[1] else float(match[2])) if match else 0.0
    if not cores:
        raise ValueError(f"'{value}' is no number of cores: write 2, 1.5 or 500m")
    return cores


_SIZE_SCHEMA = {"type": ["string", "integer"], "pattern": f"^{_SIZE.pattern}$"}
_CORES_SCHEMA = {"type": ["string", "number"], "pattern": f"^({_CORES.pattern})$"}


class Resources(_Spec):
    """Upper limits, as Kubernetes writes them."""

    memory: Annotated[int, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)] | None = None
    """Memory: `512Mi`. A process that would go over it is killed, and the stage says so."""
    cpu: Annotated[float, BeforeValidator(_cores), WithJsonSchema(_CORES_SCHEMA)] | None = None
    """Cores: `2`, `1.5` or `500m`."""


class Defaults(_Spec):
    """What holds for every stage that does not say otherwise."""

    timeout: Limit | None = None
    """How long an attempt may take."""
    silence: Limit | None = None
    """The longest time without output."""
    retry: Retries | None = None
    """Further attempts: a number, or `{times, on, wait}`."""
    limits: Pools = ()
    """The pool or pools to hold while running."""
    executor: Annotated[Executor | None, NOT_BUILT] = None
    """Where processes run: `local`, or a container or pod."""
    log: Annotated[int, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)] | None = None
    """How much of its output an attempt keeps, beginning and end: `256Mi` unless said."""
    workspace: Literal["shared", "copy"] = "shared"
    """`shared`: one folder a run. `copy`: a snapshot of it, thrown away at the end."""


def _kept(folder: str) -> str:
    if folder.startswith("~"):
        raise ValueError(f"'{folder}' is shared by runs that may write at once: keep a folder of the workspace")
    if PurePosixPath(_inside(folder)) == PurePosixPath():
        raise ValueError(f"'{folder}' is all of the workspace: name the folders in it that are worth keeping")
    return folder


KeptFolder: TypeAlias = Annotated[Text, AfterValidator(_kept)]


class CacheSpec(_Spec):
    """What is kept between runs, restored and saved as one."""

    paths: Annotated[
        tuple[KeptFolder, ...],
        Field(min_length=1),
        BeforeValidator(_one_or_more, json_schema_input_type=KeptFolder | tuple[KeptFolder, ...]),
    ]
    """Folders or files, from the stage's folder."""
    key: Annotated[tuple[Kept, ...], BeforeValidator(_one_or_more, json_schema_input_type=Kept | tuple[Kept, ...])] = ()
    """Files whose content says which one fits, a lock file say: globs from the stage's folder. None: the newest."""
    fallback: Bool = True
    """When none fits, start from the newest."""
    name: Text = ""
    """Tells caches of the same paths apart: `"${each.jdk}"`."""


def _caches(value: object) -> object:
    given = value if isinstance(value, list) else [value]
    return [{"paths": [each]} if isinstance(each, str) else each for each in given]


Caches: TypeAlias = Annotated[
    tuple[CacheSpec, ...],
    BeforeValidator(_caches, json_schema_input_type=KeptFolder | CacheSpec | tuple[KeptFolder | CacheSpec, ...]),
]


def _no_outcome(name: str) -> str:
    if name == "outcome":
        raise ValueError("every stage has an `outcome` of its own: choose another name")
    return name


OutputName: TypeAlias = Annotated[Word, AfterValidator(_no_outcome)]


class StageSpec(Defaults):
    """A node of the pipeline: one kind at work, or as many leaves of it as `each` has entries."""

    title: Text = ""
    """Free text for people."""
    uses: str | None = None
    """The kind of the stage."""
    with_: dict[str, Value] = Field(default={}, alias="with")
    """The fields of the kind."""
    run: str | tuple[str, ...] | None = None
    """A script for the shell, or a list: a program and its arguments, without a shell."""
    env: dict[Variable, Text] = {}
    """Variables for the processes of the stage, and for manifests."""
    secrets: dict[Variable, Text] = {}
    """Variables that hold a secret: `NAME` (text, or the path of a file), `NAME.username`, `NAME.password`."""
    dir: Annotated[Text, AfterValidator(_inside)] = ""
    """The folder in the workspace where processes start and from which paths are counted."""
    needs: NeedsSpec = {}
    """What must have ended before: a name, a list of names, or a map of a name to `ok optional ended all`."""
    each: Any = None
    """One leaf for each entry: a list of texts or of maps with a `name`, or a map of lists for their product."""
    when: str | None = None
    """A condition in CEL; the stage is skipped when it is false."""
    resources: Resources | None = None
    """What the processes of an attempt may use in all, where the host lets us hold them to it."""
    allow_failure: Bool = False
    """A failure counts as met, and makes no run red."""
    fail_fast: Bool = False
    """The first leaf that fails cancels the others."""
    irreversible: Bool = False
    """What it does cannot be undone, a migration say: a release with it is not rolled back by itself."""
    outputs: Annotated[
        tuple[OutputName, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=OutputName | tuple[OutputName, ...]),
    ] = ()
    """For `run`: the name or names that it writes, each to a file `$PIPE_OUTPUT/NAME`."""
    services: Annotated[dict[Word, ServiceSpec], NOT_BUILT] = {}
    """What runs beside the stage."""
    artifacts: tuple[Kept, ...] = ()
    """Files to keep at the end, whatever that is: globs from the stage's folder."""
    takes: Annotated[Stages, NOT_BUILT] = ()
    """Stages whose artifacts are laid into the workspace."""
    cache: Caches = ()
    """Folders kept between runs: one, a list of them, or maps `{paths, key, fallback, name}`."""
    inputs: Annotated[tuple[Glob, ...], NOT_BUILT] = ()
    """Files whose unchanged content lets an earlier result be used again."""
    reports: ReportsSpec | None = None
    """Reports to collect at the end: `{junit: [glob]}`."""

    @field_validator("run", mode="before")
    @classmethod
    def _text_or_list(cls, run: object) -> object:
        if run is not None and not isinstance(run, str | list):
            raise ValueError("it must be a script, or a list of a program and its arguments")
        return run


class Approval(_Spec):
    """`uses: approval`: wait for people."""

    message: Text
    """What they are asked."""
    by: tuple[Text, ...] = ()
    """People or groups who may answer."""
    inputs: dict[Identifier, ParamSpec] = {}
    """What they are asked to fill in."""


# -- how runs begin --------------------------------------------------------------------------------


class TriggerSpec(_Spec):
    """What all triggers have."""

    repo: Text | None = None
    """Which repository; unless said, the one the file is in."""
    params: dict[Identifier, Value] = {}
    """Parameters of the runs that it starts."""


class PushTrigger(TriggerSpec):
    """A push to a branch."""

    branches: tuple[Glob, ...] = ()
    """Which branches."""
    paths: tuple[Glob, ...] = ()
    """Only if one of these files changed."""


class TagTrigger(TriggerSpec):
    """A new tag."""

    tags: tuple[Glob, ...] = ()
    """Which tags."""


class PullRequestTrigger(PushTrigger):
    """A pull request that was opened or changed; `branches` are its targets."""

    forks: Bool = False
    """Take those of forks too."""


class PipelineTrigger(TriggerSpec):
    """The end of a run of another pipeline."""

    name: Free
    """Which pipeline."""
    outcome: Literal["succeeded", "failed", "errored", "timed-out", "cancelled"] = "succeeded"
    """How it must have ended."""


class WebhookTrigger(TriggerSpec):
    """A request from elsewhere."""

    when: str | None = None
    """A condition in CEL over `body` and `headers`."""
    values: dict[Identifier, str] = {}
    """Parameter → CEL over `body` and `headers`."""


def next_time(at: str, zone: str, after: datetime) -> datetime:
    """When five fields of cron come true next after a moment.

    A time that a change of the clock skips comes right after it, and a doubled one once.

    Raises:
        ValueError: the fields mean nothing, or no time at all.
    """
    from cronsim import CronSim, CronSimError

    try:
        found: datetime = next(CronSim(at, after.astimezone(ZoneInfo(zone))))
    except CronSimError as error:
        raise ValueError(f"'{at}' is no time: {str(error).lower()}") from None
    except StopIteration:
        raise ValueError(f"'{at}' never comes") from None
    return found


class CronTrigger(TriggerSpec):
    """A point in time."""

    at: Text
    """The five fields of cron."""
    zone: Text = "UTC"
    """The time zone."""

    @field_validator("at")
    @classmethod
    def _five_fields(cls, at: str) -> str:
        if len(at.split()) != 5:
            raise ValueError(f"'{at}' has not five fields: minute, hour, day, month, weekday")
        next_time(at, "UTC", datetime.now(UTC))
        return at

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f"'{zone}' is no time zone: write one like Asia/Shanghai or UTC")
        return zone


def _written(word: str, key: str, given: Sequence[str]) -> str:
    """How a trigger is written of which somebody gave nothing but the value of one key."""
    if not key or list(given) in (["true"], ["yes"]):
        return f"{word}: {{}}"
    texts = [quoted(text) for text in given]
    if key in ("name", "at"):
        maps = [f"{{{key}: {text}}}" for text in texts]
        return f"{word}: {maps[0] if len(maps) == 1 else '[' + ', '.join(maps) + ']'}"
    return f"{word}: {{{key}: [{', '.join(texts)}]}}"


def _maps(word: str, key: str) -> Callable[[object], object]:
    """A map stands for a list of one; whoever writes only what `key` would hold is shown how to write it."""

    def judge(value: object) -> object:
        if isinstance(value, Mapping):
            return [value]
        given = value if isinstance(value, list) else [value]
        texts = [str(each) for each in given if isinstance(each, str | int)]
        if texts and len(texts) == len(given):
            raise ValueError(f"must be a map or a list of maps: write `{_written(word, key, texts)}`")
        return value

    return judge


def _map_or_list(model: type[BaseModel], word: str, key: str = "") -> BeforeValidator:
    return BeforeValidator(_maps(word, key), json_schema_input_type=model | GenericAlias(tuple, (model, ...)))


class Triggers(_Spec):
    """What starts a run by itself; each a map or a list of maps."""

    push: Annotated[tuple[PushTrigger, ...], _map_or_list(PushTrigger, "push", "branches")] = ()
    """Pushes to branches."""
    tag: Annotated[tuple[TagTrigger, ...], _map_or_list(TagTrigger, "tag", "tags")] = ()
    """New tags."""
    pull_request: Annotated[
        tuple[PullRequestTrigger, ...],
        _map_or_list(PullRequestTrigger, "pull_request", "branches"),
    ] = ()
    """Pull requests."""
    pipeline: Annotated[
        tuple[PipelineTrigger, ...],
        _map_or_list(PipelineTrigger, "pipeline", "name"),
    ] = ()
    """Ends of other pipelines."""
    webhook: Annotated[
        tuple[WebhookTrigger, ...],
        _map_or_list(WebhookTrigger, "webhook"),
    ] = ()
    """Requests from elsewhere."""
    cron: Annotated[tuple[CronTrigger, ...], _map_or_list(CronTrigger, "cron", "at")] = ()
    """Points in time."""


def _named_triggers(value: object) -> object:
    words = value if isinstance(value, list) else [value]
    if all(isinstance(word, str) for word in words):
        known = [str(word) for word in words if word in Triggers.model_fields] or ["push"]
        raise ValueError(f"must be a map: write `triggers: {{{', '.join(f'{word}: {{}}' for word in known)}}}`")
    return value


class Concurrency(_Spec):
    """Runs that exclude each other."""

    group: Text
    """One run a group at a time."""
    busy: Literal["queue", "supersede"] = "queue"
    """What a new run does when another one runs: wait, or end the older one."""


_TARGET = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")


def _target(name: str) -> str:
    if not _TARGET.fullmatch(name):
        raise ValueError(f"'{name}' names no target: small letters, digits and hyphens, 50 at most, as in `his`")
    return name


class Release(_Spec):
    """The deploys of a run as one thing, numbered and kept in the cluster."""

    target: Annotated[Text, AfterValidator(_target)] | None = None
    """The name of what the releases go to, `his` as in `his@12`; unless said, the name of the pipeline."""
    namespace: Text = ""
    """Where the releases are kept; unless said, the namespace of the deploys."""
    on_failure: Literal["keep", "rollback"] = "keep"
    """What happens when a deploy fails: nothing, or everything goes back to the last good release."""


class Bounds(_Spec):
    """What is said of a run as a whole."""

    limits: dict[Free, Annotated[Int, AfterValidator(_positive_count)]] = {}
    """Pools: how many stages may hold each at once."""
    timeout: Limit | None = None
    """How long the run may take, approvals not counted."""
    concurrency: Concurrency | None = None
    """The group of which one run at a time may work."""
    release: Release | None = None
    """The deploys of a run as one release, which can be undone as a whole."""


class PipelineSpec(Bounds):
    """A graph of stages, and what they share."""

    name: Free
    """The name of the pipeline."""
    params: dict[Identifier, ParamSpec] = {}
    """Its inputs."""
    secrets: dict[Free, Secrets] = {}
    """The secrets it uses, each `text`, `login`, `file` or `ssh`; their values come from the host."""
    triggers: Annotated[Triggers | None, BeforeValidator(_named_triggers, json_schema_input_type=Triggers)] = None
    """What starts a run by itself."""
    vars: dict[Identifier, Value] = {}
    """Values used more than once; one may use those above it."""
    env: dict[Variable, Text] = {}
    """Variables for the processes of all stages, and for manifests."""
    defaults: Defaults = Defaults()
    """Keys that all stages have; a stage's own value replaces one whole."""
    stages: Annotated[dict[Word, StageSpec], Field(min_length=1)]
    """The work, by name."""
    finally_: dict[Word, StageSpec] = Field(default={}, alias="finally")
    """Stages that run after all others have ended, however they ended."""


@cache
def not_built(model: type[BaseModel]) -> frozenset[str]:
    """The keys of a model that are checked and then refused."""
    return frozenset(field.alias or name for name, field in model.model_fields.items() if NOT_BUILT in field.metadata)
