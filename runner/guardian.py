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
_MOST_FORKS = 32
_BE_CANARY, _BE_ENGINE = b"c", b"e"
SWEEPER = "JENKINS_SERVER_COOKIE"
"""The variable by which Jenkins finds the processes of a step: whoever carries it is ended when the step is aborted."""


class Guardian(NamedTuple):
    """What the guardian gives to its engine."""

    pipe: int
    """One byte for each signal that it passes on, with `CANARY` or without; its end means that the guardian is dead."""
    private: str
    """A folder (0700) for files with secrets, which it removes when the engine has ended, however that was."""
    early: list[int]
    """Signals that came to the engine itself before it listened."""


def guard(work: Callable[[Guardian], NoReturn]) -> NoReturn:
    """Fork: the child does the work, this process guards it. Call it before anything heavy is imported."""
    signals = os.pipe()
    private = _private_folder()
    os.set_blocking(signals[1], False)
    # The interpreter writes the number there at once, whatever it is just about to wait for.
    signal.set_wakeup_fd(signals[1], warn_on_full_buffer=False)
    for number in _PASSED_ON:
        signal.signal(number, lambda *_: None)
    early: list[int] = []
    canary, engine = _canary_and_engine(signals, early) if SWEEPER in os.environ else (None, _fork(early))
    if engine == 0:
        os.close(signals[1])
        work(Guardian(signals[0], private, early))
    _adopt_orphans()
    code = _wait_for(engine, canary, signals[1])
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


def _fork(early: list[int]) -> int:
    """Fork; signals that come to the child itself are in `early`, until it listens."""
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in _PASSED_ON:
            signal.signal(number, lambda received, _: early.append(received))
    return pid


def _canary_and_engine(signals: tuple[int, int], early: list[int]) -> tuple[int, int]:
    """Fork both: a child that is there to be ended, and the engine; their pids, in the engine itself 0 for its own.

    Jenkins aborts children first, and goes on to the next process only when the one before is gone, for two minutes if
    need be. Without a child that it comes to before all stages we would hear of it when they have died of it, or never.
    """
    older: tuple[int, int] | None = None
    for left in reversed(range(_MOST_FORKS)):
        asking, telling = os.pipe()
        pid = _fork(early)
        if pid == 0:
            for each in (telling, older[1]) if older else (telling,):
                os.close(each)
            return _take_role(asking, signals, early)
        os.close(asking)
        newer = pid, telling
        for canary, engine in ((older, newer), (newer, older)) if older else ():
            if _is_swept_before(canary[0], engine[0]) or not left:
                os.write(canary[1], _BE_CANARY)  # and its end of the pipe stays open as long as we live
                os.write(engine[1], _BE_ENGINE)
                os.close(engine[1])
                return canary[0], engine[0]
        if older:
            os.close(older[1])
        older = newer
    raise AssertionError("the last two are taken whatever they are")


def _is_swept_before(one: int, other: int) -> bool:
    """Whether Jenkins comes to one process before another, however many there are.

    It goes through a HashMap of Java by pid (hudson.util.ProcessTree): by the low bits of this hash, at least four.
    """
    first, second = one ^ one >> 16, other ^ other >> 16
    return first >> 4 == second >> 4 and first < second


def _take_role(asking: int, signals: tuple[int, int], early: list[int]) -> tuple[int, int]:
    role = os.read(asking, 1)
    if role == _BE_ENGINE:
        os.close(asking)
        return 0, 0
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if role == _BE_CANARY:
        for each in signals:
            os.close(each)
        if signal.SIGTERM in early:
            os.kill(os.getpid(), signal.SIGTERM)
        os.read(asking, 1)  # until the guardian is gone
    os._exit(0)


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
    except BlockingIOError:  # an engine that has not read 64 KiB of them does not need another one
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
