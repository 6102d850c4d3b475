"""The entry point of the console script: commands that start processes get a guardian first."""

import sys
from typing import NoReturn

from runner.guardian import Guardian, guard, leave

__all__ = ["main"]

_GUARDED = frozenset({"run", "resume", "rerun"})


def main() -> NoReturn:
    """Run the command line; ends this process."""
    if sys.platform == "linux" and len(sys.argv) > 1 and sys.argv[1] in _GUARDED:
        guard(_work)
    _work(None)


def _work(guardian: Guardian | None) -> NoReturn:
    from runner.cli import main as command_line

    leave(command_line(guardian))
