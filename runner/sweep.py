"""Which workspaces of earlier runs may stay: so many, so old, and while the disk has room. Logs and journals stay."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.settings import bytes_of
from runner.store import Store

__all__ = ["Policy", "policy", "sweep"]

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How many workspaces of a pipeline are kept, for how many days (0: no limit), and the bytes to keep free."""

    count: int
    days: int
    free: int


def policy(environ: Mapping[str, str]) -> Policy:
    """What the host wants: `PIPE_KEEP` (5), `PIPE_KEEP_DAYS` (no limit), `PIPE_KEEP_FREE` (`1Gi`).

    Raises:
        PipeError: one of them cannot be read, or several.
    """
    problems: list[str] = []

    def number(name: str, default: int) -> int:
        text = environ.get(name) or str(default)
        if not text.isdecimal():
            problems.append(f"{name}={text} is none of 0, 1, 2, …")
            return default
        return int(text)

    size = bytes_of(environ.get("PIPE_KEEP_FREE") or "1Gi")
    if size is None:
        problems.append(f"PIPE_KEEP_FREE={environ['PIPE_KEEP_FREE']} is no size: write 500Mi or 10Gi")
    found = Policy(
        count=number("PIPE_KEEP", 5),
        days=number("PIPE_KEEP_DAYS", 0),
        free=size or 0,
    )
    if problems:
        raise PipeError("\n".join(problems))
    return found


def sweep(store: Store, keep: Policy) -> list[str]:
    """Remove workspaces that the policy lets go, never one that somebody works in.

    Those that are too many or too old go silently; the names of the runs that lost theirs for want of room are
    returned, oldest first. A run without an end keeps its workspace in that case: it can be gone on with.
    """
    left = []
    for name, run, kept in _kept(store, keep):
        with suppress(OSError):  # another user's run is none of our business
            if not run.work.is_dir() or _in_use(run):
                continue
            if kept:
                left.append((name, run))
            else:
                _remove(run)
    removed = []
    for name, run in reversed(left):
        if shutil.disk_usage(store.path).free >= keep.free:
            break
        if run.ended() and _remove(run):
            removed.append(name)
    return removed


def _kept(store: Store, keep: Policy) -> Iterator[tuple[str, RunFolder, bool]]:
    """All runs, the newest first, each with its name and whether its workspace may stay."""
    seen: Counter[str] = Counter()
    for name, number, folder in store.runs():
        seen[name] += 1
        old = keep.days and time.time() - folder.made() > keep.days * DAY
        yield f"{name}#{number}", folder, not old and seen[name] <= keep.count


def _remove(run: RunFolder) -> bool:
    """Remove a workspace that nobody works in; whether it is gone. Somebody who takes the run right now keeps it."""
    aside = run.path / "work.old"
    try:
        run.work.rename(aside)
        if _in_use(run):
            aside.rename(run.work)
            return False
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return not aside.exists()


def _in_use(run: RunFolder) -> bool:
    owner = run.ownership.owner()
    return bool(owner and owner.alive())
