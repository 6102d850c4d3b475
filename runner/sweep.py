"""What of earlier runs may stay: workspaces so many, so old, and while the disk has room, and so many artifacts.

Logs and journals stay.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.sizes import bytes_of
from runner.store import Store

__all__ = ["Policy", "policy", "sweep"]

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How many workspaces of a pipeline are kept, for how many days (0: no limit), the bytes to keep free.

    And of how many runs of a pipeline the artifacts are kept (0: of all).
    """

    count: int
    days: int
    free: int
    artifacts: int = 0


def policy(environ: Mapping[str, str]) -> Policy:
    """What a host wants: `PIPE_KEEP` (5), `PIPE_KEEP_DAYS` (no limit), `PIPE_KEEP_FREE` (`1Gi`); artifacts of 50 runs.

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
        artifacts=number("PIPE_KEEP_ARTIFACTS", 50),
    )
    if problems:
        raise PipeError("\n".join(problems))
    return found


def sweep(store: Store, keep: Policy) -> list[str]:
    """Remove workspaces and artifacts that the policy lets go, never those of a run that somebody works in.

    What is too much or too old goes silently; the names of the runs that lost their workspaces for want of room are
    returned, oldest first. A run without an end keeps its workspace in that case: it can be gone on with.
    """
    left = []
    for name, run, place in _placed(store):
        with suppress(OSError):  # another user's run is none of our business
            if keep.artifacts and place > keep.artifacts:
                _remove(run, run.artifacts_folder)
            if not run.work.is_dir() or _in_use(run):
                continue
            if place > keep.count or (keep.days and time.time() - run.made() > keep.days * DAY):
                _remove(run, run.work)
            else:
                left.append((name, run))
    removed = []
    for name, run in reversed(left):
        if shutil.disk_usage(store.path).free >= keep.free:
            break
        if run.ended() and _remove(run, run.work):
            removed.append(name)
    return removed


def _placed(store: Store) -> Iterator[tuple[str, RunFolder, int]]:
    """All runs, the newest first, each with its name and its place among those of its pipeline, from 1."""
    seen: Counter[str] = Counter()
    for name, number, folder in store.runs():
        seen[name] += 1
        yield f"{name}#{number}", folder, seen[name]


def _remove(run: RunFolder, folder: Path) -> bool:
    """Remove a folder of a run that nobody works in; whether it is gone. Somebody who takes the run now keeps it."""
    aside = folder.with_name(f"{folder.name}.old")
    try:
        folder.rename(aside)
        if _in_use(run):
            aside.rename(folder)
            return False
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return not aside.exists()


def _in_use(run: RunFolder) -> bool:
    owner = run.ownership.owner()
    return bool(owner and owner.alive())
