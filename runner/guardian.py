"""The first process of a run: it passes signals on, and when the engine ends, however that is, nobody outlives it."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

__all__ = ["CANARY", "SWEEPER", "Guardian", "guard", "leave"]

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PR_SET_CHILD_SUBREAPER = 36
KILL_WITHIN = 5.0
CANARY = 0x80
"""Set in a byte of the pipe when it was the canary that got the signal."""
SWEEPER = "JENKINS_SERVER_COOKIE"
"""The variable by which Jenkins finds the processes of a step: whoever carries it is ended when the step is aborted."""


class Guardian(NamedTuple):
    """What the guardian gives to its engine."""

    pipe: int
    """One byte for each signal that it passes on, with `CANARY` or without; its end means that the guardian is dead."""
    private: str
    """A folder (0700) for files with secrets, which it removes when the engine has ended, however that was."""


def guard(work: Callable[[Guardian], NoReturn]) -> NoReturn:
    """Fork: the child does the work, this process guards it. Call it before anything heavy is imported."""
    canary = _canary() if SWEEPER in os.environ else None
    reading, writing = os.pipe()
    private = _private_folder()
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _: _pass_on(writing, received))
    engine = os.fork()
    if engine == 0:
        for number in _PASSED_ON:
            signal.signal(number, signal.SIG_IGN)  # until the engine listens; the pipe keeps them meanwhile
        os.close(writing)
        work(Guardian(reading, private))
    os.close(reading)
    _adopt_orphans()
    code = _wait_for(engine, canary, writing)
    _end_descendants()
    _remove(private)
    os._exit(code)


def leave(code: int) -> NoReturn:
    """End this process; a thread that was left behind must not hold that up."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more
            continue
    os._exit(code)


def _canary() -> int:
    """A child that is there to be ended: its pid.

    Jenkins aborts children first, and goes on to the next process only when the one before is gone, for two minutes if
    need be. Without a child that is older than all stages we would hear of it when they have died of it, or never.
    """
    reading, writing = os.pipe()
    canary = os.fork()
    if canary == 0:
        for number in _PASSED_ON:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        os.close(writing)
        os.read(reading, 1)  # until nobody is left who could write
        os._exit(0)
    os.close(reading)
    return canary


def _private_folder() -> str:
    """In memory where the host has such a place."""
    for place in ("/dev/shm", os.environ.get("TMPDIR") or "/tmp"):  # noqa: S108 - the folder is ours alone
        path = f"{place}/pipe-{os.getpid()}-{os.urandom(6).hex()}"
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102 - pathlib is not imported here
        except OSError:
            continue
        return path
    return ""


def _remove(private: str) -> None:
    if private and os.path.exists(private):  # noqa: PTH110 - pathlib is not imported here
        import shutil

        shutil.rmtree(private, ignore_errors=True)


def _pass_on(writing: int, number: int) -> None:
    try:
        os.write(writing, bytes([number]))
    except BrokenPipeError:
        return


def _adopt_orphans() -> None:
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for(engine: int, canary: int | None, writing: int) -> int:
    """Reap whoever ends until the engine does; its exit code, 128 + n if signal n ended it."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == canary and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            _pass_on(writing, signal.SIGTERM | CANARY)
        if pid == engine:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                name = signal.Signals(-code).name
                sys.stderr.write(
                    f"pipe: the engine was ended by {name}; its processes are ended, `pipe resume` goes on\n"
                )
                return 1
            return code


def _end_descendants() -> None:
    """SIGKILL until nobody is left: whatever moved away or forked meanwhile is our child by now."""
    deadline = time.monotonic() + KILL_WITHIN
    while children := _children(os.getpid()):
        for pid in children:
            _kill(pid)
        _reap()
        if time.monotonic() > deadline:
            sys.stderr.write(f"pipe: these processes could not be ended: {' '.join(map(str, children))}\n")
            return
        time.sleep(0.01)


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
    except (ProcessLookupError, PermissionError):
        return


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
