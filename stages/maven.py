"""`uses: maven`: run Maven in a workspace, with a local repository that no other run uses meanwhile."""

import os
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, ClassVar

import anyio
from pydantic import BeforeValidator

from pipeline.files import has
from pipeline.stage import (
    CauseKind,
    Examined,
    NoOutputs,
    PreflightContext,
    Stage,
    StageContext,
    StageFailed,
    no_program,
)
from stages.clients.maven import Log, lease
from stages.clients.output import Lines

__all__ = ["Maven"]

REPORTS = ("**/surefire-reports/*.xml", "**/failsafe-reports/*.xml")


def _words(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


class Maven(Stage[NoOutputs]):
    """Run Maven goals; says which module failed, and why."""

    computes: ClassVar[bool] = True
    contained: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True

    goals: Annotated[str | tuple[str, ...], BeforeValidator(_words)] = ("clean", "package", "-Dmaven.test.skip=true")
    """Goals and options, as a text that is cut into words as a shell does, or as a list."""
    settings: str = ""
    """A settings.xml in the workspace, instead of the user's own."""
    jdk: str = ""
    """The folder of a JDK, for JAVA_HOME. Empty: the one of the environment."""

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that Maven and Java are there."""
        path, home = ctx.env.get("PATH"), self.jdk or ctx.env.get("JAVA_HOME", "")
        java = f"{home}/bin/java" if home.startswith("/") else "java"
        missing = [name for name in ("mvn", java) if not await ctx.call(shutil.which, name, path=path)]
        if "mvn" in missing and await ctx.call(has, await ctx.files(), "mvnw"):
            missing.remove("mvn")
        if self.jdk and not self.jdk.startswith("/"):
            missing = [name for name in missing if name != java]
        found = [no_program(ctx, name) for name in missing]
        return Examined(found, [] if found else ["Maven and Java are there"])

    async def run(self, ctx: StageContext) -> NoOutputs:
        """Run `./mvnw` where the workspace has one, else `mvn`."""
        program, options, env = await ctx.call(self._call, ctx.workspace)
        for pattern in REPORTS:
            ctx.publish("junit", pattern)
        log = Log(f"{ctx.root}/")

        def read(line: str) -> None:
            if log.take(line):
                ctx.progress(f"Building {log.module} [{log.number}/{log.count}]", (log.number - 1) / log.count)

        lines = Lines(read)

        def sink(block: bytes) -> None:
            ctx.log(block)
            lines.feed(block)

        async with _repository(ctx) as repository:
            argv = [program, "-B", "-V", f"-Dmaven.repo.local={repository}", *options, *self.goals]
            ended = await ctx.exec(argv, env=env, output=sink, check=False)
        lines.end()
        if log.tool:
            await ctx.tool("maven", log.version)
        if ended.exit_code:
            raise log.trouble(Path(program).name, ended.exit_code)
        return NoOutputs()

    def _call(self, workspace: Path) -> tuple[str, list[str], dict[str, str]]:
        """The program, its options and the variables it needs, with all that they name looked for."""
        wrapper = workspace / "mvnw"
        program = str(wrapper) if os.access(wrapper, os.X_OK) else "mvn"
        options, env = [], {}
        if self.settings:
            options = ["-s", str(_existing(workspace / self.settings, "settings", self.settings))]
        if self.jdk:
            _existing(workspace / self.jdk / "bin" / "java", "jdk", f"{self.jdk}/bin/java")
            env = {"JAVA_HOME": str(workspace / self.jdk)}
        return program, options, env


def _existing(path: Path, name: str, shown: str) -> Path:
    if not path.exists():
        raise StageFailed(f"{name}: there is no {shown}", kind=CauseKind.CONFIG)
    return path


@asynccontextmanager
async def _repository(ctx: StageContext) -> AsyncIterator[Path]:
    home = Path(ctx.env.get("HOME") or "/nonexistent")
    found = await ctx.call(lease, ctx.cache / "repositories", home)
    try:
        yield found.repository
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.call(found.release)
