"""What a sink knows of one run: its plan, its folder, and its own fold of the events it has read."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.plan import Plan
from runner.folder import RunFolder
from runner.state import RunState

__all__ = ["LogReader", "RunView", "clean", "plain_text"]

BLOCK = 1 << 20
LONGEST_LINE = 1 << 16

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_]?)")
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]")


def plain_text(text: str) -> str:
    """A message of ours with words from outside in it: one line, and inert like `clean`."""
    return " ⏎ ".join(clean(part.encode()) for part in text.splitlines()) if text else ""


def clean(line: bytes) -> str:
    """One line of a log for a terminal: nothing in it can move the cursor, set a title or hide text."""
    last_drawn = line.rstrip(b"\r\n").rpartition(b"\r")[2]
    return _CONTROLS.sub(b"", _ESCAPES.sub(b"", last_drawn)).decode("utf-8", "replace").replace("\t", "    ")


class LogReader:
    """Follows the log file of one attempt by offset, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._rest = b""

    def lines(self) -> list[str]:
        """Whole lines of the next block, at most 1 MiB of them; one that never ends is cut at 64 KiB."""
        *whole, self._rest = (self._rest + self._read()).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            whole.append(self._rest)
            self._rest = b""
        return [clean(line) for line in whole]

    def end(self) -> Iterator[list[str]]:
        """The rest, block by block, and a last line without a newline."""
        while lines := self.lines():
            yield lines
        if self._rest:
            yield [clean(self._rest)]
        self._rest = b""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> bytes:
        if self._file < 0:
            if not self._path.exists():
                return b""
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.read(self._file, BLOCK)


@dataclass
class RunView:
    """One run as a sink sees it. `label` is put before its lines when there are several runs, else empty."""

    plan: Plan
    folder: RunFolder
    label: str = ""
    state: RunState = field(default_factory=RunState)

    @property
    def name(self) -> str:
        """`backend#12`."""
        return f"{self.plan.pipeline}#{self.plan.run.number}"

    def log(self, leaf: str) -> Path:
        """The log of a leaf's latest attempt."""
        return self.folder.log(leaf, max(1, self.state.leaf(leaf).attempt))
