"""The entry point of the console script: commands that start processes get a guardian first."""

import os
import sys
from typing import NoReturn, TextIO

from runner.guardian import Guardian, guard

__all__ = ["main"]

_GUARDED = frozenset({"run", "resume", "rerun", "cancel"})


def main() -> NoReturn:
    """Run the command line; ends this process."""
    if sys.platform == "linux" and len(sys.argv) > 1 and sys.argv[1] in _GUARDED:
        guard(_work)
    _work(None)


def _work(guardian: Guardian | None) -> NoReturn:
    from runner.cli import main as command_line

    code = command_line(guardian)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    os._exit(code)  # a thread that was left behind must not hold up the end


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:  # nobody reads any more
        return
