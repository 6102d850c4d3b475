"""The files of a commit as a repository has them, read without checking them out; all of it blocks."""

import errno
import os
import posixpath
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.clients.git.command import ENVIRONMENT, git

__all__ = ["CommitFiles", "has_commit", "prepare_mirror"]

MOST_PACKS = 50
"""Fetches after which a mirror is begun anew: nothing in it is worth keeping long."""
MOST_LINKS = 10
READ_LIMIT = 30.0
_LINK = "120000"


def prepare_mirror(folder: Path) -> bool:
    """Make room for a bare repository; whether there is one already."""
    packs = folder / "objects" / "pack"
    if packs.is_dir() and len(list(packs.glob("*.pack"))) > MOST_PACKS:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "HEAD").exists()


def has_commit(repository: Path, commit: str) -> bool:
    """Whether a bare repository has a commit with all of its files."""
    return _git(repository, "ls-tree", "-r", "--name-only", "--end-of-options", commit) is not None


@dataclass(frozen=True, slots=True)
class CommitFiles:
    """Satisfies `pipeline.stage.Files`. A link is followed within the commit; submodules are not in it."""

    repository: Path
    commit: str
    url: str

    @property
    def where(self) -> str:
        """The repository and the commit."""
        return f"{self.url} at {self.commit[:12]}"

    def names(self, below: str = "") -> Iterator[str]:
        """Every file and link in a folder of the commit."""
        for _, name in self._entries("-r", _normal(below)):
            yield name

    def read(self, name: str) -> bytes:
        """A file of the commit."""
        path = _normal(name)
        for _ in range(MOST_LINKS):
            mode = next((mode for mode, found in self._entries("", path) if found == path), None)
            content = _git(self.repository, "cat-file", "blob", f"{self.commit}:{path}") if mode else None
            if content is None:
                break
            if mode != _LINK:
                return content
            path = _normal(posixpath.join(posixpath.dirname(path), os.fsdecode(content)))
            if path.startswith(("../", "/")):
                raise OSError(errno.EXDEV, "it is a link that leads out", name)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def _entries(self, option: str, path: str) -> Iterator[tuple[str, str]]:
        """Mode and name of every blob at a path, or of all below it with `-r`."""
        words = [word for word in ("ls-tree", "-z", "--full-tree", option) if word]
        listed = _git(self.repository, *words, "--end-of-options", self.commit, *(["--", path] if path else []))
        for line in (listed or b"").split(b"\0"):
            head, _, name = line.partition(b"\t")
            if name and head.split()[1] == b"blob":
                yield head.split()[0].decode(), os.fsdecode(name)


def _git(repository: Path, *words: str) -> bytes | None:
    """What git prints about a repository, None if it refuses; the environment's own words on git mean nothing here."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    argv = [*git(repository), "--git-dir", str(repository), "--literal-pathspecs", *words]
    done = subprocess.run(argv, env={**env, **ENVIRONMENT}, capture_output=True, timeout=READ_LIMIT, check=False)
    return None if done.returncode else done.stdout


def _normal(path: str) -> str:
    normal = posixpath.normpath(path) if path else ""
    return "" if normal == "." else normal
