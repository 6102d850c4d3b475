"""The first process of `pipe`: it guards a run, so that no descendant outlives the engine, however that ends."""

import os
import signal
import sys
from typing import NoReturn, TextIO

__all__ = ["main"]

_GUARDED = frozenset({"run"})
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36


def main() -> NoReturn:
    """Entry point of the console script."""
    if sys.platform == "linux" and len(sys.argv) > 1 and sys.argv[1] in _GUARDED:
        _guard()
    _work(None)


def _work(guardian: int | None) -> NoReturn:
    """The command line itself. `guardian` is a pipe: one byte for each signal that it passes on."""
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


def _guard() -> NoReturn:
    """Fork before anything heavy is imported: the child becomes the engine, this process its guardian."""
    reading, writing = os.pipe()
    engine = os.fork()
    if engine == 0:
        os.close(writing)
        _work(reading)
    os.close(reading)
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _: _pass_on(writing, received))
    _adopt_orphans()
    code = _wait_for(engine)
    _end_descendants()
    os._exit(code)


def _pass_on(writing: int, number: int) -> None:
    try:
        os.write(writing, bytes([number]))
    except BrokenPipeError:
        return


def _adopt_orphans() -> None:
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for(engine: int) -> int:
    """Reap whoever ends until the engine does; its exit code, 128 + n if signal n ended it."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == engine:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                sys.stderr.write(
                    f"pipe: the engine was ended by {signal.Signals(-code).name}; its processes are ended\n"
                )
                return 128 - code if -code in _PASSED_ON else 1
            return code


def _end_descendants() -> None:
    """SIGKILL until nobody is left: whatever moved away or forked meanwhile is our child by now."""
    while children := _children(os.getpid()):
        for pid in children:
            _kill(pid)
        _reap()


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - pathlib is not imported here
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    for child in _children(pid):
        _kill(child)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap() -> None:
    try:
        os.waitpid(-1, 0)
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
