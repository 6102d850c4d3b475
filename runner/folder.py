"""The folder of one run: its plan, its journal epoch by epoch, its logs, and who may write there."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from runner.events import Record, RunFinished, RunResumed, decode
from runner.ownership import Ownership, numbered

__all__ = ["ARTIFACTS", "RunFolder"]

ARTIFACTS = "artifacts"
LONGEST_NAME = 180


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

    @property
    def copies(self) -> Path:
        """Snapshots of the workspace for stages that want their own."""
        return self.path / "copies"

    def events(self, epoch: int) -> Path:
        """The journal of one epoch."""
        return self.path / f"events.{epoch}.jsonl"

    def log(self, leaf: str, attempt: int) -> Path:
        """The log of one attempt."""
        return self.path / "logs" / f"{_named(leaf)}.{attempt}.log"

    @property
    def artifacts_folder(self) -> Path:
        """The files that all attempts left to be kept."""
        return self.path / ARTIFACTS

    def artifacts(self, leaf: str, attempt: int) -> Path:
        """Those of one attempt."""
        return self.artifacts_folder / f"{_named(leaf)}.{attempt}"

    def reports(self, leaf: str, attempt: int) -> Path:
        """What the reports of one attempt's tests say, as one, masked."""
        return self.path / "reports" / f"{_named(leaf)}.{attempt}.xml"

    @property
    def junit(self) -> Path:
        """The run and its tests as JUnit XML, written at its end."""
        return self.path / "junit.xml"

    @property
    def summary(self) -> Path:
        """The run on one page, written at its end."""
        return self.path / "summary.html"

    @property
    def problems(self) -> Path:
        """What compilers complained of, as SARIF, written at its end."""
        return self.path / "problems.sarif"

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

    def made(self) -> float:
        """When the run began, in seconds since the epoch: its plan is written once; 0 if it never did."""
        try:
            return self.plan.stat().st_mtime
        except OSError:
            return 0.0

    # -- the journal -------------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """All records of the run in order.

        A torn last line, as a crash leaves it, is no record. What an engine wrote after another one
        had taken the run over is none either: the first record of an epoch says where the one before ended.

        Raises:
            ValueError: something has spoiled a journal.
        """
        return (record for record, _, _ in self.placed())

    def placed(self, epoch: int = 1, place: int = 0) -> Iterator[tuple[Record, int, int]]:
        """The records from byte `place` of an epoch's journal on, each with its epoch and the byte behind it."""
        epochs = [number for number in numbered(self.path, "events", ".jsonl") if number >= epoch]
        for number, following in zip_longest(epochs, epochs[1:]):
            last = _taken_over_after(self.events(following)) if following else None
            for record, behind in _records(self.events(number), place if number == epoch else 0):
                if last is not None and record.seq > last:
                    break
                yield record, number, behind

    def ended(self) -> RunFinished | None:
        """The record that ended it; None while there is none, and of a journal that something has spoiled."""
        try:
            last = deque(self.records(), maxlen=1)
        except ValueError:
            return None
        end = last[0].event if last else None
        return end if isinstance(end, RunFinished) else None

    @property
    def ownership(self) -> Ownership:
        """Who may write here."""
        return Ownership(self.path)


def _named(leaf: str) -> str:
    """A leaf's name as that of a file; one that is too long is cut, and told apart by its hash."""
    name = leaf.replace("/", "%2F")
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}~{digest}"
    return name


def _taken_over_after(journal: Path) -> int | None:
    """The last record of the epoch before that counts; None while the new engine has not said so."""
    first, _ = next(_records(journal), (None, 0))
    return first.event.after if first and isinstance(first.event, RunResumed) else None


def _records(journal: Path, place: int = 0) -> Iterator[tuple[Record, int]]:
    try:
        lines = journal.open("rb")
    except FileNotFoundError:
        return
    with lines:
        lines.seek(place)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            place += len(line)
            record = decode(line)
            if record is not None:
                yield record, place
