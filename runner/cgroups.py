"""Control groups: what an attempt's processes may use in all, and whether the kernel killed one for want of memory.

https://docs.kernel.org/admin-guide/cgroup-v2.html and, for hosts that have it still, cgroup-v1/memory.html. A
group is made beside or below our own one, wherever the host lets us; it is never required.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.plan import Limits

__all__ = ["Group", "NoGroup", "named", "out_of_memory_here", "remove"]

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds over which a share of the processors is counted."""
GONE_WITHIN = 2.0


class NoGroup(Exception):
    """The host lets us make no such group; the message says why."""


@dataclass(frozen=True, slots=True)
class _Controller:
    """Where our own group is for one controller, and the names of its files there."""

    own: Path
    limit: str
    killed: str
    """The file that counts the processes killed for want of memory."""


def _own_paths() -> dict[str, str]:
    """Controller → path of the group that we are in; the empty controller is version 2."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}


def _controller(name: str, v1: tuple[str, str], v2: tuple[str, str]) -> _Controller:
    try:
        paths = _own_paths()
    except (OSError, ValueError):
        raise NoGroup("this system has no control groups") from None
    if name in paths:
        place = ROOT / name
        own = place / paths[name].lstrip("/")
        return _Controller(own if own.is_dir() else place, *v1)
    place = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"
    own = place / paths.get("", "/").lstrip("/")
    return _Controller(own if own.is_dir() else place, *v2)


@cache
def _memory() -> _Controller:
    return _controller("memory", ("memory.limit_in_bytes", "memory.oom_control"), ("memory.max", "memory.events"))


@cache
def _cpu() -> _Controller:
    return _controller("cpu", ("cpu.cfs_quota_us", ""), ("cpu.max", ""))


def named(run: str, stage: str, attempt: int) -> str:
    """What the group of an attempt is called."""
    return f"pipe-{hashlib.sha256(f'{run}/{stage}/{attempt}'.encode()).hexdigest()[:16]}"


def remove(name: str) -> None:
    """Remove the group that an engine which died has left; of processes there must be none."""
    with contextlib.suppress(NoGroup):
        for controller in (_memory(), _cpu()):
            for parent in (controller.own, controller.own.parent):
                with contextlib.suppress(OSError):
                    (parent / name).rmdir()


def out_of_memory_here() -> int:
    """How many processes of the group that we are in the kernel killed for want of memory; 0 if nobody counts."""
    counter = _own_counter()
    if counter is None:
        return 0
    try:
        return _counted(os.pread(counter, 4096, 0))
    except OSError:
        return 0


@cache
def _own_counter() -> int | None:
    """Open for as long as this process lives: every attempt reads it."""
    try:
        controller = _memory()
        return os.open(controller.own / controller.killed, os.O_RDONLY | os.O_CLOEXEC)
    except (NoGroup, OSError):
        return None


def _count(file: Path) -> int:
    try:
        return _counted(file.read_bytes())
    except OSError:
        return 0


def _counted(text: bytes) -> int:
    _, found, rest = text.partition(b"oom_kill ")
    return int(rest.split(maxsplit=1)[0]) if found else 0


class Group:
    """Limits for the processes of one attempt. Start them through `wrap`, and `close` it when they are gone."""

    def __init__(self, name: str, limits: Limits) -> None:
        """Make the group.

        Raises:
            NoGroup: the host does not let us.
        """
        self._folders: dict[Path, None] = {}
        self._counter: Path | None = None
        self.memory = f"{(limits.memory or 0) / (1 << 20):g} MiB"
        try:
            if limits.memory is not None:
                self._limit_memory(name, limits.memory)
            if limits.cpu is not None:
                self._limit_cpu(name, limits.cpu)
        except BaseException:
            self.close()
            raise

    def _limit_memory(self, name: str, size: int) -> None:
        controller = _memory()
        folder = self._make(controller, name)
        _write(folder / controller.limit, size)
        swap, most = (
            ("memory.swap.max", 0) if controller.limit == "memory.max" else ("memory.memsw.limit_in_bytes", size)
        )
        if (folder / swap).exists():  # where swap is not counted, nothing bounds it
            _write(folder / swap, most)
        self._counter = folder / controller.killed

    def _limit_cpu(self, name: str, cores: float) -> None:
        controller = _cpu()
        folder = self._make(controller, name)
        quota = max(1000, round(cores * PERIOD))
        _write(folder / controller.limit, f"{quota} {PERIOD}" if controller.limit == "cpu.max" else quota)

    def _make(self, controller: _Controller, name: str) -> Path:
        """A group of this name with the file for the limit: below our own, or beside it.

        In version 2 a group with processes in it can have none below it that limit anything.
        """
        reason = ""
        for parent in (controller.own, controller.own.parent):
            folder = parent / name
            if folder in self._folders:
                return folder
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                reason = f"{folder}: {error.strerror}"
                continue
            if (folder / controller.limit).exists():
                self._folders[folder] = None
                return folder
            folder.rmdir()
            reason = f"{parent} limits nothing below it: it has no {controller.limit} to give"
        raise NoGroup(reason)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where a process goes in, by writing to `cgroup.procs`."""
        return tuple(self._folders)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The same program, started inside the group."""
        enter = "; ".join(f'echo 0 > "{folder}/cgroup.procs"' for folder in self._folders)
        return ["/bin/sh", "-c", f'{enter}; exec "$@"', argv[0], *argv]

    def killed(self) -> int:
        """How many of its processes were killed for want of memory."""
        return _count(self._counter) if self._counter else 0

    def close(self) -> None:
        """Take the group away; the last of its processes may take a moment to be gone. Blocks."""
        deadline = time.monotonic() + GONE_WITHIN
        while self._folders and time.monotonic() < deadline:
            for folder in list(self._folders):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    del self._folders[folder]
            if self._folders:
                time.sleep(0.05)


def _write(file: Path, value: object) -> None:
    try:
        file.write_text(str(value))
    except OSError as error:
        raise NoGroup(f"{file}: {error.strerror}") from None
