"""`--output tty`: a live tree of at most one screen, redrawn in place."""

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TextIO

from rich.cells import cell_len, set_cell_size

from pipeline.stage import Outcome
from runner.events import Record
from runner.sinks.closing import closing
from runner.sinks.sink import Renderer
from runner.sinks.tree import Row, rows
from runner.sinks.view import RunView

__all__ = ["Tty", "fitting"]

HIDE, SHOW, CLEAR_DOWN, CLEAR_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[J", "\x1b[K"
TIME_WIDTH = 8
_COLOURS = {
    Outcome.SUCCEEDED: "32",
    Outcome.FAILED: "31",
    Outcome.ERRORED: "35",
    Outcome.TIMED_OUT: "33",
    Outcome.CANCELLED: "33",
    Outcome.SKIPPED: "2",
}


class Tty(Renderer):
    """Paints the runs' trees; what does not fit is summed up in one row."""

    period = 0.125

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._views: dict[str, RunView] = {}
        self._drawn = 0

    def record(self, view: RunView, record: Record) -> None:  # noqa: ARG002
        """The state has it already; the next frame shows it."""
        self._views[view.name] = view

    def frame(self, now: float) -> bool:
        """Paint over the last frame."""
        width, height = shutil.get_terminal_size()
        shown = fitting(list(self._rows(now)), height - 2)
        names = _names_width(shown, width)
        self._paint([self._line(row, names, width) for row in shown])
        return False

    def finish(self) -> None:
        """Leave the whole tree and the reasons of failures on the screen."""
        self._paint([])
        names = _names_width(self._rows(time.time()), shutil.get_terminal_size().columns)
        for view in self._views.values():
            for line in closing(view, lambda row: self._line(row, names)):
                self._out.write(line + "\n")
        self._out.flush()

    def restore(self) -> None:
        """Show the cursor again."""
        with suppress(OSError, ValueError):
            self._out.write(SHOW)
            self._out.flush()

    def _rows(self, now: float) -> Iterator[Row]:
        for view in self._views.values():
            yield from rows(view, now)

    def _paint(self, lines: Sequence[str]) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else HIDE
        # line by line: some terminals keep a whole screen that is cleared as history
        self._out.write(up + "\r" + "".join(line + CLEAR_LINE + "\n" for line in lines) + CLEAR_DOWN)
        self._out.flush()
        self._drawn = len(lines)

    def _line(self, row: Row, names: int, width: int | None = None) -> str:
        """A row, its name padded to `names`; with a width what does not fit is cut."""
        text = f"{set_cell_size(_left(row), names)} {row.time:>{TIME_WIDTH}}" + (f"  {row.note}" if row.note else "")
        if width and cell_len(text) > width - 1:
            text = set_cell_size(text, width - 1)
        return self._coloured(row, text.rstrip())

    def _coloured(self, row: Row, text: str) -> str:
        code = _COLOURS[row.outcome] if row.outcome else "1" if row.running else "2"
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _left(row: Row) -> str:
    return f"{'  ' * row.depth}{row.mark} {row.name}"


def _names_width(shown: Iterable[Row], width: int) -> int:
    """The widest name, if it leaves room for a time and the beginning of a reason."""
    widest = max((cell_len(_left(row)) for row in shown), default=0)
    return min(widest, max(20, width - TIME_WIDTH - 20))


def fitting(all_rows: list[Row], room: int) -> list[Row]:
    """The rows that fit: the runs, what is running, what failed, then stages, then as many leaves as there is room."""
    if len(all_rows) <= room:
        return all_rows
    important = sorted(range(len(all_rows)), key=lambda index: (_rank(all_rows[index]), index))
    kept = sorted(islice(important, max(1, room - 1)))
    more = len(all_rows) - len(kept)
    return [*(all_rows[index] for index in kept), Row(1, " ", f"… and {more} more")]


def _rank(row: Row) -> int:
    if row.depth == 0:
        return 0
    if row.running:
        return 1
    if row.outcome in (Outcome.FAILED, Outcome.ERRORED, Outcome.TIMED_OUT):
        return 2
    return 3 if row.depth == 1 else 4
