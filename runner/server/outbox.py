"""What others are to be told: tried with growing pauses until it is taken, each receiver by itself."""

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

import anyio
from sqlalchemy import Connection, Row

from runner.server.connections import Away
from runner.server.database import Database
from runner.server.looks import until_next

__all__ = ["MOST_TRIES", "Outbox", "after", "pause_after"]

FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES = 5.0, 900.0, 20
"""Pauses double; after twenty tries, in about three hours, it is given up."""

Entry = Row[Any]
Due = Callable[[Connection], Mapping[Hashable, Entry]]
Deliver = Callable[[Entry], Awaitable[str]]
Told = Callable[[Connection, Entry, str], None]


def after(tries: int, note: str) -> dict[str, object]:
    """The columns of an entry after a try; `note` says what went wrong, empty: it was taken."""
    return {
        "told": not note,
        "note": note,
        "tries": tries + bool(note),
        "due": time.time() + pause_after(tries) if note else 0.0,
    }


def pause_after(tries: int) -> float:
    """Seconds until the next try, after so many."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2**tries))


class Outbox:
    """One table of entries and the loop that works it.

    A receiver gets one entry at a time; one that hangs holds up nobody but itself.
    """

    def __init__(self, database: Database, due: Due, deliver: Deliver, told: Told) -> None:
        """Take the three things that differ from table to table.

        Args:
            database: where the entries are.
            due: for each receiver the oldest entry that may be tried now; `tries` says how often it was.
            deliver: tries an entry once, in bounded time; what went wrong, empty if nothing did.
            told: keeps what came of it, so that the entry is not due any more.
        """
        self._database = database
        self._due = due
        self._deliver = deliver
        self._told = told
        self._busy: set[Hashable] = set()
        self._news = anyio.Event()

    def wake(self) -> None:
        """There is something to tell."""
        self._news.set()

    async def work(self) -> None:
        """Work until cancelled. What is under way then is tried again by the next server."""
        self._busy.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_again)
            while True:
                self._news = anyio.Event()
                due = await self._database.read(self._due)
                for receiver, entry in due.items():
                    if receiver not in self._busy:
                        self._busy.add(receiver)
                        tasks.start_soon(self._try, receiver, entry)
                with anyio.move_on_after(until_next(self._database.look_every)):
                    await self._news.wait()

    async def _look_again(self) -> None:
        """What the server before us tried in vain is not due yet when we begin, and nobody else wakes us for it."""
        tries = 0
        while (pause := pause_after(tries)) < self._database.look_every:
            await anyio.sleep(pause)
            self.wake()
            tries += 1

    async def _try(self, receiver: Hashable, entry: Entry) -> None:
        try:
            note = await self._deliver(entry)
        except Away:
            raise
        except Exception as error:  # noqa: BLE001 - one receiver must not silence the others
            note = f"{type(error).__name__}: {error}"
        await self._database.write(lambda connection: self._told(connection, entry, note))
        self._busy.discard(receiver)
        self.wake()
        if note:
            await anyio.sleep(min(pause_after(entry.tries), self._database.look_every))
            self.wake()
