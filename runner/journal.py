"""The durable list of a run's events: written before anything acts on them, forced to disk before every effect."""

import os
import threading
import time
from collections.abc import Callable

import anyio

from runner.events import Event, Record, encode
from runner.mask import Masker
from runner.settings import RunFolder
from runner.state import RunState

__all__ = ["Journal"]

FORCED_EVERY = 0.05
"""Seconds after which an event is on disk at the latest, so that power loss costs no more than that."""

_force = getattr(os, "fdatasync", os.fsync)  # macOS has the latter alone


class Journal:
    """Appends the events of one run and keeps the state that they fold to. Any thread may append."""

    def __init__(self, folder: RunFolder, masker: Masker) -> None:
        self.folder = folder
        self._masker = masker
        self.state = RunState()
        self._seq = 0
        self._lock = threading.Lock()
        self._unforced = False
        self._forcing = anyio.CapacityLimiter(1)
        self._readers: list[Callable[[Record], None]] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(folder.events, flags, 0o644)
        self._size = os.fstat(self._file).st_size

    def subscribe(self, reader: Callable[[Record], None]) -> None:
        """Tell this reader of every further record; it must not block."""
        self._readers.append(reader)

    def append(self, event: Event) -> Record:
        """Write an event so that it survives the death of this process, then fold it and tell the readers."""
        clean = event.masked(self._masker.mask_text)
        with self._lock:
            self._seq += 1
            record = Record(self._seq, round(time.time(), 3), clean)
            self._write(encode(record))
            self._unforced = True
            self.state.apply(record)
            for reader in self._readers:
                reader(record)
        return record

    def _write(self, line: bytes) -> None:
        """Write a whole line or none: half of one would spoil the next."""
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)

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
        """Force the file every 50 ms while there is something to force; runs until cancelled."""
        while True:
            await anyio.sleep(FORCED_EVERY)
            await self.force()

    def close(self) -> None:
        """Force the rest and let go of the file; what is appended later raises OSError."""
        with self._lock:
            _force(self._file)
            os.close(self._file)
            self._file = -1
