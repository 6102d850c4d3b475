"""Locks on what outlives runs: the one rule by which kinds and the engine share a folder of caches.

Beside an item NAME lies `NAME.lock`, which is empty. Who uses the item holds a lock on that file, shared or alone, and
touches it; who has it alone may remove the item, and the file after it. A lock ends with the process that holds it.

Source: flock(2). Over NFS it becomes a lock of fcntl(2): for a shared one the file has to be open for reading, for one
alone for writing.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Final

__all__ = ["NoLocksError", "hold", "lock_of", "take", "withdraw"]

_WITHOUT: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class NoLocksError(OSError):
    """The file system has no locks between processes, as NFS that was mounted without them."""

    def __init__(self, path: Path) -> None:
        way_out = "this file system has no locks: let PIPE_CACHE name a folder of its own on a disk that has them"
        super().__init__(errno.ENOLCK, way_out, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def lock_of(item: Path) -> Path:
    """The file that is locked for an item."""
    return item.with_name(f"{item.name}.lock")


def hold(path: Path) -> IO[bytes]:
    """A shared lock on a file that is made where it is missing; waits as long as somebody has it alone.

    Without locks it is none: there nobody can remove anything either.
    """
    try:
        return _locked(path, fcntl.LOCK_SH)
    except NoLocksError:
        return path.open("a+b")


def take(path: Path) -> IO[bytes] | None:
    """The lock on a file for oneself alone; None if somebody has it.

    Raises:
        NoLocksError: the file system has none.
    """
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def withdraw(item: Path) -> Path | None:
    """Take an item that nobody uses away from all who look for it: where it lies until it is removed; None if in use.

    Raises:
        NoLocksError: nobody can know whether it is in use.
        OSError: it is gone, or another user's.
    """
    lock = take(lock_of(item))
    if lock is None:
        return None
    with lock:
        aside = item.with_name(f"{item.name}.{os.urandom(4).hex()}.part")
        item.rename(aside)
        lock_of(item).unlink(missing_ok=True)
    return aside


def _locked(path: Path, how: int) -> IO[bytes]:
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, how)
            if _is_at(file, path):
                return file
        except OSError as error:
            file.close()
            if error.errno in _WITHOUT:
                raise NoLocksError(path) from error
            raise
        file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether it is still the file that others will lock: who removed the item has removed it too."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
