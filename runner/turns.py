"""`concurrency:`: runs of one group take turns, in the order in which they came."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from pipeline.plan import Concurrency
from runner.orders import Cancel, Orders
from runner.ownership import HEARTBEAT, Ownership, Taken

__all__ = ["Turn", "in_turn"]

LOOK_EVERY = 0.5
"""Seconds between two looks whose turn it is."""

FOLDER = ".groups"


@dataclass
class Turn:
    """One run's place in the queue of its group. All methods block; they are for one thread at a time.

    `<store>/.groups/<hash>/` has a ticket for each run that waits, named by the run's ULID, which sorts by time, and an
    ownership for the run whose turn it is. Tickets of engines that died count for nothing. A run that comes late stands
    before younger ones all the same, or gives way to them where the group supersedes.
    """

    store: Path
    concurrency: Concurrency
    run: Path
    id: str
    name: str
    epoch: int = 0

    def take(self) -> str:
        """Try to take the turn: empty when it is ours now, else the name of the run that we wait for."""
        self._ticket(self.id).parent.mkdir(parents=True, exist_ok=True)
        if not self._ticket(self.id).exists():
            self._ticket(self.id).write_text(json.dumps({"run": str(self.run), "name": self.name}))
            self._supersede()
        if ahead := self._ahead():
            return ahead[0][1]
        try:
            self.epoch = self._ownership.claim(self.name)
        except Taken as taken:
            return taken.owner.what or str(taken.owner)
        self._ownership.forget(self.epoch)
        return ""

    def keep(self) -> bool:
        """Say that we live, to waiting runs on other hosts; whether the turn is lost all the same."""
        self._ownership.beat(self.epoch)
        return self._ownership.lost(self.epoch)

    def leave(self) -> None:
        """Give the turn to the next one, or stop waiting for it."""
        with suppress(OSError):
            self._ticket(self.id).unlink()
        if self.epoch:
            self._ownership.release(self.epoch)

    def _supersede(self) -> None:
        """End the runs that are before us, if that is what the group is for; they finish an effect that has begun."""
        if self.concurrency.busy == "supersede":
            for folder, _ in self._others(before=self.id):
                with suppress(OSError):
                    Orders(folder).give(Cancel(self.name, superseded=True))
            if younger := self._others(after=self.id):
                Orders(self.run).give(Cancel(younger[-1][1], superseded=True))

    def _ahead(self) -> list[tuple[Path, str]]:
        """The living runs that came before us and wait as well."""
        owner = self._ownership.owner()
        return [(run, name) for run, name in self._others(before=self.id) if not owner or owner.what != name]

    def _others(self, before: str = "~", after: str = "") -> list[tuple[Path, str]]:
        """Folder and name of the living runs with a ticket, the oldest first; dead ones lose theirs."""
        found = []
        for ticket in sorted(self._folder.glob("*.ticket")):
            if ticket.stem == self.id or not after < ticket.stem < before:
                continue
            with suppress(OSError, ValueError, KeyError):
                said = json.loads(ticket.read_text())
                run = Path(said["run"])
                owner = Ownership(run).owner()
                if run != self.run and owner and owner.alive():  # one of our own is of an engine that died
                    found.append((run, said["name"]))
                else:
                    ticket.unlink()
        return found

    def _ticket(self, run: str) -> Path:
        return self._folder / f"{run}.ticket"

    @property
    def _folder(self) -> Path:
        digest = hashlib.sha256(self.concurrency.group.encode()).hexdigest()[:16]
        return self.store / FOLDER / digest

    @property
    def _ownership(self) -> Ownership:
        return Ownership(self._folder)


@asynccontextmanager
async def in_turn(
    turn: Turn | None,
    queued: Callable[[str, str], None],
    cancelled: anyio.Event,
    lost: Callable[[str], None],
) -> AsyncIterator[bool]:
    """Wait for the turn, as long as it takes or until `cancelled`; whether it is ours. There is none without a group.

    `queued` is told the group and whom we wait for, `lost` that somebody thought us dead and took the turn.
    """
    if turn is None:
        yield True
        return
    try:
        await _wait(turn, queued, cancelled)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_keep, turn, lost)
            yield turn.epoch > 0
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(turn.leave)


async def _wait(turn: Turn, queued: Callable[[str, str], None], cancelled: anyio.Event) -> None:
    told = ""
    while not cancelled.is_set() and (behind := await anyio.to_thread.run_sync(_try, turn)):
        if behind != told:
            told = behind
            queued(turn.concurrency.group, behind)
        with anyio.move_on_after(LOOK_EVERY):
            await cancelled.wait()


def _try(turn: Turn) -> str:
    try:
        return turn.take()
    except OSError as error:  # a store on a network may be away for a while
        return f"a store that can be read ({error.strerror})"


async def _keep(turn: Turn, lost: Callable[[str], None]) -> None:
    while turn.epoch:
        if await anyio.to_thread.run_sync(turn.keep):
            lost(f"another run took its turn in the group '{turn.concurrency.group}'")
            return
        await anyio.sleep(HEARTBEAT / 2)
