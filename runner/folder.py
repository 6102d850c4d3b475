"""The folder of one run: its plan, its journal epoch by epoch, its logs, and who may write there."""

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from runner.events import Record, RunResumed, decode

__all__ = ["HEARTBEAT", "SILENT_AFTER", "Owner", "RunFolder", "RunTaken"]

HEARTBEAT = 5.0
"""Seconds between two signs of life of an engine."""
SILENT_AFTER = 15.0
"""Seconds without one after which an engine elsewhere counts as dead."""
LONGEST_NAME = 180


class RunTaken(Exception):
    """Another engine has the run."""

    def __init__(self, folder: Path, owner: "Owner") -> None:
        self.owner = owner
        super().__init__(f"the run in {folder} belongs to {owner}")


@dataclass(frozen=True, slots=True)
class Owner:
    """An engine that took a run. A pid means something within its `place` alone: one boot, one pid namespace."""

    epoch: int
    pid: int
    started: str
    host: str
    place: str
    heard: float = 0.0

    def alive(self) -> bool:
        """Whether it still works on the run; elsewhere only its signs of life tell, and they may be 15 s old."""
        if self.place == _place():
            return bool(_started(self.pid) == self.started != "")
        return self.silent() < SILENT_AFTER

    def silent(self) -> float:
        """Seconds since its last sign of life."""
        return max(0.0, time.time() - self.heard)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Everything about one run, and nothing elsewhere. An *epoch* is one engine's time with it."""

    path: Path

    @property
    def plan(self) -> Path:
        """The frozen plan, the only thing that resume and rerun read."""
        return self.path / "plan.json"

    @property
    def work(self) -> Path:
        """The workspace of a run that checks out."""
        return self.path / "work"

    def events(self, epoch: int) -> Path:
        """The journal of one epoch."""
        return self.path / f"events.{epoch}.jsonl"

    def log(self, leaf: str, attempt: int) -> Path:
        """The log of one attempt; a leaf's name too long for a file is cut, and told apart by its hash."""
        name = leaf.replace("/", "%2F")
        if len(name.encode()) > LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}~{digest}"
        return self.path / "logs" / f"{name}.{attempt}.log"

    def write_plan(self, text: str) -> None:
        """Put the plan on disk, whole or not at all, and the folders that lead to it."""
        part = self.path / "plan.part"
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.plan)
        for folder in (self.path, self.path.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    # -- the journal -------------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """All records of the run in order.

        A torn last line, as a crash leaves it, is no record. What an engine wrote after another one
        had taken the run over is none either: the first record of an epoch says where the one before ended.

        Raises:
            ValueError: something has spoiled a journal.
        """
        journals = [self.events(epoch) for epoch in self._numbered("events", ".jsonl")]
        for journal, following in zip(journals, [*journals[1:], None], strict=True):
            last = _taken_over_after(following) if following else None
            for record in _records(journal):
                if last is not None and record.seq > last:
                    break
                yield record

    # -- who may write -----------------------------------------------------------------------------

    def owner(self) -> Owner | None:
        """The engine that took the run last; None when none ever did."""
        epoch = max(self._numbered("owner"), default=0)
        return self._read_owner(epoch) if epoch else None

    def claim(self) -> int:
        """Take the run for this process and return the new epoch. One process alone can: it makes a file.

        Raises:
            RunTaken: a living engine has it, or another process was quicker.
        """
        before = self.owner()
        if before and before.alive():
            raise RunTaken(self.path, before)
        epoch = before.epoch + 1 if before else 1
        mine = Owner(epoch, os.getpid(), _started(os.getpid()), socket.gethostname(), _place())
        text = json.dumps({name: value for name, value in asdict(mine).items() if name not in ("epoch", "heard")})
        try:
            descriptor = os.open(self._owner(epoch), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise RunTaken(self.path, self._read_owner(epoch)) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return epoch

    def lost(self, epoch: int) -> bool:
        """Whether another engine has taken the run since."""
        return os.path.exists(self._owner(epoch + 1))  # noqa: PTH110 - asked before every record; a Path costs more

    def beat(self, epoch: int) -> None:
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self._owner(epoch))

    def _owner(self, epoch: int) -> str:
        return f"{self.path}/owner.{epoch}"

    def _read_owner(self, epoch: int) -> Owner:
        """Of a file that is just being written only the time is known."""
        path = Path(self._owner(epoch))
        try:
            heard = path.stat().st_mtime
            return Owner(epoch=epoch, heard=heard, **json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return Owner(epoch, 0, "", "?", "?", time.time())

    def _numbered(self, name: str, suffix: str = "") -> list[int]:
        pattern = re.compile(rf"{name}\.([1-9][0-9]*){re.escape(suffix)}")
        with suppress(FileNotFoundError):
            return sorted(int(match[1]) for entry in os.listdir(self.path) if (match := pattern.fullmatch(entry)))  # noqa: PTH208 - as in `lost`
        return []


def _taken_over_after(journal: Path) -> int | None:
    """The last record of the epoch before that counts; None while the new engine has not said so."""
    first = next(_records(journal), None)
    return first.event.after if first and isinstance(first.event, RunResumed) else None


def _records(journal: Path) -> Iterator[Record]:
    try:
        lines = journal.open("rb")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            record = decode(line)
            if record is not None:
                yield record


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; with the pid it names a process for good. Empty: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _place() -> str:
    """This boot of this machine, and the pid namespace that we are in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # macOS
        return socket.gethostname()
