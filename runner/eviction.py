"""What outlives runs, bounded in size and age: the least recently used goes, never what somebody uses.

Everything below the folder of caches follows the rule of `pipeline.locks`. An item appears and goes by a rename;
`*.part` is on its way.
"""

import math
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import PipeError
from pipeline.locks import NoLocksError, lock_of, take, withdraw
from runner.sizes import bytes_of

__all__ = ["Bounds", "Item", "bounds", "due", "evict", "items", "mark_due", "remove"]

DAY: Final = 86400.0
EVERY: Final = 3600.0
"""Seconds between two looks at everything, unless something large was added."""
DEEPEST: Final = 6
_LOOKED: Final = ".looked"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes that caches may have in all, and seconds that one stays without being used (0: no limit)."""

    size: int
    age: float


@dataclass(frozen=True, slots=True)
class Item:
    """One cache: its path below the folder of caches, the bytes that it alone has, and when it was used last."""

    name: str
    path: Path
    size: int
    used: float
    busy: bool


def bounds(environ: Mapping[str, str]) -> Bounds:
    """What the host wants: `PIPE_CACHE_SIZE` (`10Gi`) and `PIPE_CACHE_DAYS` (30; 0: no limit).

    Raises:
        PipeError: one of them cannot be read, or both.
    """
    problems: list[str] = []
    text, days = environ.get("PIPE_CACHE_SIZE") or "10Gi", environ.get("PIPE_CACHE_DAYS") or "30"
    size = bytes_of(text)
    if size is None:
        problems.append(f"PIPE_CACHE_SIZE={text} is no size: write 500Mi or 10Gi")
    if not days.isdecimal():
        problems.append(f"PIPE_CACHE_DAYS={days} is none of 0, 1, 2, …")
    if problems or size is None:
        raise PipeError("\n".join(problems))
    return Bounds(size, int(days) * DAY)


def mark_due(cache: Path) -> None:
    """Something large was added: look at the end of this run, also where it is a strangers' cache in the whole one."""
    for place in (cache, cache.parent):
        (place / _LOOKED).unlink(missing_ok=True)


def due(cache: Path) -> bool:
    """Whether it is time to look at everything again; of several that ask at once each may be told so."""
    stamp = cache / _LOOKED
    with suppress(OSError):
        if time.time() - stamp.stat().st_mtime < EVERY:
            return False
    if not cache.is_dir():
        return False
    stamp.touch()
    return True


def items(cache: Path, seconds: float = math.inf) -> list[Item]:
    """All items, the most recently used first. What several share by hard links is counted for the first of them.

    Raises:
        TimeoutError: to look at all of them takes longer than that.
    """
    seen: set[tuple[int, int]] = set()
    end = time.monotonic() + seconds
    found = sorted(((_used(path), path) for path in _paths(cache, DEEPEST)), reverse=True)
    return [Item(str(path.relative_to(cache)), path, _size(path, seen, end), used, _busy(path)) for used, path in found]


def evict(cache: Path, within: Bounds, seconds: float = math.inf) -> list[Path]:
    """Remove what is too old, and the least recently used until the rest is within its size; returns what went.

    Raises:
        TimeoutError: what is too old is gone, but to learn how large the rest is takes longer than that.
        NoLocksError: something has to go, and nobody can know whether it is in use.
    """
    now = time.time()
    too_old = [path for path in _paths(cache, DEEPEST) if within.age and now - _used(path) > within.age]
    gone = [path for path in too_old if remove(path)]
    _sweep_parts(cache, now)
    found = items(cache, seconds)
    total = sum(item.size for item in found)
    for item in reversed(found):
        if total > within.size and remove(item.path):
            total -= item.size
            gone.append(item.path)
    return gone


def remove(path: Path) -> bool:
    """Remove an item that nobody uses; whether it is gone. Whoever looks for it sees all of it, or nothing.

    Raises:
        NoLocksError: nobody can know whether it is in use.
    """
    try:
        aside = withdraw(path)
    except NoLocksError:
        raise
    except OSError:  # gone, or another user's
        return False
    if aside is None:
        return False
    _delete(aside)
    return True


def _paths(folder: Path, depth: int) -> Iterator[Path]:
    """The items in a folder and in the folders below it that are no items themselves."""
    for entry, locked in _entries(folder):
        if locked and not entry.is_symlink():
            yield Path(entry.path)
        elif depth and entry.is_dir(follow_symlinks=False) and not entry.name.endswith(".part"):
            yield from _paths(Path(entry.path), depth - 1)


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """What lies in a folder, and whether a lock of ours lies beside it."""
    with suppress(OSError), os.scandir(folder) as found:
        entries = list(found)
        locks = {entry.name for entry in entries if _is_lock(entry)}
        for entry in entries:
            yield entry, f"{entry.name}.lock" in locks


def _is_lock(entry: os.DirEntry[str]) -> bool:
    """Ours are empty; `Cargo.lock` is somebody's."""
    with suppress(OSError):
        about = entry.stat(follow_symlinks=False)
        return entry.name.endswith(".lock") and stat.S_ISREG(about.st_mode) and not about.st_size
    return False


def _used(path: Path) -> float:
    times = [0.0]
    for each in (path, lock_of(path)):
        with suppress(OSError):
            times.append(each.lstat().st_mtime)
    return max(times)


def _busy(path: Path) -> bool:
    try:
        lock = take(lock_of(path))
    except OSError:
        return False
    if lock is None:
        return True
    lock.close()
    return False


def _size(path: Path, seen: set[tuple[int, int]], end: float) -> int:
    """Bytes on the disk that nothing before has."""
    total = 0
    with suppress(OSError):
        total += _counted(path.lstat(), seen)
    for place, _, files, folder in os.fwalk(path):
        del place
        if time.monotonic() > end:
            raise TimeoutError
        for name in files:
            with suppress(OSError):
                total += _counted(os.stat(name, dir_fd=folder, follow_symlinks=False), seen)
    return total


def _counted(about: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if about.st_nlink > 1 and stat.S_ISREG(about.st_mode):
        if (about.st_dev, about.st_ino) in seen:
            return 0
        seen.add((about.st_dev, about.st_ino))
    return about.st_blocks * 512


def _sweep_parts(cache: Path, now: float) -> None:
    """Remove what died on its way, a day later, and locks of what never came."""
    for path in _parts(cache, DEEPEST):
        with suppress(OSError):
            if now - path.lstat().st_mtime > DAY:
                _delete_lock(path) if path.suffix == ".lock" else _delete(path)


def _parts(folder: Path, depth: int) -> Iterator[Path]:
    found = list(_entries(folder))
    names = {entry.name for entry, _ in found}
    for entry, locked in found:
        if entry.name.endswith(".part") or (_is_lock(entry) and entry.name.removesuffix(".lock") not in names):
            yield Path(entry.path)
        elif depth and not locked and entry.is_dir(follow_symlinks=False):
            yield from _parts(Path(entry.path), depth - 1)


def _delete_lock(path: Path) -> None:
    if lock := take(path):
        with lock:
            path.unlink()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
