"""Runs as streams: each is read once for all who follow it, and none of them can hold up or outgrow the others."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from runner.events import Record, encode
from runner.folder import RunFolder
from runner.server.connections import Away
from runner.server.peers import Elsewhere
from runner.server.shown import Run
from runner.server.users import as_run
from runner.telling import ROOM, Piece, Position, find, tell

__all__ = ["Followers"]

LOOK_EVERY = 0.2
HEARTBEAT = 15.0
LONGEST = 900.0
"""Seconds of one stream; who wants more comes again, and shows his token again."""
_KEPT = 4
"""How many of the newest pages are kept; who is further behind reads the files himself."""


@dataclass(frozen=True, slots=True)
class _Page:
    """Some of a stream, and the position behind it."""

    data: bytes
    position: Position


def _frame(item: Record | Piece, position: Position) -> bytes:
    if isinstance(item, Record):
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (
            str(position).encode(),
            item.event.type.encode(),
            encode(item).rstrip(),
        )
    text = item.data.decode("utf-8", "replace")
    said = {"stage": item.stage, "attempt": item.attempt, "offset": item.offset, "size": len(item.data), "text": text}
    data = json.dumps(said, ensure_ascii=False).encode()
    return b"id: %s\nevent: log\ndata: %s\n\n" % (str(position).encode(), data)


def _newest(folder: RunFolder) -> Position:
    """Where everything has been told that there is now."""
    with as_run(folder):
        return find(folder, None, logs=True)


def _read(folder: RunFolder, after: Position, until: Position | None, *, logs: bool) -> _Page:
    """What comes behind a position, as much as one page takes."""
    data, position = bytearray(), after
    with as_run(folder), closing(tell(folder, after, until, logs=logs)) as told:
        for item, position in told:
            data += _frame(item, position)
            if len(data) > ROOM:
                break
    return _Page(bytes(data), position)


def _read_new(folder: RunFolder, after: Position) -> tuple[_Page, _Page]:
    """What is new, with logs and without."""
    data, bare, position = bytearray(), bytearray(), after
    with as_run(folder), closing(tell(folder, after, logs=True)) as told:
        for item, position in told:
            data += _frame(item, position)
            if isinstance(item, Record):
                bare += _frame(item, position.bare())
            if len(data) > ROOM:
                break
    return _Page(bytes(data), position), _Page(bytes(bare), position.bare())


class Follower:
    """One run, as its followers share it. Whoever waits for news first looks for all of them."""

    def __init__(self, folder: RunFolder, run: Callable[[], Awaitable[Run | None]]) -> None:
        self.folder = folder
        self.newest = Position()
        self.run: Run | None = None
        self.over = False
        """The run has ended, and everything of it has been read."""
        self._find = run
        self._begun = False
        self._more = False
        self._looking: anyio.Event | None = None
        self._pages: dict[tuple[bool, Position], _Page] = {}

    async def look(self) -> None:
        """Return when somebody has looked for news, at most five times a second."""
        if self._looking is not None:
            await self._looking.wait()
            return
        self._looking = done = anyio.Event()
        try:
            await anyio.sleep(LOOK_EVERY if self._begun and not self._more else 0)
            await self._look()
        finally:
            self._looking = None
            done.set()

    async def _look(self) -> None:
        try:
            run = await self._find()
        except Away:
            if not self._begun:
                raise
            run = self.run  # what happens is told by the folder all the same
        if not self._begun:
            self.newest = await anyio.to_thread.run_sync(_newest, self.folder)
            self._begun = True
        before = self.newest
        page, bare = await anyio.to_thread.run_sync(_read_new, self.folder, before)
        self._more = len(page.data) > ROOM // 2
        if page.data:
            self._keep((True, before), page)
        if bare.data:
            self._keep((False, before.bare()), bare)
        self.newest = page.position
        self.over = (run is None or run.state == "ended") and not self._more
        self.run = run

    def _keep(self, key: tuple[bool, Position], page: _Page) -> None:
        self._pages[key] = page
        while len(self._pages) > 2 * _KEPT:
            del self._pages[next(iter(self._pages))]

    async def page(self, after: Position, *, logs: bool) -> _Page:
        """What comes behind a position, up to the newest one; empty when that is it."""
        until = self.newest if logs else self.newest.bare()
        if after == until:
            return _Page(b"", after)
        if known := self._pages.get((logs, after)):
            return known
        return await anyio.to_thread.run_sync(partial(_read, self.folder, after, until, logs=logs))

    def under_way(self, leaf: str, attempt: int) -> bool:
        """Whether an attempt had no end when the run was looked at last."""
        same = any(log.stage == leaf and log.attempt == attempt for log in self.newest.logs)
        return same and not self.over


@dataclass
class Followers:
    """The runs that somebody follows now."""

    closed: bool = False
    """The server ends, and streams do too: who wants to know more comes again, to the next one."""
    _known: dict[str, tuple[Follower, int]] = field(default_factory=dict)

    @contextmanager
    def of(self, id_: str, folder: RunFolder, run: Callable[[], Awaitable[Run | None]]) -> Iterator[Follower]:
        """The one follower of a run, shared with others as long as there are any."""
        follower, others = self._known.get(id_) or (Follower(folder, run), 0)
        self._known[id_] = follower, others + 1
        try:
            yield follower
        finally:
            follower, count = self._known[id_]
            self._known[id_] = follower, count - 1
            if count == 1:
                del self._known[id_]

    async def events(
        self, follower: Follower, after: Position, *, logs: bool = False, follow: bool = True
    ) -> AsyncIterator[bytes]:
        """The stream of a run behind a position; a comment when there has been nothing for a while."""
        began = said = time.monotonic()
        try:
            await follower.look()
            while not self.closed and time.monotonic() - began < LONGEST:
                over = follower.over
                page = await follower.page(after, logs=logs)
                if page.data:
                    after, said = page.position, time.monotonic()
                    yield page.data
                elif over or not follow:
                    yield _end(follower.run if over else None)
                    return
                else:
                    await follower.look()
                if time.monotonic() - said > HEARTBEAT:
                    said = time.monotonic()
                    yield b": still here\n\n"
        except Elsewhere:
            return  # who asks again is told by the server that has it
        except ValueError as error:
            yield _end(None, f"a journal of the run is spoiled: {error}")

    async def log(
        self, follower: Follower, leaf: str, attempt: int, offset: int, *, follow: bool
    ) -> AsyncIterator[bytes]:
        """The bytes of a log from `offset` on, a negative one from its end; with `follow` until the attempt ends."""
        began = time.monotonic()
        path = follower.folder.log(leaf, attempt)
        if offset < 0:
            offset = max(0, offset + await anyio.to_thread.run_sync(_size, follower.folder, path))
        while True:
            goes_on = follow and follower.under_way(leaf, attempt)
            async for block in _blocks(follower.folder, path, offset):
                offset += len(block)
                yield block
            if not goes_on or self.closed or time.monotonic() - began > LONGEST:
                return
            await follower.look()


def _size(folder: RunFolder, path: Path) -> int:
    with as_run(folder):
        return path.stat().st_size if path.exists() else 0


def _opened(folder: RunFolder, path: Path) -> BinaryIO | None:
    with as_run(folder):
        return path.open("rb") if path.is_file() else None


async def _blocks(folder: RunFolder, path: Path, offset: int) -> AsyncIterator[bytes]:
    opened = await anyio.to_thread.run_sync(_opened, folder, path)
    if opened is None:  # nothing was written to it so far
        return
    async with anyio.wrap_file(opened) as file:
        await file.seek(offset)
        while block := await file.read(ROOM):
            yield block


def _end(run: Run | None, note: str = "") -> bytes:
    said = {"state": run.state, "outcome": run.outcome, "note": run.note} if run else {"note": note} if note else {}
    return b"event: end\ndata: %s\n\n" % json.dumps(said, ensure_ascii=False).encode()
