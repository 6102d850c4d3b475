"""The stream of a run, gone on with after every broken connection, exactly where it broke."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from runner.remote.connection import Lost, Server

__all__ = ["GIVES_UP_AFTER", "Patience", "Said", "events", "log"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
GIVES_UP_AFTER = 600.0
"""Seconds without an answer after which nobody waits on."""


@dataclass(frozen=True, slots=True)
class Said:
    """One event of a stream."""

    type: str
    data: bytes


class Patience:
    """Growing pauses between tries, and an end of them."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._tries = 0
        self._since = 0.0

    def heard(self) -> None:
        """There was an answer."""
        self._tries = 0

    def wait(self, lost: Lost) -> None:
        """Wait before the next try; raises what went wrong when it has lasted too long."""
        if not self._tries:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._limit:
            raise lost
        if self._tries == 1:
            sys.stderr.write(f"pipe: {lost}; trying again\n")
        time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._tries))
        self._tries += 1


def events(server: Server, run: str, after: str = "", *, logs: bool, follow: bool) -> Iterator[Said | None]:
    """What happens in a run behind a position; None after whatever came at once. The last one is `end`.

    Raises:
        Lost: the server was away for ten minutes.
        PipeError: it refuses.
    """
    patience = Patience(GIVES_UP_AFTER)
    while True:
        try:
            with server.stream("runs", run, "events", after=after, logs=logs, follow=follow) as answer:
                for fields in _frames(answer.iter_bytes()):
                    patience.heard()
                    if fields is None:
                        yield None
                        continue
                    after = fields.get(b"id", b"").decode() or after
                    yield (said := Said(fields.get(b"event", b"message").decode(), fields.get(b"data", b"")))
                    if said.type == "end":
                        return
        except Lost as lost:
            patience.wait(lost)


def _frames(blocks: Iterator[bytes]) -> Iterator[dict[bytes, bytes] | None]:
    """The fields of each event; None after each block. What was cut off at the end is none."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n\n")
        for frame in whole:
            lines = (line.partition(b": ") for line in frame.split(b"\n") if not line.startswith(b":"))
            if fields := {name: value for name, _, value in lines}:
                yield fields
        yield None


def log(server: Server, run: str, leaf: str, attempt: int, offset: int, *, follow: bool) -> Iterator[bytes]:
    """The bytes of a log from `offset` on, until the server says no more for now.

    Raises:
        Lost: the connection broke.
        PipeError: there is no such attempt, or the server refuses.
    """
    with server.stream("runs", run, "logs", leaf, attempt=attempt, offset=offset, follow=follow) as answer:
        yield from answer.iter_bytes()
