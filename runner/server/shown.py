"""What the API says, as models: the description at `/api/v1/openapi.json` comes from them."""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.errors import PipeError
from pipeline.plan import Trigger
from pipeline.stage import SecretKind

__all__ = [
    "ApiToken",
    "Artifact",
    "AuditLine",
    "Delivery",
    "DeliveryId",
    "Hook",
    "Invitation",
    "Leaf",
    "Me",
    "NewPerson",
    "NewProject",
    "NewSecret",
    "NewTarget",
    "NewToken",
    "Offset",
    "Person",
    "Pipeline",
    "ProjectName",
    "Role",
    "Roles",
    "Run",
    "RunId",
    "Server",
    "Start",
    "Target",
    "TargetTried",
    "TokenText",
    "Which",
    "run_of",
]


class Run(BaseModel):
    """One run; times are seconds since the epoch, 0 when it has not happened."""

    id: str
    project: str
    """Its name; `shop~1` was the first `shop`, and is removed."""
    place: str
    """Of its project, below `projects/` in the folder of its server."""
    pipeline: str
    number: int
    found_by: str
    """What found its event: hook, poll, clock, run (the end of another one) or call."""
    delivery: str
    ref: str
    commit: str
    file_commit: str
    """At which the pipeline file is read: of a fork's pull request, where its base stood."""
    trigger: Trigger
    params: dict[str, str]
    state: Literal["waiting", "queued", "running", "ended"]
    """`waiting`: for approval, because its commit is a stranger's."""
    approved_by: str
    outcome: str
    note: str
    """Whom it waits for, or why it is not green."""
    server: str
    """The server that has it, by its id; empty while it waits."""
    pid: int
    revived: int
    """How often it was gone on with after its engine had died."""
    created: float
    started: float
    ended: float


class Artifact(BaseModel):
    """A file that a run has left to be kept."""

    path: str
    """`junit.xml`, `summary.html`, `problems.sarif`, or `artifacts/LEAF.ATTEMPT/` and where it lay in the workspace."""
    size: int
    """Bytes."""


class Which(BaseModel):
    """Which runs are meant: all that are as is said, and a page of them."""

    project: str = ""
    pipeline: str = ""
    number: int = Field(default=0, ge=0, le=1 << 31, description="0 is any.")
    state: Literal["", "waiting", "queued", "running", "ended"] = ""
    outcome: Literal["", "succeeded", "failed", "errored", "timed-out", "cancelled", "skipped"] = ""
    before: str = Field(default="", description="The id of the last run of the page before.")
    limit: int = Field(default=50, ge=1, le=200)


class Delivery(BaseModel):
    """What came in, and what became of it."""

    id: str
    project: str
    forge: str
    key: str
    received: float
    size: int
    state: Literal["new", "done", "failed", "refused"]
    note: str
    """A line for each pipeline of the file, or why it was refused."""
    copies: int
    """How often it came again."""
    tries: int
    due: float


class Server(BaseModel):
    """A server that works on the database, or did."""

    id: str
    host: str
    url: str
    """Where the others reach it."""
    silent: float
    """Seconds since it was heard of."""
    alive: bool


class DeliveryId(BaseModel):
    """The delivery that was meant."""

    delivery: str


class RunId(BaseModel):
    """The run that was meant."""

    run: str
    number: int = 0


class Start(BaseModel):
    """What a run is started with."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str
    ref: str = ""
    """A branch, a tag, a commit, or BRANCH@COMMIT for a branch as it stood then; empty: the main branch."""
    params: dict[str, bool | int | str | list[str]] = Field(default_factory=dict)
    key: str = Field(default="", max_length=100)
    """The same key again gives the same run, for who does not know whether his first call arrived."""

    def texts(self) -> dict[str, str]:
        """The parameters as `-p` takes them."""
        return {name: _text(value) for name, value in self.params.items()}


def _text(value: bool | int | str | list[str]) -> str:  # noqa: FBT001 - one of four types
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class ProjectName(BaseModel):
    """A repository whose pipelines run here."""

    name: str


class Pipeline(BaseModel):
    """A pipeline of a project's file, and the names of its parameters."""

    name: str
    params: list[str]


class NewSecret(BaseModel):
    """A secret to keep. Bytes that are no text, of a file, come as base64."""

    model_config = ConfigDict(extra="forbid")

    kind: SecretKind = "text"
    value: str = ""
    """The text, the password, or the file."""
    base64: str = ""
    """Instead of `value`."""
    username: str = ""
    """Of a login."""

    def content(self) -> bytes:
        """What is to be kept.

        Raises:
            PipeError: both are given, or it is no base64.
        """
        if self.value and self.base64:
            raise PipeError("give value or base64, not both")
        try:
            return b64decode(self.base64, validate=True) if self.base64 else self.value.encode()
        except ValueError:  # lone surrogates, too
            raise PipeError("it is no base64, or no text in UTF-8") from None


class Offset(BaseModel):
    """How many bytes of a file there are."""

    offset: int


class Leaf(BaseModel):
    """One leaf of a run: how it is, and why."""

    name: str
    outcome: str
    attempt: int
    seconds: float
    cause: str


class NewTarget(BaseModel):
    """Somebody who is to be told of a project's runs."""

    model_config = ConfigDict(extra="forbid")

    name: str
    url: SecretStr = Field(max_length=4096)
    """How apprise reaches the receiver; it holds a password or key, and is never shown again."""
    events: list[str]
    """Of failed, fixed, waiting and ended."""


class Target(BaseModel):
    """Somebody who is told of a project's runs."""

    name: str
    service: str
    events: tuple[str, ...]
    waiting: int = 0
    """Messages that are still to be taken."""
    given_up: int = 0
    note: str = ""
    """Why the last one was not taken."""


class TargetTried(BaseModel):
    """Whether a message was taken, and why not."""

    taken: bool
    note: str


def run_of(row: Mapping[str, Any], silent: str = "") -> Run:
    """A row of the table as the API shows it; `silent` says that nothing is heard of its server."""
    told = {"trigger": json.loads(row["trigger"]), "params": json.loads(row["params"]), "note": silent or row["note"]}
    return Run.model_validate({**row, **told})


class Role(BaseModel):
    """A role, and the project in which it holds; empty: everywhere."""

    model_config = ConfigDict(extra="forbid")

    role: str
    scope: str = ""


class Roles(BaseModel):
    """The roles that a person is to have, and no others."""

    model_config = ConfigDict(extra="forbid")

    roles: list[Role]


class Person(BaseModel):
    """Somebody who can sign in, or was asked to."""

    name: str
    roles: list[Role]
    signs_in: list[Literal["password", "openid"]]
    """By what; empty: not yet."""
    created: float


class NewPerson(BaseModel):
    """Somebody to add."""

    model_config = ConfigDict(extra="forbid")

    name: str
    roles: list[Role] = Field(default_factory=lambda: [Role(role="member")])


class Invitation(BaseModel):
    """A link by which a person chooses a password, once, within a day; it is shown this once."""

    name: str
    link: str


class Me(BaseModel):
    """Who calls, by which way in, and what they may do; of a token, no more than both it and its person may."""

    name: str
    by: str
    roles: list[Role]


class ApiToken(BaseModel):
    """What is known of a token; `person` is empty when it belongs to a program. 0: never."""

    id: str
    name: str
    person: str
    role: Role
    created: float
    expires: float
    used: float


class NewToken(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")

    name: str
    role: Role = Field(default_factory=lambda: Role(role="member"))
    days: int = Field(default=0, ge=0, le=3650)
    """How long it is good; 0: until it is revoked."""
    program: bool = False
    """It belongs to a program and stays when its maker goes; only administrators make such."""


class TokenText(BaseModel):
    """The token itself; it is shown this once."""

    token: str


class NewProject(BaseModel):
    """A repository to watch; secrets are sealed and never shown again."""

    model_config = ConfigDict(extra="forbid")

    name: str
    url: str
    file: str = "pipeline.yaml"
    forge: str = "generic"
    secret: str = ""
    """Of its hook; empty: a random one."""
    username: str = ""
    password: str = ""
    """For git."""
    token: str = ""
    """For the forge's API."""


class Hook(BaseModel):
    """What the forge has to be told; the secret is shown this once."""

    project: str
    url: str
    secret: str


class AuditLine(BaseModel):
    """Who did what to whom or what, when, and from where; `by` is the way in."""

    id: int
    at: float
    who: str
    by: str
    address: str
    action: str
    what: str
    project: str
    detail: str
