"""`python -m tests.support.crash N when WORDS…`: the program, killed at the N-th call that changes what is on disk.

The engine's own calls count, in the order in which it makes them: writing a record, forcing it to disk, making,
renaming and removing files. `when` is `before` or `after` the call. Without a kill the number of calls is printed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

COUNTED = ("write", "fdatasync", "fsync", "rename", "mkdir", "unlink", "utime", "link", "replace")


class Counter:
    """Counts calls in one process, and ends it at the chosen one."""

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.calls = at, when, 0
        self.lock = threading.Lock()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if args and args[0] in (1, 2):  # the console is no part of a run
                return function(*args, **kwargs)
            with self.lock:
                self.calls += 1
                chosen = self.calls == self.at
            if chosen and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if chosen:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted


def main() -> None:
    """Run the command line in this process, without a guardian: what it guards is another test's business."""
    counter = Counter(int(sys.argv[1]), sys.argv[2])
    sys.argv = ["pipe", *sys.argv[3:]]
    from runner import journal
    from runner.cli import main as command_line

    journal.FORCED_EVERY = 3600.0  # how often that happens depends on the time
    for name in COUNTED:
        setattr(os, name, counter.wrap(getattr(os, name)))
    code = command_line(None)
    sys.stderr.write(f"calls {counter.calls}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
