"""The log of one attempt: masked bytes in a file, and an index of when they came.

A log has a limit. The first half of it is written as it comes; after that the newest bytes are kept in *ends* beside
it, of which only the last two stay, and they are put behind the first half when the attempt ends. So the file only
grows, its readers need to know nothing of this, and neither memory nor disk grow with what a stage says.
"""

import glob
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from runner.mask import MaskedStream, Masker

__all__ = ["LIMIT", "StageLog", "join_ends", "tail"]

LIMIT = 256 << 20
"""Bytes of a log that are kept unless its stage says how many."""

INDEX_EVERY = 0.1
"""Seconds between two lines of the index; a finer one would outgrow a chatty log."""

BLOCK = 65536


class StageLog:
    """Append-only and safe to use from any thread."""

    def __init__(self, path: Path, masker: Masker, limit: int | None = None) -> None:
        """`path` is made when there is something to write; `limit` is the most bytes that are kept."""
        self.masker = masker
        self._path = path
        self._half = (limit or LIMIT) // 2
        self._lock = threading.Lock()
        self._streams = [MaskedStream(masker)]
        self._at_line_start = True
        self._file: _Part | None = None
        self._ends: _Ends | None = None
        self.heard = time.monotonic()
        """When something was written last, or the stage gave another sign of life."""
        self._closed = False

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

    @property
    def long(self) -> bool:
        """It has more than its first half, so closing it takes a moment."""
        return self._ends is not None

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
                for part in (self._file, self._ends):
                    if part:
                        part.close()
            if self._ends:
                join_ends(self._path)

    def _put(self, data: bytes) -> None:
        if not data:
            return
        self.heard = time.monotonic()
        if self._ends is None:
            data = self._begin(data)
        if self._ends and data:
            self._ends.write(data)
        self._at_line_start = data.endswith(b"\n")

    def _begin(self, data: bytes) -> bytes:
        """Write to the first half what there is room for; what is returned belongs to the end."""
        self._file = self._file or _Part(self._path)
        room = self._half - self._file.size
        if len(data) <= room:
            self._file.write(data)
            return data
        cut = _cut(data, room, whole=self._at_line_start)
        begins_line = data[:cut].endswith(b"\n") if cut else self._at_line_start
        self._file.write(data[:cut] + _full(self._half, begins_line=begins_line))
        self._ends = _Ends(self._path, self._half // 2)
        return data[cut:]


class _Part:
    """A file with an index: "offset time", a line each tenth of a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._indexed = 0.0
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._index = os.open(_index_of(path), flags, 0o644)
        try:
            self._file = os.open(path, flags, 0o644)
        except OSError:
            os.close(self._index)
            raise
        self.size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        now = time.time()
        if data and now - self._indexed >= INDEX_EVERY:
            os.write(self._index, f"{self.size} {now:.3f}\n".encode())
            self._indexed = now
        try:
            while data:
                written = os.write(self._file, data)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        os.close(self._file)
        os.close(self._index)


class _Ends:
    """The newest bytes of a log, in numbered files of which the last two stay."""

    def __init__(self, log: Path, size: int) -> None:
        self._log, self._size = log, size
        self._number = self._dropped = 0
        self._part = _Part(_end(log, 0))

    def write(self, data: bytes) -> None:
        if self._part.size >= self._size:
            self._part.close()
            self._number += 1
            self._part = _Part(_end(self._log, self._number))
            if self._number > 1:
                self._drop(_end(self._log, self._number - 2))
        self._part.write(data)

    def _drop(self, end: Path) -> None:
        self._dropped += end.stat().st_size
        _dropped(self._log).write_text(str(self._dropped))
        for path in (end, _index_of(end)):
            path.unlink()

    def close(self) -> None:
        self._part.close()


def join_ends(log: Path) -> None:
    """Put what was kept of a log's end behind its beginning; also of one whose engine died."""
    numbers = sorted(int(path.suffix[1:]) for path in log.parent.glob(f"{glob.escape(log.name)}.end.*[0-9]"))
    if not numbers:
        return
    dropped = int(_dropped(log).read_text() or 0) if _dropped(log).exists() else 0
    with log.open("ab") as file, _index_of(log).open("ab") as index:
        for number in numbers:
            _append(file, index, _end(log, number), dropped if number == numbers[0] else 0)
            file.flush()
            for path in (_end(log, number), _index_of(_end(log, number))):
                path.unlink(missing_ok=True)
    _dropped(log).unlink(missing_ok=True)


def _append(file: IO[bytes], index: IO[bytes], end: Path, dropped: int) -> None:
    """Append one end and its index; the first one after a gap begins with its first whole line."""
    with end.open("rb") as source:
        if dropped:
            torn = source.readline(BLOCK)
            file.write(f"… pipe: {dropped + len(torn)} bytes were dropped here\n".encode())
        skipped = source.tell()
        base = file.tell() - skipped
        for line in _index_of(end).read_text().splitlines():
            offset, _, at = line.partition(" ")
            index.write(f"{base + max(skipped, int(offset))} {at}\n".encode())
        shutil.copyfileobj(source, file, 1 << 20)


def _end(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.end.{number}")


def _dropped(log: Path) -> Path:
    return log.with_name(f"{log.name}.dropped")


def _index_of(path: Path) -> Path:
    """Where the index of a log is, or of an end, which is nothing that others read."""
    return path.with_suffix(".idx") if path.suffix == ".log" else path.with_name(f"{path.name}.times")


def _cut(data: bytes, room: int, *, whole: bool) -> int:
    """Where to cut: behind the last whole line that there is room for, else between two characters.

    `whole`: the data begins a line, which is not torn for a little room.
    """
    cut = max(0, room)
    end = data.rfind(b"\n", 0, cut) + 1
    if end or (whole and cut < BLOCK):
        return end
    while cut > 0 and cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _full(half: int, *, begins_line: bool) -> bytes:
    text = (
        f"… pipe: this log has {half} bytes; of what follows the last ones are kept, and shown when the attempt ends\n"
    )
    return (b"" if begins_line else b"\n") + text.encode()


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, read from its end; memory does not grow with the log."""
    if not path.exists():
        return []
    found: list[bytes] = []
    breaks = 0
    for block in _blocks_from_end(path):
        found.append(block)
        breaks += block.count(b"\n")
        if breaks > lines or len(found) > 64:
            break
    return [line.decode("utf-8", "replace") for line in b"".join(reversed(found)).splitlines()[-lines:]]


def _blocks_from_end(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            yield file.read(end - start)
            end = start
