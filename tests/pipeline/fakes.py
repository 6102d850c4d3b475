"""Small kinds in the shape of the real ones, and short ways from a text to its problems or its plan."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.errors import InvalidPipeline, Problem
from pipeline.model import PipelineFile, read
from pipeline.plan import Leaf, Plan, RunIdentity, Trigger
from pipeline.resolve import resolve
from pipeline.source import load
from pipeline.stage import (
    FROM_PLAN,
    Duration,
    NoOutputs,
    Outputs,
    ReleasePart,
    Script,
    ScriptMark,
    SecretName,
    SecretRef,
    Stage,
    StageContext,
)


class _Fake:
    async def run(self, ctx: StageContext) -> Any:
        raise NotImplementedError


class CheckoutOutputs(Outputs):
    commit: str
    dirty: bool = False


class Checkout(_Fake, Stage[CheckoutOutputs]):
    """Fetch sources."""

    url: str = ""
    ref: str = ""
    secret: Annotated[str, SecretRef(("login", "ssh"))] = ""
    into: str = "."
    depth: int = 1
    submodules: bool = False


class Shell(_Fake, Stage[NoOutputs]):
    """Run a script."""

    computes: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True
    script: Script = ""
    argv: Annotated[tuple[str, ...], ScriptMark()] = ()
    shell: Literal["sh", "bash"] = "sh"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.script.strip()) == bool(self.argv):
            raise ValueError("give a script, or a list of a program and its arguments")
        return self


class ImageOutputs(Outputs):
    ref: str
    size: int


class Image(_Fake, Stage[ImageOutputs]):
    """Build an image."""

    computes: ClassVar[bool] = True
    context: str = "."
    """The folder to build."""
    file: str = "Dockerfile"
    image: str
    """The repository."""
    tag: str = "latest"
    """The tag."""
    args: Mapping[str, str] = {}
    """Build arguments."""


class PushOutputs(Outputs):
    digest_ref: str
    tags: tuple[str, ...] = ()


class Push(_Fake, Stage[PushOutputs]):
    """Push an image."""

    pool: ClassVar[tuple[str, int] | None] = ("push", 10)
    image: str
    """What to push."""
    secret: SecretName | None = None
    """The registry's login."""
    tag: str | None = None
    """Another tag."""


class Registry(BaseModel):
    """Where pods register."""

    model_config = ConfigDict(extra="forbid")

    server: str = ""
    """Its address."""
    secret: SecretName = ""
    """Its login."""


class RegisteredIn(BaseModel):
    """A map in a map."""

    model_config = ConfigDict(extra="forbid")

    nacos: Registry | None = None
    """One of them."""


class Prune(BaseModel):
    model_config = ConfigDict(extra="forbid")

    also: tuple[Literal["Namespace", "CustomResourceDefinition"], ...]
    """Kinds that are pruned only when named."""


class Deploy(_Fake, Stage[NoOutputs]):
    """Apply manifests."""

    pool: ClassVar[tuple[str, int] | None] = ("deploy", 50)
    manifests: tuple[str, ...]
    images: tuple[str, ...] = ()
    namespace: str | None = None
    secret: Annotated[str, SecretRef(("file",))] | None = None
    pull_secret: SecretName | None = None
    prune: bool | Prune = False
    wait: Duration | None = None
    waits_for: tuple[str, ...] = ()
    registered_in: RegisteredIn | None = None
    substitute: bool | tuple[str, ...] = True
    annotations: Mapping[str, str] = {}
    release: Annotated[ReleasePart | None, FROM_PLAN] = None


class Helm(_Fake, Stage[NoOutputs]):
    """Upgrade a chart, whose release is Helm's own."""

    release: str
    chart: str
    namespace: str
    secret: Annotated[str, SecretRef(("file",))] | None = None


class TicketOutputs(Outputs):
    number: int


class Ticket(_Fake, Stage[TicketOutputs]):
    """Draw a number."""

    inner: ClassVar[bool] = True
    target: str
    namespace: str
    secret: str | None = None
    parts: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    why: str = ""
    by: str = ""


class Release(_Fake, Stage[NoOutputs]):
    """Close a release."""

    inner: ClassVar[bool] = True
    target: str
    namespace: str
    secret: str | None = None
    number: int
    on_failure: str
    wait: Duration
    parts: Mapping[str, Any]
    allowed: tuple[str, ...] = ()
    irreversible: Mapping[str, Any] = {}


class Npm(_Fake, Stage[NoOutputs]):
    """Run npm."""

    computes: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True
    target: str = ""


class Maven(_Fake, Stage[NoOutputs]):
    """Run Maven."""

    computes: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True
    goals: str


class Mail(_Fake, Stage[NoOutputs]):
    """Send a mail."""

    to: str
    subject: str


KINDS: dict[str, Any] = {
    "checkout": Checkout,
    "deploy": Deploy,
    "helm": Helm,
    "image": Image,
    "mail": Mail,
    "maven": Maven,
    "npm": Npm,
    "push": Push,
    "release": Release,
    "shell": Shell,
    "ticket": Ticket,
}


def file(text: str | bytes) -> PipelineFile:
    """A file that is right."""
    return read(load(text, "f.yaml"), KINDS)


def found(text: str | bytes) -> list[Problem]:
    """The problems of a file, when it is read and then resolved without anything given."""
    try:
        for name in file(text).pipelines:
            plan(text, pipeline=name)
    except InvalidPipeline as error:
        return error.problems
    return []


def problems(text: str | bytes) -> list[str]:
    """The same as `line:column message (hint)`."""
    return [worded(problem) for problem in found(text)]


def worded(problem: Problem) -> str:
    place = f"{problem.place.line}:{problem.place.column} " if problem.place else ""
    return place + problem.message + (f" ({problem.hint})" if problem.hint else "")


def plan(
    text: str | bytes,
    *,
    pipeline: str | None = None,
    params: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    unset: Literal["error", "placeholder"] = "error",
    trigger: Trigger | None = None,
) -> Plan:
    made = file(text)
    return resolve(
        made,
        pipeline or next(iter(made.pipelines)),
        run=RunIdentity(id="01RUN", number=7, previous="failed"),
        trigger=trigger or Trigger(),
        params=params or {},
        host_env=env or {},
        unset=unset,
        kinds=KINDS,
    )


def stages(text: str, top: str = "") -> str:
    """A file with these stages, each a line."""
    return f"name: a\n{top}stages:\n" + "".join(f"  {line.strip()}\n" for line in text.strip().splitlines())


def leaf(text: str, name: str, **given: Any) -> Leaf:
    """One leaf of the plan of a text."""
    return plan(text, **given).leaf(name)


def needs(of: Leaf) -> list[tuple[Sequence[str], str, bool]]:
    """Its needs, short."""
    return [(need.leaves, need.word.value, need.group) for need in of.needs]
