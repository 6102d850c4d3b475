"""Say what is going on: one live line on a terminal, whole lines with a heartbeat elsewhere."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic
from typing import TextIO

SILENT_FOR = 2.0
HEARTBEAT = 15.0
_write = Lock()
_active: list["Activity"] = []


class Activity:
    """Something that takes its time; `note` is the latest news about it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.note = ""
        self.started = monotonic()
        self.shown = False

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.started

    def __str__(self) -> str:
        note = f", {self.note}" if self.note else ""
        return f"{self.what} … {self.elapsed:.0f} s{note}"


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a whole line, past a live one."""
    stream = stream or sys.stderr
    with _write:
        erase = "\r\x1b[2K" if stream.isatty() else ""
        print(f"{erase}{line}", file=stream, flush=True)


@contextmanager
def activity(what: str) -> Iterator[Activity]:
    """Show `what` while the block runs, once it takes longer than two seconds, and then its end, too."""
    one = Activity(what)
    done = Event()
    ticker = Thread(target=_tick, args=(one, done), daemon=True)
    _active.append(one)
    ticker.start()
    try:
        yield one
    finally:
        done.set()
        ticker.join()
        _active.remove(one)
    if one.shown:
        # Reached only without an error, which has its own words.
        say(f"{one.what}: done in {one.elapsed:.0f} s")


def _tick(one: Activity, done: Event) -> None:
    live = sys.stderr.isatty()
    wait = SILENT_FOR
    while not done.wait(wait):
        one.shown = True
        wait = 1.0 if live else HEARTBEAT
        if live:
            _draw()
        else:
            say(str(one))
    if live and one.shown:
        with _write:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def _draw() -> None:
    width = os.get_terminal_size(sys.stderr.fileno()).columns
    line = " · ".join(str(one) for one in list(_active))
    with _write:
        print(f"\r\x1b[2K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
