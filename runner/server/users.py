"""Which user of this machine the runs of a project are, so that no project reaches another's, nor the server's own."""

import ctypes
import grp
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.server.confinement import Confinement
from runner.server.database import uids
from runner.server.layout import Layout

__all__ = ["Account", "Users", "as_owner", "as_run", "hindrance", "users"]

DEFAULT = "200000-200999"
_RANGE = re.compile(r"([1-9][0-9]{0,9})-([1-9][0-9]{0,9})")
PROBED_WITHIN = 30.0
_PROBE = "import os, sys; os.chdir(sys.argv[1]); import runner.launch"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, by number."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Users:
    """Whom projects run as: each somebody of its own out of `first` to `last`; all of them the same if that is one."""

    first: int
    last: int
    gid: int | None = None
    """The group of the one user; in a range a project's group has its user's number."""
    groups: tuple[int, ...] = ()
    """Further groups of all of them."""

    @property
    def apart(self) -> bool:
        """Whether projects are kept from each other, too."""
        return self.last > self.first

    def account(self, connection: Connection, place: str) -> Account:
        """The user of the project at a place, taken at its first run and kept: the files of a former one stay his.

        Raises:
            PipeError: all of them are taken.
        """
        if not self.apart:
            return Account(self.first, self.first if self.gid is None else self.gid)
        uid = connection.execute(select(uids.c.uid).where(uids.c.place == place)).scalar_one_or_none()
        if uid is None:
            taken = set(connection.execute(select(uids.c.uid)).scalars())
            uid = next((each for each in range(self.first, self.last + 1) if each not in taken), None)
            if uid is None:
                raise PipeError(f"every user of --uids {self.first}-{self.last} has a project: give more of them")
            connection.execute(insert(uids).values(place=place, uid=uid))
        return Account(uid, uid)


def users(words: str, groups: Sequence[str]) -> Users | None:
    """Read `--uids`: `200000-200999`, a user's name, `none`, or nothing for the usual range; None: the server's own.

    Raises:
        PipeError: there is no such user or group, or one of them is root's.
    """
    if words == "none":
        return None
    try:
        further = tuple(grp.getgrnam(name).gr_gid for name in groups)
    except KeyError as error:
        raise PipeError(f"--group: {error.args[0]}") from None
    if found := _RANGE.fullmatch(words or DEFAULT):
        first, last = int(found[1]), int(found[2])
        if not first < last < 1 << 31:
            raise PipeError(f"--uids {words}: give the first and the last of several")
        return Users(first, last, groups=further)
    try:
        one = pwd.getpwnam(words)
    except KeyError:
        raise PipeError(f"--uids {words}: there is no such user; or write 200000-200999, or none") from None
    if not one.pw_uid:
        raise PipeError("--uids root: that is whom runs are kept from")
    return Users(one.pw_uid, one.pw_uid, one.pw_gid, further)


def hindrance(wanted: Users, layout: Layout) -> str:
    """Why runs cannot be started as other users here; empty if they can. Opens the way to the projects. Blocks."""
    if os.geteuid():
        return "the server is not started as root"
    for folder in (layout.folder, layout.place("x").parent):
        folder.mkdir(mode=0o711, exist_ok=True)
        folder.chmod(0o711)
    who = Confinement(wanted.first, wanted.first if wanted.gid is None else wanted.gid, wanted.groups)
    argv = who.around([sys.executable, "-c", _PROBE, str(layout.place("x").parent)])
    try:
        done = subprocess.run(argv, cwd="/", env={}, capture_output=True, text=True, timeout=PROBED_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        return f"a process of user {wanted.first} did not end within {PROBED_WITHIN:g} s"
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines() or [f"{sys.executable} ended with {done.returncode}"]
    why = _barred(who, layout.place("x").parent, Path(sys.executable), Path(__file__)) or said[-1]
    layout.folder.chmod(0o700)
    return f"user {wanted.first} cannot run pipe here: {why}"


def _barred(who: Confinement, *paths: Path) -> str:
    """Which folder keeps somebody from reaching one of these; empty if none does."""
    closed = ((_closed(path, who), path) for path in paths)
    return next((f"it may not go through {folder}, on the way to {path}" for folder, path in closed if folder), "")


def _closed(path: Path, who: Confinement) -> Path | None:
    """The first folder on the way to a path, and on the way to where it leads, that somebody may not go through."""
    ways = dict.fromkeys(folder for each in (path, path.resolve()) for folder in reversed(each.parents))
    return next((folder for folder in ways if not _lets_through(folder.stat(), who)), None)


def _lets_through(about: os.stat_result, who: Confinement) -> bool:
    if about.st_uid == who.uid:
        return bool(about.st_mode & stat.S_IXUSR)
    ours = about.st_gid in (who.gid, *who.groups)
    return bool(about.st_mode & (stat.S_IXGRP if ours else stat.S_IXOTH))


def settle(layout: Layout, place: str, account: Account) -> None:
    """Make the folders of a project, and give to its user what is his. Blocks.

    The place itself stays ours: who could rename our copy of the repository could make us run what he likes.
    """
    whole = layout.place(place)
    for folder in (whole, whole / "scratch", whole / "files"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(folder, -1, account.gid)
        folder.chmod(0o710)
    own = (layout.store(place), layout.home(place), layout.temporary(place), layout.strangers_cache(place))
    for folder in own:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != account.uid:
            _give(folder, account)
        folder.chmod(0o700)


def _give(folder: Path, account: Account) -> None:
    """All below a folder, but what the server alone reads. No link is followed."""
    for _, folders, files, place in os.fwalk(folder):
        for name in (*folders, *(file for file in files if file != "secrets.env")):
            with suppress(FileNotFoundError):
                os.chown(name, account.uid, account.gid, dir_fd=place, follow_symlinks=False)
    os.chown(folder, account.uid, account.gid)


def as_run(folder: RunFolder) -> AbstractContextManager[None]:
    """Reach the files of a run with the rights of the user that its project's runs are."""
    return as_owner(folder.path.parent.parent)


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Reach files in this thread with the rights of the owner of `folder` and no more; nothing may be awaited in it.

    A run may put links where we look for its files: with our own rights we would show the server's secrets by them.
    """
    ours = (os.geteuid(), os.getegid())
    try:
        about = folder.lstat()
        theirs = (about.st_uid, about.st_gid)
    except OSError:
        theirs = ours
    if ours[0] or theirs[0] == ours[0]:
        yield
        return
    _reach_as(theirs)
    try:
        yield
    finally:
        _reach_as(ours)


def _reach_as(who: tuple[int, int]) -> None:
    """setfsuid(2): for this thread alone; with root's number go root's rights over files."""
    libc = ctypes.CDLL(None)
    libc.setfsgid(who[1])
    libc.setfsuid(who[0])
    if libc.setfsuid(-1) != who[0]:
        raise PermissionError(f"cannot reach files as user {who[0]}")
