"""Runs and where they are: what commands ask of a run, and the answers of a folder on this machine."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipeError
from pipeline.plan import Plan
from pipeline.stage import Outcome
from runner.events import Record
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.plans import read_plan
from runner.sinks.view import KeptLogs, Logs
from runner.state import RunState, fold
from runner.status import Status, status
from runner.store import Store

__all__ = ["KeptRun", "KeptRuns", "Run", "Runs", "Summary"]

LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in a line; times are seconds since the epoch, 0 when it has not happened."""

    name: str
    status: Status
    id: str = ""
    started: float = 0.0
    finished: float = 0.0
    outcome: Outcome | None = None
    place: str = ""
    """Its folder, or its address on a server."""


class Run(Protocol):
    """One run, wherever it is. Everything raises PipeError when it cannot be read."""

    @property
    def name(self) -> str:
        """How people call it where it is: `backend#12`, on a server `shop/backend#12`."""

    @property
    def logs(self) -> Logs:
        """Its logs; those of a run that is followed come with `follow`."""

    def summary(self) -> Summary:
        """How it is now."""

    def plan(self) -> Plan:
        """What it executes."""

    def records(self) -> Iterator[Record]:
        """What has happened in it."""

    def state(self) -> RunState:
        """What has become of it."""

    def status(self, state: RunState) -> Status:
        """How it is, of one in that state."""

    def follow(
        self, after: RunState | None = None, *, logs: bool = False, wait: bool = True
    ) -> Iterator[Record | None]:
        """The records behind a state, and with `wait` those to come, until it ends or its engine dies.

        None comes whenever there is nothing new for now, and with `logs` when logs have grown.
        """

    def log(self, leaf: str, attempt: int, *, follow: bool) -> Iterator[bytes]:
        """What an attempt wrote, byte for byte; with `follow` until the attempt ends."""

    def cancel(self, by: str) -> None:
        """Ask it to end."""


class Runs(Protocol):
    """All runs of one place."""

    @property
    def place(self) -> str:
        """Where they are, for people: a folder or the URL of a server."""

    @property
    def words(self) -> str:
        """What a command needs to look there: empty, or `--server URL` and a space."""

    def newest(self, pipeline: str, most: int) -> Sequence[Run]:
        """The newest runs, of one pipeline or of all; those that cannot be read too."""

    def find(self, words: str) -> Run:
        """The run that somebody means; empty is the newest."""

    def under_way(self) -> Sequence[Run]:
        """Those that have no end, as far as somebody works on them."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run in a folder on this machine."""

    folder: RunFolder
    name: str

    @property
    def logs(self) -> KeptLogs:
        """As `Run`."""
        return KeptLogs(self.folder)

    def summary(self) -> Summary:
        """As `Run`; what cannot be read is told as a status."""
        place = str(self.folder.path)
        if not self.folder.plan.exists():
            return Summary(self.name, Status("never began", "it died before its plan was written"), place=place)
        try:
            state = fold(self.folder.records())
        except ValueError as error:
            return Summary(self.name, Status("spoiled", f"a journal in {place} cannot be read: {error}"), place=place)
        how = self.status(state)
        return Summary(self.name, how, state.id, state.started, state.finished, state.outcome, place)

    def plan(self) -> Plan:
        """As `Run`."""
        return read_plan(self.folder)

    def records(self) -> Iterator[Record]:
        """As `Run`."""
        try:
            yield from self.folder.records()
        except ValueError as error:
            raise PipeError(f"a journal in {self.folder.path} is spoiled: {error}") from None

    def state(self) -> RunState:
        """As `Run`."""
        return fold(self.records())

    def status(self, state: RunState) -> Status:
        """As `Run`."""
        return status(self.folder, self.name, state)

    def follow(
        self,
        after: RunState | None = None,
        *,
        logs: bool = False,  # noqa: ARG002 - they are files, and grow by themselves
        wait: bool = True,
    ) -> Iterator[Record | None]:
        """As `Run`."""
        seen, ended = after.seq if after else 0, False
        while True:
            alive = self._has_engine()
            for record in self.records():
                if record.seq > seen:
                    seen, ended = record.seq, record.event.type == "run.finished"
                    yield record
            yield None
            if not wait or ended or not alive:
                return
            time.sleep(LOOK_EVERY)

    def log(self, leaf: str, attempt: int, *, follow: bool) -> Iterator[bytes]:
        """As `Run`."""
        return _blocks(self.folder.log(leaf, attempt), partial(self._works, leaf, attempt) if follow else bool)

    def cancel(self, by: str) -> None:
        """As `Run`."""
        try:
            Orders(self.folder.path).give(Cancel(by))
        except OSError as error:
            raise PipeError(f"cannot leave the order in {error.filename}: {error.strerror}") from error

    def _works(self, leaf: str, attempt: int) -> bool:
        """Whether that attempt is still under way."""
        known = self.state().leaf(leaf)
        return self._has_engine() and known.running and known.attempt == attempt

    def _has_engine(self) -> bool:
        owner = self.folder.ownership.owner()
        return bool(owner and owner.alive())


def _blocks(log: Path, grows: Callable[[], bool]) -> Iterator[bytes]:
    """What a log holds, and what comes while it grows; a log that nothing was written to is not there."""
    place = 0
    while True:
        last = not grows()
        if log.exists():
            with log.open("rb") as file:
                file.seek(place)
                while block := file.read(1 << 20):
                    place += len(block)
                    yield block
        if last:
            return
        time.sleep(LOOK_EVERY)


class KeptRuns:
    """The runs of the store on this machine."""

    words = ""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._store = Store(environ, folder)

    @property
    def place(self) -> str:
        """As `Runs`."""
        return str(self._store.path)

    def newest(self, pipeline: str, most: int) -> list[KeptRun]:
        """As `Runs`."""
        known = self._store.runs()
        return [KeptRun(folder, f"{name}#{number}") for name, number, folder in known if pipeline in ("", name)][:most]

    def find(self, words: str) -> KeptRun:
        """As `Runs`; a path names the folder of a run."""
        folder = self._store.find(words)
        plan = read_plan(folder)
        return KeptRun(folder, f"{plan.pipeline}#{plan.run.number}")

    def under_way(self) -> list[KeptRun]:
        """As `Runs`."""
        owned = ((run, run[2].ownership.owner()) for run in self._store.runs())
        alive = [run for run, owner in owned if owner and owner.alive()]
        return [
            KeptRun(folder, f"{name}#{number}")
            for name, number, folder in alive
            if fold(folder.records()).outcome is None
        ]
