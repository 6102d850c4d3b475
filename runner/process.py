"""Starting a program, carrying its output by block, and ending its whole tree."""

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.lowlevel

__all__ = ["MARK", "Ended", "NoProgramError", "end_marked", "end_tree", "execute"]

MARK = "PIPE_MARK"
"""The variable by which a process says which attempt it belongs to, whatever session it moved to."""

BLOCK = 1 << 18
"""Bytes that are read at once, and that a pipe holds where the system lets us make it so large."""

DRAIN = 2.0
"""How long output may still come after the program has ended; a background child may keep the pipe for ever."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL. With the kill itself a tree is gone within five."""

PROC = Path("/proc")


class NoProgramError(Exception):
    """The program, or the folder to start it in, is not there."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program's exit code (128 + n after signal n), and whether something kept its output open."""

    exit_code: int
    left_behind: bool


async def execute(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes,
    stdout: Callable[[bytes], None],
    stderr: Callable[[bytes], None] | None = None,
) -> Ended:
    """Run a program in a session of its own and wait for it. `stderr` None: both streams go to `stdout` in order.

    When cancelled, the whole tree of processes is gone before this returns.

    Raises:
        NoProgramError: it could not be started.
    """
    child = _start(argv, cwd, env, stdin, apart=stderr is not None)
    streams = [(child.stdout, stdout), (child.stderr, stderr)]
    try:
        left_behind = await _carry(child, [(pipe.fileno(), sink) for pipe, sink in streams if pipe and sink])
    except BaseException:
        with anyio.CancelScope(shield=True):
            # a thread of its own: trees end at once, however many there are
            own = anyio.CapacityLimiter(1)
            await anyio.to_thread.run_sync(end_tree, child, env.get(MARK, ""), limiter=own)
        raise
    finally:
        for pipe, _ in streams:
            if pipe:
                pipe.close()
    code = child.wait()
    return Ended(code if code >= 0 else 128 - code, left_behind)


def _start(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bytes, *, apart: bool
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        source: int = subprocess.DEVNULL
        if stdin:
            file = stack.enter_context(_memory())
            file.write(stdin)
            file.seek(0)
            source = file.fileno()
        try:
            return subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise NoProgramError(_missing(argv[0], cwd)) from error
        except (PermissionError, NotADirectoryError) as error:
            raise NoProgramError(f"cannot start {argv[0]}: {error.strerror}; is it executable (chmod +x)?") from error
        except OSError as error:
            raise NoProgramError(f"cannot start {argv[0]}: {error.strerror}") from error


def _memory() -> IO[bytes]:
    """A file that no disk sees: what a program reads may be a password."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stdin"), "w+b")
    return tempfile.TemporaryFile()


def _missing(program: str, cwd: Path) -> str:
    if not cwd.is_dir():
        return f"the folder {cwd} does not exist"
    if "/" in program:
        return f"there is no file {program} in {cwd}"
    if " " in program:
        return f"there is no program '{program}': a list is a program and its arguments, one by one"
    return f"there is no program '{program}': install it, or put its folder on PATH"


async def _carry(child: "subprocess.Popen[bytes]", streams: list[tuple[int, Callable[[bytes], None]]]) -> bool:
    """Carry the output until its end; whether something still held it open after the program's end."""
    with anyio.CancelScope() as drain:
        async with anyio.create_task_group() as pumps:
            for descriptor, sink in streams:
                pumps.start_soon(_pump, descriptor, sink)
            await _exit_of(child)
            drain.deadline = anyio.current_time() + DRAIN
    return drain.cancelled_caught


async def _pump(descriptor: int, sink: Callable[[bytes], None]) -> None:
    os.set_blocking(descriptor, False)
    _widen(descriptor)
    while True:
        try:
            data = os.read(descriptor, BLOCK)
        except BlockingIOError:
            await anyio.wait_readable(descriptor)
            continue
        if not data:
            return
        sink(data)
        await anyio.lowlevel.checkpoint()


def _widen(pipe: int) -> None:
    """Let a chatty program run ahead of us; most write so little that they never notice."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BLOCK)


async def _exit_of(child: "subprocess.Popen[bytes]") -> None:
    if not hasattr(os, "pidfd_open"):  # macOS
        await anyio.to_thread.run_sync(child.wait, abandon_on_cancel=True)
        return
    descriptor = os.pidfd_open(child.pid)
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


# -- the whole tree --------------------------------------------------------------------------------


def end_tree(child: "subprocess.Popen[bytes]", mark: str, grace: float = GRACE) -> None:
    """End a program and all that came of it: SIGTERM, `grace` seconds, then SIGKILL until a look finds nobody.

    Members are found by descent, by session and by the mark in their environment, so neither a new
    session nor a double fork hides one. Blocks; call it in a thread.
    """
    deadline = time.monotonic() + grace
    told: set[int] = set()
    while members := _members(child, mark):
        late = time.monotonic() > deadline
        if time.monotonic() > deadline + 2 * GRACE:
            return
        for pid in members:
            if late or pid not in told:
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
                told.add(pid)
        time.sleep(0.02)


def end_marked(run: str) -> int:
    """End what a run's engine and guardian left when both were killed; how many processes that were. Blocks."""
    mark = f"{MARK}={run}/".encode()
    told: set[int] = set()
    deadline = time.monotonic() + 2 * GRACE
    while PROC.is_dir() and time.monotonic() < deadline:
        left = [pid for pid, _, _ in _processes() if pid != os.getpid() and _has_variable(pid, mark)]
        if not left:
            break
        for pid in left:
            _signal(pid, signal.SIGKILL)
        told.update(left)
        time.sleep(0.02)
    return len(told)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _members(child: "subprocess.Popen[bytes]", mark: str) -> set[int]:
    """Living processes of the tree, the child first reaped if it has ended."""
    running = child.poll() is None
    if not PROC.is_dir():
        return {child.pid} if running else set()
    marked = f"{MARK}={mark}".encode() if mark else None
    members = {child.pid} if running else set()
    rows = list(_processes())
    for pid, _, session in rows:
        if session == child.pid or (marked and _carries(pid, marked)):
            members.add(pid)
    grown = True
    while grown:
        born = {pid for pid, parent, _ in rows if parent in members} - members
        members |= born
        grown = bool(born)
    return members - {os.getpid()}


def _processes() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and session of every process that is not a zombie."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        state, parent, _, session = text.rpartition(")")[2].split()[:4]
        if state not in "ZX":
            yield int(entry.name), int(parent), int(session)


def _carries(pid: int, marked: bytes) -> bool:
    return marked in _environ(pid)


def _has_variable(pid: int, beginning: bytes) -> bool:
    return any(variable.startswith(beginning) for variable in _environ(pid))


def _environ(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
