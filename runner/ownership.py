"""Who has a folder: one living process at a time, told by numbered files that only one process can make."""

import json
import os
import re
import socket
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

__all__ = ["HEARTBEAT", "SILENT_AFTER", "Owner", "Ownership", "Taken"]

HEARTBEAT = 5.0
"""Seconds between two signs of life of an owner."""
SILENT_AFTER = 15.0
"""Seconds without one after which an owner elsewhere counts as dead."""


class Taken(Exception):
    """Another process has the folder."""

    def __init__(self, owner: "Owner") -> None:
        self.owner = owner
        super().__init__(f"it belongs to {owner}")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that took a folder. A pid means something within its `place` alone: one boot, one pid namespace."""

    epoch: int
    pid: int
    started: str
    host: str
    place: str
    what: str = ""
    """What it does there, for people."""
    heard: float = 0.0

    def alive(self) -> bool:
        """Whether it still is at work; elsewhere only its signs of life tell, and they may be 15 s old."""
        if self.is_here() and self.started:
            now = _started(self.pid)
            return now == self.started if now else _is_hidden(self.pid)
        return self.silent() < SILENT_AFTER

    def is_here(self) -> bool:
        """Whether it is of this boot and pid namespace, so that nobody has to wait for its signs of life."""
        return self.place == _place()

    def silent(self) -> float:
        """Seconds since its last sign of life."""
        return max(0.0, time.time() - self.heard)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owners of one folder, each with an epoch and a file of its own: `owner.1`, `owner.2` and so on."""

    folder: Path

    def owner(self) -> Owner | None:
        """The process that took the folder last; None when none ever did."""
        epoch = max(numbered(self.folder, "owner"), default=0)
        return self._read(epoch) if epoch else None

    def claim(self, what: str = "") -> int:
        """Take the folder for this process and return the new epoch. One process alone can: it makes a file.

        Raises:
            Taken: a living process has it and has not released it, or another one was quicker.
        """
        before = self.owner()
        if before and before.alive() and not self._released(before.epoch):
            raise Taken(before)
        epoch = before.epoch + 1 if before else 1
        mine = Owner(epoch, os.getpid(), _started(os.getpid()), socket.gethostname(), _place(), what)
        text = json.dumps({name: value for name, value in asdict(mine).items() if name not in ("epoch", "heard")})
        try:
            descriptor = os.open(self._file(epoch), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise Taken(self._read(epoch)) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return epoch

    def release(self, epoch: int) -> None:
        """Let others have it while this process goes on living."""
        with suppress(OSError):
            Path(self._file(epoch) + ".released").touch()

    def forget(self, epoch: int) -> None:
        """Remove what earlier owners left, where nobody wants to read about them; the latest one says who is next."""
        for number in numbered(self.folder, "owner"):
            if number < epoch - 1:
                for file in (self._file(number), self._file(number) + ".released"):
                    with suppress(OSError):
                        Path(file).unlink()

    def lost(self, epoch: int) -> bool:
        """Whether another process has taken the folder since."""
        return os.path.exists(self._file(epoch + 1))  # noqa: PTH110 - asked before every record; a Path costs more

    def beat(self, epoch: int) -> None:
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self._file(epoch))

    def _released(self, epoch: int) -> bool:
        return Path(self._file(epoch) + ".released").exists()

    def _file(self, epoch: int) -> str:
        return f"{self.folder}/owner.{epoch}"

    def _read(self, epoch: int) -> Owner:
        """Of a file that is just being written only the time is known."""
        path = Path(self._file(epoch))
        heard = time.time()
        try:
            about = path.stat()
            heard = about.st_mtime
            if not stat.S_ISREG(about.st_mode):  # reading a pipe might never end
                return Owner(epoch, 0, "", "?", "?", heard=heard)
            return Owner(epoch=epoch, heard=heard, **json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return Owner(epoch, 0, "", "?", "?", heard=heard)


def numbered(folder: Path, name: str, suffix: str = "") -> list[int]:
    """The numbers of the files `<name>.<number><suffix>` in a folder, ascending."""
    pattern = re.compile(rf"{name}\.([1-9][0-9]*){re.escape(suffix)}")
    with suppress(FileNotFoundError):
        return sorted(int(match[1]) for entry in os.listdir(folder) if (match := pattern.fullmatch(entry)))  # noqa: PTH208 - as above
    return []


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; with the pid it names a process for good. Empty: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_hidden(pid: int) -> bool:
    """Whether a process is there that we may not look at."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


@cache
def _place() -> str:
    """This boot of this machine, and the pid namespace that we are in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # macOS
        return socket.gethostname()
