"""Reading repositories on this machine, and copying a working tree; all of it blocks."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Head", "copy_tree", "head", "subject", "top"]

SUBJECT_LIMIT = 200
OURS = ".pipe"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a working tree stands."""

    commit: str
    branch: str
    subject: str
    changed: bool
    """Tracked files differ from the commit."""


def top(folder: Path) -> Path | None:
    """The top of the repository that a folder is in, or None."""
    from git import InvalidGitRepositoryError, NoSuchPathError, Repo

    try:
        with Repo(folder, search_parent_directories=True) as repo:
            return Path(repo.working_dir)
    except (InvalidGitRepositoryError, NoSuchPathError):
        return None


def head(folder: Path) -> Head | None:
    """The head of the repository that a folder is in; None without a repository or a first commit."""
    from git import Repo

    where = top(folder)
    if where is None:
        return None
    with Repo(where) as repo:
        if not repo.head.is_valid():
            return None
        branch = "" if repo.head.is_detached else repo.active_branch.name
        commit = repo.head.commit
        return Head(commit.hexsha, branch, _line(commit.summary), repo.is_dirty(submodules=False))


def subject(folder: Path) -> str:
    """The first line of the head commit's message."""
    from git import Repo

    with Repo(folder) as repo:
        return _line(repo.head.commit.summary)


def _line(summary: str | bytes) -> str:
    text = summary.decode(errors="replace") if isinstance(summary, bytes) else summary
    return text[:SUBJECT_LIMIT]


def copy_tree(source: Path, target: Path, without: Path) -> int:
    """Copy what git tracks or does not ignore (everything, without a repository), symlinks as they are.

    `without` is a folder inside `source` that stays out, as does what pipe keeps there. Returns how many files.
    """
    count = 0
    for relative in _listed(source):
        path = source / relative
        if relative.parts[0] == OURS or path == without or without in path.parents:
            continue
        count += _copy(path, target / relative)
    return count


def _listed(source: Path) -> Iterator[Path]:
    from git import Git

    if top(source) is None:
        yield from _walked(source)
        return
    listed = Git(source).ls_files("--cached", "--others", "--exclude-standard", "-z", stdout_as_string=False)
    for name in sorted(set(bytes(listed).split(b"\0"))):
        if name:
            yield Path(os.fsdecode(name))


def _walked(source: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(source):
        for name in files:
            yield (Path(folder) / name).relative_to(source)


def _copy(path: Path, target: Path) -> int:
    """Copy one entry; one that is gone from the working tree is left out."""
    if not path.is_symlink() and not path.exists():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():  # a submodule is listed as its folder
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
        return 1
    target.unlink(missing_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
    else:
        shutil.copy2(path, target)
    return 1
