"""The log of one attempt: masked bytes in a file, and an index of when they came."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runner.mask import MaskedStream, Masker

__all__ = ["StageLog", "tail"]

INDEX_EVERY = 0.1
"""Seconds between two lines of the index; a finer one would outgrow a chatty log."""

BLOCK = 65536


class StageLog:
    """Append-only and safe to use from any thread."""

    def __init__(self, path: Path, masker: Masker) -> None:
        """`path` is made when there is something to write."""
        self.masker = masker
        self._path = path
        self._lock = threading.Lock()
        self._streams = [MaskedStream(masker)]
        self._at_line_start = True
        self._size = 0
        self._indexed = 0.0
        self.heard = time.monotonic()
        """When something was written last, or the stage gave another sign of life."""
        self._closed = False
        self._file = self._index = -1

    def write(self, data: bytes) -> None:
        """Add bytes; what could be the beginning of a secret waits for the next ones."""
        self._write(self._streams[0], data)

    def stream(self) -> Callable[[bytes], None]:
        """A writer for one process: what it holds back is not mixed with what others write meanwhile."""
        stream = MaskedStream(self.masker)
        self._streams.append(stream)
        return partial(self._write, stream)

    def line(self, text: str) -> None:
        """Add a line of our own, whole even while a process writes."""
        masked = self.masker.mask(text.encode("utf-8", "replace"))
        with self._lock:
            if not self._closed:
                self._put((b"" if self._at_line_start else b"\n") + masked + b"\n")

    def _write(self, stream: MaskedStream, data: bytes) -> None:
        with self._lock:
            if not self._closed:
                self._put(stream.feed(data))

    def close(self) -> None:
        """Write what was held back; further writes are dropped (a thread left behind may still try)."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                for stream in self._streams:
                    self._put(stream.end())
            finally:
                for descriptor in (self._file, self._index):
                    if descriptor >= 0:
                        os.close(descriptor)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        index = os.open(self._path.with_suffix(".idx"), flags, 0o644)
        try:
            self._file = os.open(self._path, flags, 0o644)
        except OSError:
            os.close(index)
            raise
        self._index = index

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._file < 0:
            self._open()
        self._at_line_start = data.endswith(b"\n")
        self.heard = time.monotonic()
        now = time.time()
        if now - self._indexed >= INDEX_EVERY:
            os.write(self._index, f"{self._size} {now:.3f}\n".encode())
            self._indexed = now
        try:
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, read from its end; memory does not grow with the log."""
    if not path.exists():
        return []
    found = b""
    for block in _blocks_from_end(path):
        found = block + found
        if found.count(b"\n") > lines or len(found) > 64 * BLOCK:
            break
    return [line.decode("utf-8", "replace") for line in found.splitlines()[-lines:]]


def _blocks_from_end(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            yield file.read(end - start)
            end = start
