"""A copy of each project's repository: which refs there are, what a file said at a commit, and what changed."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from runner.process import execute
from runner.server.projects import Project
from stages.clients.git.address import parse_url
from stages.clients.git.command import askpass, environment, git, without

__all__ = ["Repository", "RepositoryError"]

ANSWER_WITHIN = 20.0
"""Seconds in which a host must have listed its refs."""
BRING_WITHIN = 600.0
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_PASSED_ON = ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
_TELLING = re.compile(r"refs/(?:heads|tags)/\S+")


class RepositoryError(Exception):
    """A repository cannot be read; the message says why."""


class Repository:
    """The bare copy of one project's repository in the server's own folder. One call at a time."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project = project
        self._folder = folder
        self._one = anyio.Lock()
        self._main = ""

    async def refs(self) -> dict[str, str]:
        """Every branch and tag of the host with the commit it stands for; tags are peeled.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        text = await self._ask(["ls-remote", "--end-of-options", self._project.url], ANSWER_WITHIN)
        found: dict[str, str] = {}
        for line in text.splitlines():
            commit, _, name = line.partition("\t")
            if _COMMIT.fullmatch(commit) and _TELLING.fullmatch(name):
                found[name.removesuffix("^{}")] = commit
        return found

    async def main_branch(self) -> str:
        """The branch that the host's HEAD names; `main` if it does not say.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        if not self._main:
            said = await self._ask(["ls-remote", "--symref", "--end-of-options", self._project.url, "HEAD"])
            found = re.match(r"ref: refs/heads/(\S+)\tHEAD", said)
            self._main = found[1] if found else "main"
        return self._main

    async def bring(self) -> None:
        """Fetch all branches and tags; what a force push left behind stays until git collects it.

        Raises:
            RepositoryError: the host does not answer, or refuses.
        """
        async with self._one:
            if not (self._folder / "HEAD").exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                await self._ask(["init", "--quiet", "--bare", "."], ANSWER_WITHIN)
            refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            words = ["fetch", "--quiet", "--prune", "--no-tags", "--end-of-options", self._project.url, *refspecs]
            await self._ask(words, BRING_WITHIN)

    async def has(self, commit: str) -> bool:
        """Whether the copy has a commit."""
        if not _COMMIT.fullmatch(commit):
            return False
        try:
            return (await self._ask(["cat-file", "-t", commit])).strip() == "commit"
        except RepositoryError:
            return False

    async def commit(self, ref: str) -> str:
        """The commit that a full name of a ref stands for; empty if there is no such ref."""
        try:
            return (await self._ask(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"])).strip()
        except RepositoryError:
            return ""

    async def message(self, commit: str) -> str:
        """The message of a commit."""
        return await self._ask(["log", "-1", "--format=%B", commit, "--"])

    async def text(self, commit: str, path: str) -> bytes | None:
        """What a file said at a commit; None if there was none."""
        try:
            found = await self._ask(["cat-file", "blob", f"{commit}:{path}"])
        except RepositoryError:
            return None
        return found.encode("utf-8", "surrogateescape")

    async def changed(self, before: str, commit: str) -> list[str] | None:
        """The files that differ between two commits; None if one of them is not known."""
        if not (await self.has(before) and await self.has(commit)):
            return None
        words = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", before, commit, "--"]
        return [path for path in (await self._ask(words)).split("\0") if path]

    async def base(self, one: str, other: str) -> str:
        """The commit at which two parted; empty if none is known."""
        try:
            return (await self._ask(["merge-base", one, other])).strip()
        except RepositoryError:
            return ""

    async def _ask(self, words: Sequence[str], within: float = ANSWER_WITHIN) -> str:
        said, complaint = bytearray(), bytearray()
        where = self._folder if self._folder.is_dir() else Path("/")
        argv = [*without(os.environ), *git(where), *words]
        try:
            env = await anyio.to_thread.run_sync(self._environment)
            with anyio.fail_after(within):
                ended = await execute(argv, cwd=where, env=env, stdin=b"", stdout=said.extend, stderr=complaint.extend)
        except TimeoutError:
            raise RepositoryError(f"{self._project.url} does not answer: nothing came within {within:g} s") from None
        if ended.exit_code:
            lines = complaint.decode("utf-8", "replace").strip().splitlines()
            raise RepositoryError(f"{self._project.url}: {lines[-1] if lines else f'git ended with {ended.exit_code}'}")
        return said.decode("utf-8", "surrogateescape")

    def _environment(self) -> Mapping[str, str]:
        cache = self._folder.parent
        cache.mkdir(parents=True, exist_ok=True)
        own = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
            if name in os.environ
        }
        return {**own, **environment(parse_url(self._project.url), self._project.login, askpass(cache))}
