"""A build by the engine's classic builder: its events, and what they mean when it fails."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.stage import StageErrored, StageFailed
from stages.clients.docker.context import label_instruction, snapshot
from stages.clients.docker.engine import DENIED, TEMPORARY, Engine, Event, Progress, Streaming
from stages.clients.oci import Reference

__all__ = ["Build", "BuildRequest", "build_trouble"]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build."""

    context: Path
    dockerfile: Path
    reference: Reference
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    pull: bool = False


class Build(Streaming):
    """One build; call it in a thread."""

    def __init__(
        self, engine: Engine, request: BuildRequest, log: Callable[[bytes], None], progress: "Progress"
    ) -> None:
        super().__init__(engine)
        self._request = request
        self._log = log
        self._progress = progress
        self._id = ""
        self._step = ""
        self._tail = _Tail()

    def __call__(self) -> str:
        """Build, and return the image's id.

        Raises:
            StageFailed: the Dockerfile, the context or a step in it is wrong.
            StageErrored: no engine, no network, no space.
        """
        from docker.errors import APIError

        request, label = self._request, self._label()
        with self._connect() as client, snapshot(request.context, request.dockerfile, label) as (tar, name):
            try:
                stream = client.build(
                    fileobj=tar,
                    custom_context=True,
                    tag=str(request.reference),
                    dockerfile=name,
                    buildargs=dict(request.args),
                    labels={} if label else dict(request.labels),
                    target=request.target or None,
                    platform=request.platform or None,
                    pull=request.pull,
                    rm=True,
                    forcerm=True,
                    decode=True,
                )
                for event in stream:
                    self._take(event)
            except APIError as error:
                if error.is_server_error() and "dockerfile" not in str(error.explanation).lower():
                    raise
                raise StageFailed(f"the engine does not take the build: {error.explanation}") from error
        if not self._id:
            raise StageErrored(f"the docker engine at {self._engine.host} broke off: the build ended without an image")
        return self._id

    def _label(self) -> str:
        # behind the last instruction is behind the target only if that is the last stage
        return (
            ""
            if self._request.target
            else label_instruction(self._request.dockerfile.read_bytes(), self._request.labels)
        )

    def _take(self, event: Event) -> None:
        if "error" in event:
            message = str((event.get("errorDetail") or {}).get("message") or event["error"])
            raise build_trouble(message, self._step, self._tail.lines())
        if text := event.get("stream"):
            self._say(str(text))
        elif "aux" in event:
            self._id = str((event["aux"] or {}).get("ID") or self._id)
        elif event.get("status"):
            self._pulled(event)

    def _say(self, text: str) -> None:
        self._log(text.encode())
        self._tail.add(text)
        if match := STEP.match(text):
            self._step = text.strip()
            self._progress(self._step[:100], (int(match[1]) - 1) / int(match[2]))

    def _pulled(self, event: Event) -> None:
        line = " ".join(str(event[part]) for part in ("id", "status") if event.get(part))
        if event.get("progressDetail"):
            self._progress(f"{self._step.partition(':')[0] or 'base image'}: {line}", None)
        else:
            self._log(f"{line}\n".encode())


STEP = re.compile(r"Step (\d+)/(\d+) : ")
NOT_FOUND = re.compile(r"manifest unknown|not found|name unknown|does not exist", re.IGNORECASE)
MISSING_FILE = re.compile(
    r"(?:stat|lstat) (?:/var/lib/docker/\S*?/)?(?P<path>[^:]+): (?:file does not exist|no such file)"
)
EXIT_CODE = re.compile(r"The command '(?P<command>.*)' returned a non-zero code: (?P<code>\d+)", re.DOTALL)


def build_trouble(message: str, step: str, tail: Sequence[str]) -> StageFailed | StageErrored:
    """The error for an event that ended a build."""
    evidence = (*tail, message)
    instruction = step.partition(" : ")[2]
    where = f"{step.partition(' : ')[0].lower()} ({instruction[:120]})" if step else "the build"
    if match := EXIT_CODE.search(message):
        return StageFailed(f"{where}: exit code {match['code']}", evidence=evidence)
    if instruction.upper().startswith("FROM") or not step:
        return _base_trouble(message, instruction, evidence)
    if match := MISSING_FILE.search(message):
        return StageFailed(
            f"{where}: '{match['path']}' is not in the context, or .dockerignore leaves it out", evidence=evidence
        )
    if "no space left on device" in message or TEMPORARY.search(message):
        return StageErrored(f"{where}: {message}", evidence=evidence)
    return StageFailed(f"{where}: {message}", evidence=evidence)


def _base_trouble(message: str, instruction: str, evidence: Sequence[str]) -> StageFailed | StageErrored:
    words = [word for word in instruction.split()[1:] if not word.startswith("--")]
    image = words[0] if words else "the base image"
    if TEMPORARY.search(message) or "no space left" in message:
        return StageErrored(f"the base image {image} cannot be pulled: {message}", evidence=evidence)
    if "pull access denied" in message:
        reason = "there is none of that name, or it needs a login (`secret:` is for the registry of `image:`)"
        return StageFailed(f"the base image {image} cannot be pulled: {reason}", evidence=evidence)
    if DENIED.search(message):
        return StageFailed(
            f"the base image {image} cannot be pulled: its registry refuses the login", evidence=evidence
        )
    if NOT_FOUND.search(message):
        return StageFailed(f"the base image {image} is not in its registry", evidence=evidence)
    return StageFailed(message, evidence=evidence)


class _Tail:
    """The last lines of a text that comes in pieces."""

    def __init__(self, limit: int = 20) -> None:
        self._limit = limit
        self._text = ""

    def add(self, text: str) -> None:
        self._text = "\n".join((self._text + text[-8192:]).split("\n")[-self._limit - 1 :])[-16384:]

    def lines(self) -> tuple[str, ...]:
        return tuple(line for line in self._text.split("\n") if line.strip())
