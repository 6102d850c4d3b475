"""`uses: checkout`: the sources of a run, one commit for all of its stages."""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue, field_validator

from pipeline.files import Folder
from pipeline.repository import same_repository
from pipeline.stage import (
    CauseKind,
    Examined,
    Exported,
    Files,
    Foreseen,
    Outputs,
    PreflightContext,
    SecretRef,
    Stage,
    StageContext,
    StageFailed,
    Surroundings,
    is_open,
)
from stages.clients.git import local
from stages.clients.git.address import Address, parse_url
from stages.clients.git.remote import Found, Remote

__all__ = ["Checkout", "CheckoutOutputs"]


class CheckoutOutputs(Outputs):
    """What was checked out."""

    commit: Annotated[str, Exported("GIT_COMMIT")]
    """The commit; of a copied working tree its head with `-dirty` behind it."""
    branch: Annotated[str, Exported("BRANCH_NAME")] = ""
    """The branch, if `ref` named one or the remote's HEAD is one."""
    tag: Annotated[str, Exported("TAG_NAME")] = ""
    """The tag, if `ref` named one."""
    dirty: bool = False
    """It is a copy of a working tree, not a commit."""
    subject: str = ""
    """First line of the commit's message."""


class Checkout(Stage[CheckoutOutputs]):
    """Check out a commit from git; a branch is looked up once a run."""

    contained: ClassVar[bool] = True
    secrets_optional: ClassVar[bool] = True
    prepares: ClassVar[bool] = True

    url: str = ""
    """http(s), ssh or file, without a login in it. Empty: the repository that the pipeline's file is in."""
    ref: str = ""
    """Branch, tag, full ref or commit (all 40 digits). Empty: the remote's HEAD."""
    secret: Annotated[str, SecretRef(("login", "text", "ssh"))] = ""
    """A login, a token (text) or an ssh key; sent to the host of `url` alone."""
    into: str = "."
    """The folder in the workspace to check out into."""
    depth: int = Field(default=1, ge=0)
    """How many commits of history; 0: all, with every branch and tag."""
    submodules: bool = False
    """Check out submodules too, by https and ssh only."""

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str) -> str:
        if url and not is_open(url):
            parse_url(url)
        return url

    @field_validator("into")
    @classmethod
    def _inside(cls, into: str) -> str:
        path = PurePosixPath(into)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("it must be a folder in the workspace")
        return into

    async def foresee(self, ctx: PreflightContext) -> Foreseen:
        """The commit, and its files out of a copy of the repository."""
        if source := ctx.env.get("PIPE_SOURCE_DIR"):
            place = Path(source)
            outputs = await _of_working_tree(ctx, place)
            return Foreseen(outputs, files=partial(_folder, place), folder=self.into)
        address = await self._address(ctx)
        remote = self._remote(ctx, address)
        found = await self._find(ctx, remote, address)
        outputs = CheckoutOutputs(commit=found.commit, branch=found.branch, tag=found.tag)
        return Foreseen(outputs, frozenset({"subject"}), partial(remote.files, found), self.into)

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """Looking up a branch has proven the login; a bare commit has to be asked for."""
        if ctx.env.get("PIPE_SOURCE_DIR"):
            return Examined()
        address = await self._address(ctx)
        remote = self._remote(ctx, address)
        found = await self._find(ctx, remote, address)
        if not found.ref:
            await remote.files(found)
        return Examined(checked=[f"{found.ref or self.ref or 'HEAD'} is {found.commit}"])

    async def run(self, ctx: StageContext) -> CheckoutOutputs:
        """Copy a working tree if the user asked for one, else look up the commit and bring it here."""
        folder = await ctx.call(_within, ctx.root, ctx.workspace / self.into)
        if source := ctx.env.get("PIPE_SOURCE_DIR"):
            return await _copied(ctx, Path(source), folder)
        address = await self._address(ctx)
        remote = self._remote(ctx, address)
        found = await self._find(ctx, remote, address)
        ctx.log(f"{address}: {found.ref or self.ref or 'HEAD'} is {found.commit}")
        await remote.bring(found, folder, depth=self.depth, submodules=self.submodules)
        await ctx.tool("git", remote.version)
        subject = await ctx.call(local.subject, folder)
        return CheckoutOutputs(commit=found.commit, branch=found.branch, tag=found.tag, subject=subject)

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:
        """Whether the folder still stands at the commit."""
        if not isinstance(outputs, CheckoutOutputs):
            return ""
        folder = await ctx.call(_within, ctx.root, ctx.workspace / self.into)
        if outputs.dirty:
            return "" if await ctx.call(folder.is_dir) else f"there is no folder {self.into} in the workspace"
        head = await ctx.call(local.head, folder) if await ctx.call((folder / ".git").exists) else None
        if head is None:
            return f"the checkout in {self.into} is gone from the workspace"
        return "" if head.commit == outputs.commit else f"{self.into} stands at {head.commit}, not at {outputs.commit}"

    async def _address(self, ctx: Surroundings) -> Address:
        elsewhere = ctx.env.get("PIPE_SOURCE_FROM", "") if self._takes_event(ctx) else ""
        url = elsewhere or self.url or await _own_source(ctx)
        try:
            return parse_url(url)
        except ValueError as error:
            raise StageFailed(f"url: {error}", kind=CauseKind.CONFIG) from None

    def _remote(self, ctx: Surroundings, address: Address) -> Remote:
        return Remote(ctx, address, self.secret, strange=bool(ctx.env.get("PIPE_SOURCE_STRANGE")))

    async def _find(self, ctx: Surroundings, remote: Remote, address: Address) -> Found:
        ours = self._takes_event(ctx)
        ref = ctx.env["PIPE_SOURCE_COMMIT"] if ours else self.ref
        leads_to_it = ctx.env.get("PIPE_SOURCE_HEAD", "") if ours else ""

        async def find() -> JsonValue:
            return (await remote.find(ref, leads_to_it)).as_json()

        # Where the run's own repository lies is no part of what was found in it: an approved plan may move with it.
        own = not self.url and "://" not in ctx.env.get("PIPE_SOURCE", "")
        return Found.of(await ctx.once(f"git {'own source' if own else address.url} {ref or 'HEAD'}", find))

    def _takes_event(self, ctx: Surroundings) -> bool:
        """Whether what started the run is meant: then its very commit is taken, not the newest by now."""
        commit = ctx.env.get("PIPE_SOURCE_COMMIT", "")
        if not commit or (self.url and not same_repository(self.url, ctx.env.get("PIPE_SOURCE", ""))):
            return False
        return self.ref in ("", ctx.env.get("PIPE_SOURCE_REF", ""), commit)


async def _own_source(ctx: Surroundings) -> str:
    source = ctx.env.get("PIPE_SOURCE", "")
    if not source or "://" in source or ctx.env.get("PIPE_SOURCE_COMMIT"):
        return source or _refuse("there is no `url:`, and this run has no source of its own")
    top = await ctx.call(local.top, Path(source))
    if top is None:
        return _refuse(
            f"there is no `url:`, and {source} is in no git repository; --source DIR takes a folder as it is"
        )
    head = await ctx.call(local.head, top)
    if head and head.changed:
        ctx.log(f"warning: changes in {top} that are not committed are not part of this run; --source takes them along")
    return top.as_uri()


def _refuse(message: str) -> str:
    raise StageFailed(message, kind=CauseKind.CONFIG)


async def _copied(ctx: StageContext, source: Path, folder: Path) -> CheckoutOutputs:
    outputs = await _of_working_tree(ctx, source)
    count = await ctx.call(local.copy_tree, source, folder, ctx.root)
    ctx.log(f"copied {count} files of the working tree {source}")
    return outputs


async def _folder(source: Path) -> Files:
    return Folder(source, source)


async def _of_working_tree(ctx: Surroundings, source: Path) -> CheckoutOutputs:
    if not await ctx.call(source.is_dir):
        raise StageFailed(f"--source {source}: there is no such folder", kind=CauseKind.CONFIG)
    head = await ctx.call(local.head, source)
    if head is None:
        return CheckoutOutputs(commit="dirty", dirty=True)
    return CheckoutOutputs(commit=f"{head.commit}-dirty", branch=head.branch, dirty=True, subject=head.subject)


def _within(root: Path, folder: Path) -> Path:
    """The folder, unless a symlink leads out of the workspace."""
    if not folder.resolve().is_relative_to(root.resolve()):
        raise StageFailed(f"into: {folder} lies outside of the workspace", kind=CauseKind.CONFIG)
    return folder
