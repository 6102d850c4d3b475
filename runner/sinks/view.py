"""What a sink knows of one run: its plan, its logs, and its own fold of the events it has read."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.plan import Plan
from runner.folder import RunFolder
from runner.logs import tail
from runner.state import RunState

__all__ = ["Blocks", "KeptLogs", "LogFile", "LogReader", "Logs", "RunView", "clean", "cleaned", "plain_text"]

BLOCK = 1 << 18
"""Bytes that are read at once; with more of them each copy would leave the processor's cache."""
LONGEST_LINE = 1 << 16

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\-_]?)")
_CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\n\t"})
_UNICODE_CONTROLS = re.compile("[\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
"""C1, and what turns the order of the text that follows: it hides what that says."""
_ORDINARY = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\n\t"} - {0xC2, 0xE2})
"""What can neither move a cursor nor begin a character that does."""


def plain_text(text: str) -> str:
    """A message of ours with words from outside in it: one line, and inert like `clean`."""
    return " ⏎ ".join(clean(part.encode()) for part in text.splitlines()) if text else ""


def clean(lines: bytes) -> str:
    """Lines of a log for a terminal: nothing in them can move the cursor, set a title or hide text."""
    if not lines.translate(None, _ORDINARY):  # a hundred times as fast as to look for each
        return lines.decode("utf-8", "replace").replace("\t", "    ")
    inert = _ESCAPES.sub(b"", _last_drawn(lines)).translate(None, _CONTROLS)
    return _UNICODE_CONTROLS.sub("", inert.decode("utf-8", "replace")).replace("\t", "    ")


def _last_drawn(lines: bytes) -> bytes:
    """Of lines that were drawn over and over, the last that one could see."""
    if b"\r" not in lines:
        return lines
    return b"\n".join(line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines.split(b"\n"))


class Blocks(Protocol):
    """The bytes of one log from its beginning on, as they come."""

    def read(self) -> bytes:
        """The next ones, a block at most; none when there are no more for now."""

    def close(self) -> None:
        """Nobody will read on."""


class LogFile:
    """The blocks of a log that is a file, by offset; one that nothing was written to is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def read(self) -> bytes:
        """As `Blocks`."""
        if self._file < 0:
            if not self._path.exists():
                return b""
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.read(self._file, BLOCK)

    def close(self) -> None:
        """As `Blocks`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LogReader:
    """Follows the log of one attempt in whole lines."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._rest = b""

    def lines(self) -> str:
        """Whole lines of the next block; one that never ends is cut at 64 KiB."""
        whole, self._rest = _whole(self._rest + self._blocks.read())
        return clean(whole)

    def end(self) -> Iterator[str]:
        """The rest, block by block, and a last line without a newline."""
        while lines := self.lines():
            yield lines
        if self._rest:
            yield clean(self._rest + b"\n")
        self._rest = b""
        self._blocks.close()


def cleaned(blocks: Iterable[bytes]) -> Iterator[str]:
    """What a log holds, for a terminal: its lines as they become whole, each block of them `clean`."""
    rest = b""
    for block in blocks:
        whole, rest = _whole(rest + block)
        yield clean(whole)
    if rest:
        yield clean(rest + b"\n")


def _whole(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines, and what is not one yet. One without an end is cut, between two characters."""
    end = data.rfind(b"\n") + 1
    if len(data) - end <= LONGEST_LINE:
        return data[:end], data[end:]
    end = len(data) - _begun(data[-4:])
    return data[:end] + b"\n", data[end:]


def _begun(end: bytes) -> int:
    """Bytes at the end that begin a character and are not all of it."""
    for length in range(1, len(end) + 1):
        first = end[-length]
        if first & 0xC0 != 0x80:  # not in the middle of one
            size = 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2 if first >= 0xC0 else 1
            return length if length < size else 0
    return 0


class Logs(Protocol):
    """The logs of one run, wherever they are."""

    @property
    def place(self) -> str:
        """Where the run is, for people."""

    @property
    def shelf(self) -> str:
        """Where its logs are, for people."""

    def blocks(self, leaf: str, attempt: int) -> Blocks:
        """What one attempt wrote, and writes."""

    def tail(self, leaf: str, attempt: int, lines: int) -> list[str]:
        """The last lines of what one attempt wrote."""


@dataclass(frozen=True, slots=True)
class KeptLogs:
    """The logs in the folder of a run."""

    folder: RunFolder

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder.path)

    @property
    def shelf(self) -> str:
        """The folder of the logs."""
        return str(self.folder.path / "logs")

    def blocks(self, leaf: str, attempt: int) -> LogFile:
        """As `Logs`."""
        return LogFile(self.folder.log(leaf, attempt))

    def tail(self, leaf: str, attempt: int, lines: int) -> list[str]:
        """As `Logs`."""
        return tail(self.folder.log(leaf, attempt), lines)


@dataclass
class RunView:
    """One run as a sink sees it. `label` is put before its lines when there are several runs, else empty."""

    plan: Plan
    logs: Logs
    label: str = ""
    state: RunState = field(default_factory=RunState)

    @property
    def name(self) -> str:
        """`backend#12`."""
        return f"{self.plan.pipeline}#{self.plan.run.number}"

    def last_lines(self, leaf: str, most: int) -> list[str]:
        """How the log of a leaf's latest attempt ends."""
        return self.logs.tail(leaf, max(1, self.state.leaf(leaf).attempt), most)
