"""What the host sets for this program: how much it may do at once, and where kinds keep what outlives runs."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_folder", "default_jobs"]


def default_jobs() -> int:
    """How many computing stages run at once unless told: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder(environ: Mapping[str, str], store: Path, *, trusted: bool = True) -> Path:
    """Where kinds keep what outlives runs: `$PIPE_CACHE`, else the user's cache folder, else one beside the runs.

    In a container we may be a user whom nobody knows, without a home or with one that cannot be written. What the run
    of a stranger's commit leaves is for other such runs alone.
    """
    folder = _cache(environ, store)
    return folder if trusted else folder / "strangers"


def _cache(environ: Mapping[str, str], store: Path) -> Path:
    if named := environ.get("PIPE_CACHE"):
        return Path(named)
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - HOME may be unset
    place = Path(home) / "pipe-ci" / "kinds"
    return place if _can_be_made(place) else store / ".cache" / "kinds"


def _can_be_made(place: Path) -> bool:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return place.is_absolute() and os.access(there, os.W_OK | os.X_OK)
