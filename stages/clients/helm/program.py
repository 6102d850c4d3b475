"""The machine's own helm, 3 or 4: which one it is, and a call of it."""

import os
import re
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.stage import CauseKind, StageFailed, Surroundings
from stages.clients.helm.trouble import trouble
from stages.clients.output import Lines
from stages.clients.unset import unset

__all__ = ["Called", "Helm", "NoHelm", "find_helm", "too_large"]

_VERSION = re.compile(r"v(\d+)\.(\d+)\.\S+")
_OLDEST = (3, 13)
"""The first that labels what it records, by which we know it again."""
_NEWEST = 4
_KEPT_LINES = 60
_MOST = 4 << 20
"""Bytes of output that a call returns at most."""
_ELSEWHERE = ("HELM_KUBE", "HELM_NAMESPACE", "HELM_BURST_LIMIT", "HELM_QPS", "HELM_NO_PLUGINS")
"""How variables begin by which a call would go to another cluster than ours, or do other things there."""
_BASE = frozenset({"HOME", "PATH"})
"""What no program works without."""
_BEYOND_RENDERING = re.compile(
    r"^Error: unable to (?:build kubernetes objects from release manifest|continue with install): ", re.MULTILINE
)
"""What Helm 4 says when a chart is rendered, and the cluster is not ready for all of its objects."""
_NO_CONFIG = Path(os.devnull)
_PLUGINS = Path(__file__).parent / "plugins"
_RENDERER = "stages.clients.helm.rendered"


class NoHelm(StageFailed):
    """There is no helm here, or none that is of use."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind=CauseKind.CONFIG)


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended: its standard output if that was asked for, and its last lines."""

    exit_code: int
    stdout: bytes
    lines: Sequence[str]

    def check(self, action: str) -> None:
        """Raise what it means that the call failed, if it did."""
        if self.exit_code:
            raise trouble(action, self.exit_code, self.lines)


@dataclass(frozen=True, slots=True)
class Helm:
    """A helm, and what all calls of it for one stage have in common."""

    program: str
    version: str
    namespace: str
    context: str = ""
    kubeconfig: Path | None = None
    """None: the service account of the pod that we run in."""
    env: Mapping[str, str] | None = None
    withheld: Collection[str] = ()
    """Variables of the stage that no call gets, as their values reach helm by its standard input."""

    @property
    def major(self) -> int:
        """3 or 4."""
        return int(self.version[1])

    async def call(self, ctx: Surroundings, *words: str, stdin: bytes = b"", capture: bool = False) -> Called:
        """Run it; what it says goes to the log, but for what is to be captured."""
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        lines = Lines(kept.append)

        def sink(block: bytes) -> None:
            lines.feed(block)
            ctx.log(block)

        where = ["--namespace", self.namespace, *(["--kube-context", self.context] if self.context else [])]
        verb, *rest = words
        given = {**self._environment(ctx.env), **(self.env or {})}
        foreign = [name for name in ctx.env if name.startswith(_ELSEWHERE) or name in self.withheld]
        ended = await ctx.exec(
            [*unset(set(foreign) - given.keys() - _BASE), self.program, verb, *where, *rest],
            env=given,
            stdin=stdin,
            capture=capture,
            output=sink,
            check=False,
        )
        lines.end()
        return Called(ended.exit_code, ended.stdout, list(kept))

    async def template(self, ctx: Surroundings, *words: str, stdin: bytes = b"") -> Called:
        """Render a chart. What its templates look up is asked of the cluster, as in an upgrade."""
        looks_up = ["--dry-run=server"]
        if self.major == _NEWEST:
            looks_up += ["--disable-openapi-validation"]
        called = await self.call(ctx, "template", *looks_up, *words, stdin=stdin, capture=True)
        if self.major == _NEWEST and called.exit_code and _BEYOND_RENDERING.search("\n".join(called.lines)):
            # Helm 4 demands kinds that the chart itself defines; what is missing is told by the check of every object
            ctx.log("rendering it anew without the cluster: lookups of its templates find nothing")
            called = await self.call(ctx, "template", *words, stdin=stdin, capture=True)
        return called

    async def know_repository(self, ctx: Surroundings, name: str, url: str) -> None:
        """Fetch the index of a repository that its configuration names.

        Raises:
            StageFailed, StageErrored: it cannot be fetched, or is none.
        """
        called = await self.call(ctx, "repo", "update", name)
        said = next((line for line in called.lines if "Unable to get an update" in line), "")
        if said or called.exit_code:
            why = called.lines[called.lines.index(said) + 1 :] if said else called.lines
            raise trouble(
                "helm repo update", 1, [f'Error: looks like "{url}" is not a valid chart repository', said, *why]
            )

    def images(self, images: Sequence[str]) -> list[str]:
        """The options by which the images of what is rendered are replaced before it is applied."""
        if not images:
            return []
        # isolated: the workspace is the current folder, and nothing of it may be taken for a module of ours
        words = ["-I", "-m", _RENDERER, *images]
        if self.major == _NEWEST:
            return ["--post-renderer=pipe-images", *(f"--post-renderer-args={word}" for word in words)]
        return [f"--post-renderer={sys.executable}", *(f"--post-renderer-args={word}" for word in words)]

    def _environment(self, base: Mapping[str, str]) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.kubeconfig or _NO_CONFIG),
            "HELM_DRIVER": "secret",
            "HELM_DEBUG": "false",
            "HELM_PLUGINS": os.pathsep.join([str(_PLUGINS), _plugins(base)])
            if self.major == _NEWEST
            else _plugins(base),
            "PIPE_PYTHON": sys.executable,
        }


def _plugins(base: Mapping[str, str]) -> str:
    """Where the user's own plug-ins are, by the rules of https://helm.sh/docs/helm/helm/."""
    if named := base.get("HELM_PLUGINS"):
        return named
    data = base.get("HELM_DATA_HOME") or f"{base.get('XDG_DATA_HOME') or Path.home() / '.local/share'}/helm"
    return f"{data}/plugins"


def too_large(called: Called) -> bool:
    """Whether more was said than a call returns."""
    return len(called.stdout) >= _MOST


async def find_helm(ctx: Surroundings, program: str) -> str:
    """The version of a helm, as `v3.22.0`.

    Raises:
        NoHelm: there is none, or it is too old or too new.
    """
    try:
        said = await ctx.exec(
            [program, "version", "--template", "{{.Version}}"], capture=True, output=_nobody, check=False
        )
    except StageFailed as failure:
        raise NoHelm(f"{failure}; any Helm from 3.13 on will do") from failure
    match = _VERSION.search(said.stdout.decode(errors="replace"))
    if match is None:
        raise NoHelm(f"'{program}' does not say which Helm it is: Helm 2 is not supported, install Helm 3 or 4")
    if (int(match[1]), int(match[2])) < _OLDEST or int(match[1]) > _NEWEST:
        raise NoHelm(f"'{program}' is Helm {match[0]}, and from 3.13 to 4 is supported")
    return match[0]


def _nobody(_: bytes) -> None:
    """What it warns of is of no interest here."""
