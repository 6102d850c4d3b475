"""A copy of each project's repository: which refs there are, what a file said at a commit, and what changed."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from runner.process import execute
from runner.server.projects import Project
from stages.clients.git.address import check_ref, parse_url
from stages.clients.git.command import askpass, environment, git, without

__all__ = ["SOME_COMMIT", "NoCommit", "Repository", "RepositoryError", "Strangers"]

ANSWER_WITHIN = 20.0
"""Seconds in which a host must have listed its refs."""
BRING_WITHIN = 600.0
LARGEST_FILE = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
SOME_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_PASSED_ON = ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
_TELLING = re.compile(r"refs/(?:heads|tags)/\S+")


class RepositoryError(Exception):
    """A repository cannot be read; the message says why."""


class NoCommit(Exception):
    """The host answers, and has no such commit any more."""


class _Refused(RepositoryError):
    """git ended with an exit code: what was asked for may just not be there."""

    def __init__(self, url: str, exit_code: int, said: str) -> None:
        lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:"))] or said.splitlines()
        super().__init__(f"{url}: {lines[0] if lines else f'git ended with {exit_code}'}")
        self.missing = exit_code == 1 or any(words in said for words in _MISSING)
        self.no_commit = bool(_NO_COMMIT.search(said))


_MISSING = (
    "does not exist in",
    "exists on disk, but not in",
    "Not a valid object name",
    "could not get object info",
    "Not a valid commit",
)
_NO_COMMIT = re.compile(r"not our ref|request for unadvertised object|want [0-9a-f]{40,64} not valid")
"""What a host says that has no such commit, or gives none that no ref leads to: git by either protocol, and JGit."""


class Repository:
    """The bare copy of one project's repository in the server's own folder. One call at a time."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self._folder = folder
        self._one = anyio.Lock()
        self._main = ""

    async def refs(self) -> dict[str, str]:
        """Every branch and tag of the host with the commit it stands for; tags are peeled, names beyond UTF-8 left out.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        text = await self._ask(["ls-remote", "--end-of-options", self.project.url], ANSWER_WITHIN)
        found: dict[str, str] = {}
        for line in text.splitlines():
            commit, _, name = line.partition("\t")
            if _COMMIT.fullmatch(commit) and _TELLING.fullmatch(name) and name.isprintable():
                found[name.removesuffix("^{}")] = commit
        return found

    async def main_branch(self) -> str:
        """The branch that the host's HEAD names.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        if not self._main:
            said = await self._ask(["ls-remote", "--symref", "--end-of-options", self.project.url, "HEAD"])
            found = re.match(r"ref: refs/heads/(\S+)\tHEAD", said)
            if found is None:
                raise RepositoryError(f"{self.project.url} does not say which branch is its main one: it is empty")
            self._main = found[1]
        return self._main

    async def bring(self) -> None:
        """Fetch all branches and tags; what a force push left behind stays for two weeks.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        async with self._one:
            await self._make()
            refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            words = ["fetch", "--quiet", "--prune", "--no-tags", "--end-of-options", self.project.url, *refspecs]
            await self._ask(words, BRING_WITHIN)
            await self._tidy()

    async def bring_tip(self, branch: str) -> str:
        """Fetch the newest commit of a branch without what was before it, and return it.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        async with self._one:
            await self._make()
            ref = f"refs/heads/{branch}"
            words = [
                "fetch",
                "--quiet",
                "--depth=1",
                "--no-tags",
                "--end-of-options",
                self.project.url,
                f"+{ref}:{ref}",
            ]
            await self._ask(words)
        return await self.commit(ref)

    async def bring_commit(self, commit: str) -> None:
        """Fetch a commit that the copy lacks: with the branches and tags, else by its id, for no ref may lead to it.

        Raises:
            RepositoryError: the host does not answer, or refuses.
            NoCommit: it has no such commit.
        """
        if await self.has(commit):
            return
        await self.bring()
        if await self.has(commit):
            return
        async with self._one:
            try:
                words = ["fetch", "--quiet", "--no-tags", "--end-of-options", self.project.url, commit]
                await self._ask(words, BRING_WITHIN)
            except _Refused as refused:
                if not refused.no_commit:
                    raise
                raise NoCommit(f"{self.project.url} has no commit {commit[:12]} any more") from refused

    async def _make(self) -> None:
        if not self._folder.exists():
            part = self._folder.with_name(f"{self._folder.name}.part")
            await anyio.to_thread.run_sync(partial(shutil.rmtree, part, ignore_errors=True))
            await self._ask(["init", "--quiet", "--bare", str(part)])
            await anyio.to_thread.run_sync(part.rename, self._folder)

    async def _tidy(self) -> None:
        await self._ask(["-c", "gc.auto=2000", "-c", "gc.autoPackLimit=30", "gc", "--auto", "--quiet"], BRING_WITHIN)

    async def has(self, commit: str) -> bool:
        """Whether the copy has a commit."""
        if not _COMMIT.fullmatch(commit):
            return False
        return (await self._maybe(["cat-file", "-t", commit]) or "").strip() == "commit"

    async def commit(self, ref: str) -> str:
        """The commit that a full ref, or the beginning of a commit's id, stands for; empty if there is none."""
        if not SOME_COMMIT.fullmatch(ref):
            try:
                check_ref(ref)  # git reads more than names: `main~1`, `main@{1}`
            except ValueError:
                return ""
        return (await self._maybe(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]) or "").strip()

    async def message(self, commit: str) -> str:
        """The message of a commit."""
        return await self._ask(["log", "-1", "--format=%B", commit, "--"])

    async def text(self, commit: str, path: str) -> bytes | None:
        """What a file said at a commit; None if there was none.

        Raises:
            RepositoryError: it cannot be read now, or is larger than any pipeline file.
        """
        size = await self._maybe(["cat-file", "-s", f"{commit}:{path}"])
        if size is None:
            return None
        if int(size) > LARGEST_FILE:
            raise RepositoryError(f"{path} at {commit[:12]} has {int(size)} bytes: no pipeline file is so large")
        return (await self._ask(["cat-file", "blob", f"{commit}:{path}"])).encode("utf-8", "surrogateescape")

    async def names(self, commit: str) -> list[str]:
        """What lies in the outermost folder at a commit."""
        return [name for name in (await self._ask(["ls-tree", "--name-only", "-z", commit])).split("\0") if name]

    async def changed(self, before: str, commit: str) -> list[str] | None:
        """The files that differ between two commits; None if one of them is not known."""
        if not (await self.has(before) and await self.has(commit)):
            return None
        words = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", before, commit, "--"]
        return [path for path in (await self._ask(words)).split("\0") if path]

    async def base(self, one: str, other: str) -> str:
        """The commit at which two parted; empty if none is known."""
        return (await self._maybe(["merge-base", one, other]) or "").strip()

    async def _maybe(self, words: Sequence[str]) -> str | None:
        """What git says; None if what is asked for is not there."""
        if not self._folder.exists():
            return None
        try:
            return await self._ask(words)
        except _Refused as refused:
            if refused.missing:
                return None
            raise

    async def _ask(self, words: Sequence[str], within: float = ANSWER_WITHIN, url: str = "") -> str:
        """What git says. It has the project's login, unless another `url` is asked."""
        said, complaint = bytearray(), bytearray()
        where = self._folder if self._folder.is_dir() else Path("/")
        argv = [*without(os.environ), *git(where), *words]
        try:
            env = await anyio.to_thread.run_sync(self._environment, url)
            with anyio.fail_after(within):
                ended = await execute(argv, cwd=where, env=env, stdin=b"", stdout=said.extend, stderr=complaint.extend)
        except TimeoutError:
            raise RepositoryError(
                f"{url or self.project.url} does not answer: nothing came within {within:g} s"
            ) from None
        if ended.exit_code:
            raise _Refused(url or self.project.url, ended.exit_code, complaint.decode("utf-8", "replace"))
        return said.decode("utf-8", "surrogateescape")

    def _environment(self, url: str) -> Mapping[str, str]:
        cache = self._folder.parent
        cache.mkdir(parents=True, exist_ok=True)
        own = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
            if name in os.environ
        }
        if self._folder.exists():  # else git would take a repository that this folder may lie in
            own["GIT_DIR"] = str(self._folder)
        login = None if url else self.project.login
        return {**own, **environment(parse_url(url or self.project.url), login, askpass(cache))}


class Strangers(Repository):
    """The heads of pull requests that forks have sent, in a copy of their own that reads the project's objects too.

    What lies here is in no copy of the project, so no event that claims to be of the project can name it.
    """

    def __init__(self, project: Project, folder: Path, beside: Path) -> None:
        """`beside` is the copy of the project's own repository, which must have been brought before."""
        super().__init__(project, folder)
        self._beside = beside

    async def bring_head(self, ref: str, number: str, url: str = "") -> str:
        """Fetch the head of a pull request from a ref, and return the commit; empty if there is no such ref.

        It comes from the project's repository, or from `url`, which is shown no login.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        async with self._one:
            await self._make()
            alternates = anyio.Path(self._folder / "objects" / "info" / "alternates")
            await alternates.write_text(f"{self._beside / 'objects'}\n")
            here = f"refs/heads/{number}"
            words = ["fetch", "--quiet", "--no-tags", "--end-of-options", url or self.project.url, f"+{ref}:{here}"]
            try:
                await self._ask(words, BRING_WITHIN, url)
            except _Refused as refused:
                if "find remote ref" in str(refused):
                    return ""
                raise
            await self._tidy()
        return await self.commit(here)
