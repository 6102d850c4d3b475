"""`uses: npm`: install the packages of a front end and run one of its scripts."""

import shutil
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from pipeline.errors import nearest
from pipeline.files import has
from pipeline.stage import (
    Cause,
    CauseKind,
    Examined,
    Finding,
    NoOutputs,
    PreflightContext,
    Severity,
    Stage,
    StageContext,
    StageFailed,
    doubted,
    no_program,
    rewriters,
    writers,
)
from stages.clients.npm import (
    LOCKS,
    MARKER,
    Package,
    Store,
    install_trouble,
    packages,
    parse_package,
    read_package,
    told,
)
from stages.clients.output import Lines

__all__ = ["Npm"]

QUIET = {
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_audit": "false",
    "npm_config_progress": "false",
    # npm's own pauses add up to a minute before it says that a registry is down
    "npm_config_fetch_retry_factor": "3",
    "npm_config_fetch_retry_mintimeout": "1000",
}


class Npm(Stage[NoOutputs]):
    """Install npm packages, once for the same lock file, and run a script of package.json."""

    computes: ClassVar[bool] = True
    contained: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True

    target: str = ""
    """The script of package.json to run. Empty: only install."""
    install: Literal["auto", "ci", "install", "none"] = "auto"
    """`ci` follows the lock file to the letter, `install` may change it; `auto`: `ci` if there is one."""
    registry: str = ""
    """The URL of the npm registry. Empty: the one that .npmrc names, else npm's own."""

    @field_validator("target", "registry")
    @classmethod
    def _no_option(cls, text: str) -> str:
        if text.startswith("-"):
            raise ValueError("it must not begin with a dash")
        return text

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that npm and Node.js are there, and package.json has the script."""
        path = ctx.env.get("PATH")
        found = [no_program(ctx, name) for name in ("npm", "node") if not await ctx.call(shutil.which, name, path=path)]
        files = await ctx.files()
        try:
            package = parse_package(await ctx.call(files.read, "package.json"), files.where)
        except FileNotFoundError:
            found.append(doubted(_wrong(f"there is no package.json in {files.where}", "set `dir:`"), writers(ctx)))
        else:
            if self.target and self.target not in (package.get("scripts") or {}):
                message = f"package.json has no script '{self.target}'"
                found.append(
                    doubted(_wrong(message, nearest(self.target, package.get("scripts") or {})), rewriters(ctx))
                )
            if self.install == "ci" and not any([await ctx.call(has, files, name) for name in LOCKS]):
                message = "`npm ci` needs a package-lock.json, and there is none"
                found.append(doubted(_wrong(message, "commit it, or say `install: auto`"), writers(ctx)))
        return Examined(found, [] if found else ["npm, Node.js and package.json are there"])

    async def run(self, ctx: StageContext) -> NoOutputs:
        """Install, then run the script."""
        package = await ctx.call(read_package, ctx.workspace)
        if self.target and self.target not in package.scripts:
            hint = nearest(self.target, package.scripts)
            message = f"package.json has no script '{self.target}'" + (f"; {hint}" if hint else "")
            raise StageFailed(message, kind=CauseKind.CONFIG)
        if self.install != "none":
            await self._install(ctx, package)
        if self.target:
            code, lines = await self._npm(ctx, "run", self.target)
            if code:
                raise StageFailed(f"npm run {self.target} ended with exit code {code}", evidence=lines)
        return NoOutputs()

    async def _install(self, ctx: StageContext, package: Package) -> None:
        store, modules = Store(ctx.cache / "modules"), package.folder / "node_modules"
        key = await self._key(ctx, package)
        if key and await self._restored(ctx, store, modules, key):
            return
        how = "ci" if self.install == "ci" or (self.install == "auto" and package.lock) else "install"
        code, lines = await self._npm(ctx, how)
        if code:
            raise install_trouble(f"npm {how}", code, lines)
        if key:
            await self._kept(ctx, store, modules, key)

    async def _kept(self, ctx: StageContext, store: Store, modules: Path, key: str) -> None:
        if await ctx.call(modules.is_dir):
            await ctx.call((modules / MARKER).write_text, key)
            part = await ctx.call(store.new, key)
            await ctx.exec(["cp", "-a", "--", str(modules), str(part)])
            await ctx.call(store.keep, part, key)

    async def _key(self, ctx: StageContext, package: Package) -> str:
        """The name of this installation in the store; empty if it cannot be kept."""
        if self.install == "install" or not await ctx.call(package.keepable):
            return ""
        said = await ctx.exec(["node", "--version"], capture=True)
        node = said.stdout.decode().strip()

        async def version() -> str:
            return node

        await ctx.tool("node", version)
        return await ctx.call(package.key, node, self.registry)

    async def _restored(self, ctx: StageContext, store: Store, modules: Path, key: str) -> bool:
        if await ctx.call(store.has, modules, key):
            ctx.log("node_modules is what the lock file says already")
            return True
        if await ctx.call(modules.exists):
            return False
        reading = await ctx.call(store.read, key)
        try:
            if reading.path is None:
                return False
            ctx.progress("laying node_modules as an earlier run installed them")
            # the name comes last, so that a copy cut short is never taken for a whole one
            part = modules.with_name(f".node_modules.{ctx.run.attempt}.part")
            await ctx.exec(["cp", "-a", "--", str(reading.path), str(part)])
            await ctx.call(part.rename, modules)
        finally:
            reading.close()
        ctx.log("node_modules came from an earlier run with the same lock file")
        return True

    async def _npm(self, ctx: StageContext, *words: str) -> tuple[int, list[str]]:
        ctx.progress(f"npm {' '.join(words)}")
        kept: deque[str] = deque(maxlen=60)
        lines = Lines(kept.append)

        def sink(block: bytes) -> None:
            ctx.log(block)
            lines.feed(block)

        registry = {"npm_config_registry": self.registry} if self.registry else {}
        cache = await ctx.call(packages, ctx.cache)
        with closing(cache):
            env = {**QUIET, "npm_config_cache": str(cache.path), **registry}
            ended = await ctx.exec(["npm", *words], env=env, output=sink, check=False)
        lines.end()
        return ended.exit_code, told(kept)


def _wrong(message: str, hint: str) -> Finding:
    return Finding(Severity.FAILS, Cause(CauseKind.CONFIG, message), hint=hint)
