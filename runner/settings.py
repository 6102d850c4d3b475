"""Where runs are kept and what the host sets: the store, its numbers, its folders."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipeError
from runner.events import Record, RunFinished, decode

__all__ = ["RunFolder", "Store", "cache_folder", "default_jobs", "read_records"]

EPOCH = 1
WORKSPACES_KEPT = 5
LONGEST_NAME = 180


def default_jobs() -> int:
    """How many computing stages run at once unless told: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where kinds keep what outlives runs: `$PIPE_CACHE`, else the user's cache folder."""
    if named := environ.get("PIPE_CACHE"):
        return Path(named)
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - HOME may be unset
    return Path(home) / "pipe-ci" / "kinds"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run: everything about it, and nothing elsewhere."""

    path: Path

    @property
    def plan(self) -> Path:
        """The frozen plan, the only thing that resume reads."""
        return self.path / "plan.json"

    @property
    def events(self) -> Path:
        """The journal of this epoch."""
        return self.path / f"events.{EPOCH}.jsonl"

    @property
    def work(self) -> Path:
        """The workspace of a run that checks out."""
        return self.path / "work"

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

    def own(self) -> None:
        """Say which process writes here."""
        owner = {"pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname(), "epoch": EPOCH}
        self._owner.write_text(json.dumps(owner))

    def owned(self) -> bool:
        """Whether the process that took the run is alive; on another host nobody can say, so it counts as alive."""
        try:
            owner = json.loads(self._owner.read_text())
        except (OSError, ValueError):
            return False
        return bool(owner["host"] != socket.gethostname() or _started(owner["pid"]) == owner["started"] != "")

    @property
    def _owner(self) -> Path:
        return self.path / "owner"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; with the pid it names a process for good. Empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


class Store:
    """All runs below one folder: `<store>/<pipeline>/<number>/`."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self.path = Path(environ.get("PIPE_STORE") or folder / ".pipe").absolute()

    def prepare(self) -> None:
        """Make the folder, readable by its owner alone where secrets may lie, and keep it out of git.

        Raises:
            PipeError: the place cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def next_number(self, pipeline: str) -> int:
        """The number that the next run will probably get."""
        return max(self._numbers(pipeline), default=0) + 1

    def previous(self, pipeline: str, number: int) -> str:
        """How the last run before `number` ended: an outcome, or empty when there is none or it did not end."""
        before = [known for known in self._numbers(pipeline) if known < number]
        if not before:
            return ""
        folder = RunFolder(self.path / pipeline / str(max(before)))
        try:
            last = deque(read_records(folder.events), maxlen=1)
        except ValueError:  # a journal that something spoiled does not stop the next run
            return ""
        ended = last[0].event if last else None
        return ended.outcome.value if isinstance(ended, RunFinished) else ""

    def take(self, pipeline: str, number: int | None) -> tuple[int, RunFolder]:
        """Claim a run's number by making its folder, which one process alone can do.

        `number` None takes the next free one; a number that the host gave must be free.

        Raises:
            PipeError: the host's number is taken, or the store cannot be written.
        """
        self.prepare()
        wanted = number or self.next_number(pipeline)
        while True:
            folder = self.path / pipeline / str(wanted)
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
                (folder / "logs").mkdir()
            except FileExistsError:
                if number is not None:
                    raise PipeError(
                        f"run {pipeline}#{number} exists already in {self.path}: "
                        f"the host gave its number; set PIPE_STORE to another folder"
                    ) from None
                wanted += 1
                continue
            except OSError as error:
                raise self._unwritable(error) from error
            return wanted, RunFolder(folder)

    def sweep(self, pipeline: str) -> None:
        """Remove the workspaces of ended runs but the newest five; logs and journals stay."""
        for number in sorted(self._numbers(pipeline), reverse=True)[WORKSPACES_KEPT:]:
            folder = RunFolder(self.path / pipeline / str(number))
            if folder.work.exists() and not folder.owned():
                shutil.rmtree(folder.work, ignore_errors=True)

    def _numbers(self, pipeline: str) -> Iterator[int]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in (self.path / pipeline).iterdir():
                if entry.name.isdigit():
                    yield int(entry.name)

    def _unwritable(self, error: OSError) -> PipeError:
        place = error.filename or self.path
        return PipeError(f"cannot write {place}: {error.strerror}; set PIPE_STORE to a folder that can be written")


def read_records(path: Path) -> Iterator[Record]:
    """The records of a journal file; a torn last line, as a crash leaves it, is no record."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            record = decode(line)
            if record is not None:
                yield record
