"""The entry point of the console script: commands that start processes get a guardian first."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from runner.guardian import Guardian, guard, leave

__all__ = ["main"]

OBJECTS = 50_000
"""Nearly all that a start makes lives to the end: Python looks for garbage after so many objects, not 700."""
_GUARDED = frozenset({"run", "resume", "rerun", "rollback"})


def main() -> NoReturn:
    """Run the command line; ends this process."""
    gc.set_threshold(OBJECTS)
    _open_streams()
    if sys.platform == "linux" and len(sys.argv) > 1 and sys.argv[1] in _GUARDED and not _elsewhere(sys.argv):
        guard(_work)
    _work(None)


def _open_streams() -> None:
    """Put /dev/null in the place of a closed stream, or the next file that is opened gets its number and its output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r"))


def _elsewhere(words: Sequence[str]) -> bool:
    """Whether the call means a server, so that nothing is started here: as the command line will read it."""
    if words[1] != "run":
        return False
    server = os.environ.get("PIPE_SERVER", "")
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "--server":
            server = after
        elif word.startswith("--server="):
            server = word.removeprefix("--server=")
    return bool(server)


def _work(guardian: Guardian | None) -> NoReturn:
    from runner.cli import main as command_line

    code = command_line(guardian)
    told = guardian.early if guardian else []
    leave(128 + told[0] if code and told else code)  # what failed may have died of the same signal
