"""The durable list of a run's events: written before anything acts on them, forced to disk before every effect."""

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import anyio

from runner.events import Event, Record, encode
from runner.folder import RunFolder
from runner.mask import Masker
from runner.ownership import HEARTBEAT
from runner.state import RunState, fold

__all__ = ["EpochLost", "Journal"]

FORCED_EVERY = 0.05
"""Seconds after which an event is on disk at the latest, so that power loss costs no more than that."""

BALLAST = 64 << 10
"""Bytes that are kept free for the last records of a run."""

_force = getattr(os, "fdatasync", os.fsync)  # macOS has the latter alone


class EpochLost(Exception):
    """Another engine has taken the run meanwhile; this one may write and do nothing more."""

    def __init__(self, folder: RunFolder) -> None:
        owner = folder.ownership.owner()
        super().__init__(f"{owner} has taken over the run in {folder.path}; this process lets go of it")


class Journal:
    """Appends the events of one run and keeps the state that they fold to. Any thread may append.

    `epoch` is what claiming the folder gave; the state begins with what earlier epochs wrote. `strict`: each
    record is on disk when `append` returns, which waits for the disk every time.
    """

    def __init__(self, folder: RunFolder, masker: Masker, epoch: int = 1, *, strict: bool = False) -> None:
        self.folder = folder
        self.epoch = epoch
        self._strict = strict
        self._masker = masker
        self.state: RunState = fold(folder.records()) if epoch > 1 else RunState()
        self._seq = self.state.seq
        self._ownership = folder.ownership
        self._beaten = time.monotonic()
        self._lock = threading.Lock()
        self._unforced = False
        self._forcing = anyio.CapacityLimiter(1)
        self._readers: list[Callable[[Record], None]] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(folder.events(epoch), flags, 0o644)
        self._size = os.fstat(self._file).st_size
        self._ballast = folder.path / "ballast"
        self._take_ballast()

    def subscribe(self, reader: Callable[[Record], None]) -> None:
        """Tell this reader of every further record; it must not block."""
        self._readers.append(reader)

    def append(self, event: Event) -> Record:
        """Write an event so that it survives the death of this process, then fold it and tell the readers.

        Raises:
            EpochLost: the run is another engine's by now; nothing was written.
        """
        clean = event.masked(self._masker.mask_text)
        with self._lock:
            self.check()
            self._seq += 1
            record = Record(self._seq, round(time.time(), 3), clean)
            self._write(encode(record))
            self._unforced = not self._strict
            if self._strict:
                _force(self._file)
            self.state.apply(record)
            for reader in self._readers:
                reader(record)
        return record

    def check(self) -> None:
        """Raise EpochLost if the run is another engine's by now."""
        if self._ownership.lost(self.epoch):
            raise EpochLost(self.folder)

    def _write(self, line: bytes) -> None:
        """Write a whole line or none: half of one would spoil the next. On a full disk the ballast makes room."""
        while not self._written(line):
            if not self._throw_ballast():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder.events(self.epoch)))
        self._size += len(line)

    def _written(self, line: bytes) -> bool:
        """Write a line; False when the disk is full."""
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            os.ftruncate(self._file, self._size)
            if error.errno == errno.ENOSPC:
                return False
            raise
        return True

    def _take_ballast(self) -> None:
        """Take room on the disk beforehand, so that a run can write how it ended when somebody has filled it."""
        with suppress(OSError):
            descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, b"\0" * BALLAST)
            finally:
                os.close(descriptor)

    def _throw_ballast(self) -> bool:
        """Give the room back; whether there was any."""
        try:
            os.unlink(self._ballast)  # noqa: PTH108 - as the other calls here
        except OSError:
            return False
        return True

    async def force(self) -> None:
        """Return when everything appended so far is on disk."""
        if not self._unforced:
            return
        self._unforced = False
        try:
            await anyio.to_thread.run_sync(_force, self._file, limiter=self._forcing)
        except BaseException:
            self._unforced = True
            raise

    async def keep_forced(self) -> None:
        """Force the file every 50 ms while there is something to force, and say that we live; runs until cancelled.

        Raises:
            EpochLost: the run is another engine's by now.
        """
        while True:
            await anyio.sleep(FORCED_EVERY)
            self.check()
            await self.force()
            if time.monotonic() - self._beaten > HEARTBEAT:
                self._beaten = time.monotonic()
                await anyio.to_thread.run_sync(self._ownership.beat, self.epoch, limiter=self._forcing)

    def close(self) -> None:
        """Force the rest and let go of the file; what is appended later raises OSError."""
        with self._lock:
            if self._file < 0:
                return
            _force(self._file)
            os.close(self._file)
            self._file = -1
        self._throw_ballast()
