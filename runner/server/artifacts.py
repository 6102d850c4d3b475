"""What runs leave to be kept: artifacts and reports, listed and handed out as they lie in the folders of runs.

Whoever writes a pipeline decides what is in them and what they are called. So they are opened with the rights of the
project's user, no link in their path is followed, and no browser is to do anything with them but keep them.
"""

import io
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Timer
from urllib.parse import quote

from pipeline.stage import StageFailed
from runner.collect import Opened, Walk
from runner.folder import ARTIFACTS, RunFolder
from runner.server.users import as_run

__all__ = ["INERT", "Left", "attachment", "left_of", "opened"]

INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""What comes from a run is shown or kept, and never does anything in the name of this server."""
REPORTS = ("junit.xml", "summary.html", "problems.sarif")
WALK_WITHIN = 1.0
"""Seconds that a look at what a run has left may take."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Left:
    """The files of a run, by path; `more`: there are others."""

    files: list[tuple[str, int]] = field(default_factory=list)
    """Each with its size in bytes."""
    more: bool = False


def left_of(folder: RunFolder, most: int) -> Left:
    """What a run has left: its reports, and `most` files as `artifacts/LEAF.ATTEMPT/PATH`. Blocks."""
    left = Left()
    for name in REPORTS:
        with suppress(FileNotFoundError):
            file, size = opened(folder, name)
            file.close()
            left.files.append((name, size))

    found: list[tuple[str, int]] = []

    def take(file: Opened) -> None:
        left.more = len(found) == most
        if left.more:
            walk.stop()
        elif _is_text(file.path):  # what is none has no address either
            found.append((f"{ARTIFACTS}/{file.path}", file.about.st_size))

    store, below = folder.path.parent.parent, PurePosixPath(*folder.path.parts[-2:], ARTIFACTS)
    walk = Walk(store, below, ("**",), take)
    too_long = Timer(WALK_WITHIN, walk.stop)
    too_long.start()
    try:
        with as_run(folder):
            walk()
    except (TimeoutError, StageFailed):  # too much, too long or too deep
        left.more = True
    except OSError:
        pass  # it is not there, or goes just now
    finally:
        too_long.cancel()
    left.files += found
    return left


def _is_text(path: str) -> bool:
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


def opened(folder: RunFolder, path: str) -> tuple[io.FileIO, int]:
    """One of these files, open, and its size in bytes. Blocks.

    Raises:
        FileNotFoundError: there is no such file, or it is none that a run leaves to be kept.
    """
    parts = path.split("/")
    if path not in REPORTS and (parts[0] != ARTIFACTS or len(parts) < 3 or {"", ".", ".."} & {*parts} or "\0" in path):
        raise FileNotFoundError(path)
    try:
        with as_run(folder):
            descriptor = _reached(folder.path.parent.parent, (*folder.path.parts[-2:], *parts))
    except OSError as error:
        raise FileNotFoundError(path) from error
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return io.FileIO(descriptor), about.st_size


def _reached(root: Path, parts: tuple[str, ...]) -> int:
    """A descriptor of what lies below a folder of ours; every part of the way is a folder, and no link."""
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts[:-1]:
        outer = place
        try:
            place = os.open(part, _FOLDER, dir_fd=outer)
        finally:
            os.close(outer)
    try:
        return os.open(parts[-1], _FILE, dir_fd=place)
    finally:
        os.close(place)


def attachment(path: str, size: int) -> dict[str, str]:
    """The headers of a file that a browser keeps under its own name and does nothing else with (RFC 6266)."""
    name = quote(path.rpartition("/")[2], safe="")
    return {**INERT, "Content-Disposition": f"attachment; filename*=UTF-8''{name}", "Content-Length": str(size)}
