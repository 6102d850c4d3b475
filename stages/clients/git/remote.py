"""Network work with one remote repository: which commit a name means, and how it comes into a folder."""

import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType

import anyio
from pydantic import JsonValue

from pipeline.locks import take
from pipeline.stage import CauseKind, StageErrored, StageFailed, Surroundings
from stages.clients.git.address import Address, check_ref, is_commit
from stages.clients.git.command import askpass, environment, git, without
from stages.clients.git.tree import CommitFiles, has_commit, prepare_mirror
from stages.clients.git.trouble import SILENT, trouble, worth_trying
from stages.clients.output import Lines

__all__ = ["Found", "Remote"]

LOCK_PAUSE = 0.05
LOOKUP_LIMIT = 20.0
"""Seconds in which a host must have listed its branches; git itself would wait minutes for a silent one."""
FIRST_PAUSE = 0.5
"""Seconds before a call is made again; the next pauses are twice as long each."""
PATIENCE = 180.0
"""Seconds after which no call is made again."""

MARKER = "pipe-checkout"
"""A file in `.git` that says: this repository is ours, and what else is in the folder."""
ALONE, SHARED, LAID = "alone", "shared", "laid"
"""Nothing else is; other files are; other files are, and ours have been laid beside them."""

REF_LINE = re.compile(r"(?P<id>[0-9a-f]{40,64}|ref: [^\t]+)\t(?P<name>[^\t]+)")
PROGRESS = re.compile(r"(?:remote: )?(?P<what>[A-Z][a-z]+(?: [a-z]+)*): +(?P<percent>\d+)% ")
REFUSES_COMMITS = ("unadvertised object", "not our ref", "does not support", "no such remote ref", "couldn't find")


@dataclass(frozen=True, slots=True)
class Found:
    """What a name meant when it was looked up: a commit and the full ref that led to it (empty for a bare commit)."""

    commit: str
    ref: str = ""

    @classmethod
    def of(cls, value: JsonValue) -> "Found":
        """From what `as_json` gave."""
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is nothing that was found in a repository")
        return cls(str(value["commit"]), str(value["ref"]))

    def as_json(self) -> JsonValue:
        """For the journal."""
        return {"commit": self.commit, "ref": self.ref}

    @property
    def branch(self) -> str:
        """The name of the branch, if it was one."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else ""

    @property
    def tag(self) -> str:
        """The name of the tag, if it was one."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""


class Remote:
    """One repository somewhere, with the login to it."""

    def __init__(self, ctx: Surroundings, address: Address, secret: str = "", *, strange: bool = False) -> None:
        """`strange`: what it holds may be a stranger's, whose submodules lead to places that anybody may read."""
        self._ctx = ctx
        self._strange = strange
        self._address = address
        self._secret = secret
        self._environment: Mapping[str, str] | None = None

    # -- looking up --------------------------------------------------------------------------------

    async def find(self, ref: str, leads_to_it: str = "") -> Found:
        """The commit that a branch, a tag, a full ref or a commit means now; empty: the remote's HEAD.

        `leads_to_it` is the full ref that is known to lead to a commit.

        Raises:
            StageFailed: there is no such ref, no such repository, or the login is refused.
            StageErrored: the host does not answer.
        """
        if is_commit(ref):
            return Found(ref, leads_to_it)
        if not ref:
            return self._head(await self._refs("--symref", patterns=["HEAD"]))
        try:
            check_ref(ref)
        except ValueError as error:
            raise StageFailed(str(error), kind=CauseKind.CONFIG) from None
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        refs = dict(await self._refs(patterns=[pattern for name in names for pattern in (name, f"{name}^{{}}")]))
        for name in names:
            if commit := refs.get(f"{name}^{{}}") or refs.get(name):
                return Found(commit, name)
        raise await self._missing(ref)

    def _head(self, refs: Sequence[tuple[str, str]]) -> Found:
        branch = next((value.removeprefix("ref: ") for name, value in refs if value.startswith("ref: ")), "")
        for name, value in refs:
            if name == "HEAD" and not value.startswith("ref: "):
                return Found(value, branch)
        message = (
            f"git ls-remote {self._address}: the repository is empty, or its HEAD names a branch that does not exist"
        )
        raise StageFailed(message, kind=CauseKind.CONFIG)

    async def _missing(self, ref: str) -> StageFailed:
        refs = await self._refs("--heads", "--tags")
        names = sorted({name.split("/", 2)[2].removesuffix("^{}") for name, _ in refs})
        near = get_close_matches(ref, names, n=3, cutoff=0.5)
        hint = f"; near: {', '.join(near)}" if near else f"; there are: {', '.join(names[:10])}" if names else ""
        if re.fullmatch(r"[0-9a-f]{7,39}", ref):
            hint = "; a commit needs all of its 40 digits"
        message = f"git ls-remote {self._address}: there is no branch or tag '{ref}'{hint}"
        return StageFailed(message, kind=CauseKind.CONFIG)

    async def _refs(self, *options: str, patterns: Sequence[str] = ()) -> list[tuple[str, str]]:
        words = ["ls-remote", "--quiet", *options, "--end-of-options", self._address.url, *patterns]
        found: list[tuple[str, str]] = []  # a broken answer is told by the exit code, and nothing of it is used

        def take(line: str) -> bool:
            match = REF_LINE.fullmatch(line)
            if match:
                found.append((match["name"], match["id"]))
            return match is not None

        async def look() -> tuple[int, list[str]]:
            found.clear()
            with anyio.move_on_after(LOOKUP_LIMIT):
                return await self._git(words, take)
            return 1, [SILENT.format(limit=LOOKUP_LIMIT)]

        await self._tried("ls-remote", look)
        if not found:  # git takes an answer that was cut in its headers for an empty one
            await self._tried("ls-remote", look)
        return found

    async def _tried(
        self, command: str, call: Callable[[], Awaitable[tuple[int, list[str]]]], but: Sequence[str] = ()
    ) -> bool:
        """Make a call, and make it again while that may help and time is left.

        Returns whether it went well; if it did not, one of its lines holds one of the words in `but`.

        Raises:
            StageFailed: it cannot go well.
            StageErrored: the host does not answer.
        """
        began, tries = anyio.current_time(), 0
        while True:
            code, lines = await call()
            tries += 1
            if not code or any(word in line for line in lines for word in but):
                return not code
            if tries > worth_trying(lines) or anyio.current_time() - began > PATIENCE:
                raise trouble(command, self._address, lines, self._secret, tries)
            pause = FIRST_PAUSE * 2 ** (tries - 1)
            self._ctx.log(f"git {command} {self._address}: it broke off; trying again in {pause:g} s")
            await anyio.sleep(pause)

    # -- bringing here -----------------------------------------------------------------------------

    async def bring(self, found: Found, folder: Path, *, depth: int, submodules: bool) -> None:
        """Make `folder` hold exactly that commit, whatever an earlier attempt left in it.

        Raises:
            StageFailed: the folder holds somebody else's repository, or the remote has no such commit.
            StageErrored: the host does not answer.
        """
        state = await self._ctx.call(_prepare, folder)
        await self._local("init", ["init", "--quiet", "--template=", "--", "."], folder)
        await self._local("init", ["config", "remote.origin.url", self._address.url], folder)
        await self._fetch(found, folder, depth)
        await self._check_out(found, folder, state)
        if submodules:
            words = ["submodule", "update", "--init", "--recursive", *([f"--depth={depth}"] if depth else [])]
            await self._tried("submodule", partial(self._git, words, self._shown, folder, self._reachable()))

    async def files(self, found: Found) -> CommitFiles:
        """The files of a commit, out of a bare copy that outlives runs; only what it has not yet is fetched.

        Raises as `bring` does.
        """
        name = hashlib.sha256(self._address.url.encode()).hexdigest()[:16]
        mirror = self._ctx.cache / "mirrors" / name
        async with locked(self._ctx, mirror.with_suffix(".lock")):
            if not await self._ctx.call(prepare_mirror, mirror):
                await self._local("init", ["init", "--quiet", "--bare", "--template=", "--", "."], mirror)
            if not await self._ctx.call(has_commit, mirror, found.commit):
                await self._fetch(found, mirror, depth=1)
                if not await self._ctx.call(has_commit, mirror, found.commit):
                    raise self._no_commit(found)
        return CommitFiles(mirror, found.commit, str(self._address))

    async def _fetch(self, found: Found, folder: Path, depth: int) -> None:
        everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        limit = [f"--depth={depth}"] if depth else []
        first = partial(self._fetch_once, [*limit], [found.commit, *([] if depth else everything)], folder)
        if not await self._tried("fetch", first, REFUSES_COMMITS):
            self._ctx.log(f"{self._address} gives no single commits: fetching {found.ref or 'all branches and tags'}")
            refs = [found.ref] if found.ref and depth else everything
            await self._tried("fetch", partial(self._fetch_once, [], refs, folder))

    async def _fetch_once(self, options: Sequence[str], refs: Sequence[str], folder: Path) -> tuple[int, list[str]]:
        words = ["fetch", "--progress", "--no-tags", "--force", *options, "--end-of-options", self._address.url, *refs]
        return await self._git(words, self._shown, folder)

    async def _check_out(self, found: Found, folder: Path, state: str) -> None:
        options = ["--quiet", "--detach", *(["--force"] if state != SHARED else [])]
        code, lines = await self._git(["checkout", *options, found.commit, "--"], self._shown, folder)
        if code and any("unable to read tree" in line or "not a tree" in line for line in lines):
            raise self._no_commit(found, lines)
        if code:
            raise StageFailed(f"git checkout {self._address}: {_last(lines)}", evidence=lines)
        if state == SHARED:
            await self._ctx.call((folder / ".git" / MARKER).write_text, LAID)
        if state == ALONE:
            await self._local("clean", ["clean", "--quiet", "-ffdx"], folder)

    def _no_commit(self, found: Found, lines: Sequence[str] = ()) -> StageFailed:
        message = f"git checkout {self._address}: there is no commit {found.commit}; was its branch rewritten?"
        return StageFailed(message, kind=CauseKind.CONFIG, evidence=lines)

    async def _local(self, phase: str, words: Sequence[str], folder: Path) -> None:
        code, lines = await self._git(words, self._shown, folder)
        if code:
            raise StageErrored(f"git {phase} in {folder}: {_last(lines)}", evidence=lines)

    async def version(self) -> str:
        """Of git itself."""
        found: list[str] = []

        def take(line: str) -> bool:
            found.append(line)
            return True

        await self._git(["--version"], take)
        return "".join(found).removeprefix("git version ")

    # -- running git -------------------------------------------------------------------------------

    def _reachable(self) -> Mapping[str, str]:
        """What holds back the submodules of a stranger: neither our ssh keys nor our disk are for them."""
        return (
            {"GIT_ALLOW_PROTOCOL": "http:https" if self._address.scheme == "http" else "https"} if self._strange else {}
        )

    async def _git(
        self,
        words: Sequence[str],
        take: Callable[[str], bool],
        folder: Path | None = None,
        besides: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, list[str]]:
        """Run git; lines that `take` does not want are logged. Returns its exit code and its last such lines."""
        if self._environment is None:
            self._environment = await self._make_environment()
        kept: deque[str] = deque(maxlen=40)

        def sort(line: str) -> None:
            if not take(line):
                self._ctx.log(line)
                kept.append(line)

        lines = Lines(sort)
        argv = [*without(self._ctx.env), *git(folder), *words]
        ended = await self._ctx.exec(
            argv, env={**self._environment, **besides}, cwd=folder, output=lines.feed, check=False
        )
        lines.end()
        return ended.exit_code, list(kept)

    def _shown(self, line: str) -> bool:
        match = PROGRESS.match(line)
        if match:
            percent = int(match["percent"])
            self._ctx.progress(f"{match['what'].lower()} {percent} %", percent / 100)
        return match is not None

    async def _make_environment(self) -> Mapping[str, str]:
        secret = self._ctx.secret(self._secret) if self._secret else None
        program = await self._ctx.call(askpass, self._ctx.cache)
        return environment(self._address, secret, program)


@asynccontextmanager
async def locked(ctx: Surroundings, path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; whoever holds it loses it by dying.

    Raises:
        NoLocksError: the file system has none.
    """
    await ctx.call(partial(path.parent.mkdir, parents=True, exist_ok=True))
    while (file := await ctx.call(take, path)) is None:  # noqa: ASYNC110 - another process has it
        await anyio.sleep(LOCK_PAUSE)
    with file:
        await ctx.call(os.utime, file.fileno())
        yield


def _prepare(folder: Path) -> str:
    """Make the folder ready and say what is in it: ALONE, SHARED or LAID."""
    folder.mkdir(parents=True, exist_ok=True)
    git, marker = folder / ".git", folder / ".git" / MARKER
    if git.is_symlink() or (git.exists() and not marker.exists()):
        message = f"{folder} holds a git repository that no checkout made: choose another folder with `into:`"
        raise StageFailed(message, kind=CauseKind.CONFIG)
    state = marker.read_text() if git.exists() else SHARED if any(folder.iterdir()) else ALONE
    if git.exists():
        shutil.rmtree(git)
    git.mkdir()
    marker.write_text(state)
    return state


def _last(lines: Sequence[str]) -> str:
    said = [line for line in lines if line.startswith(("fatal:", "error:"))] or list(lines)
    return said[0] if said else "it did not say why"
