"""`--output json`: the events themselves on stdout, one object a line."""

from typing import BinaryIO

from runner.events import Record, encode
from runner.sinks.sink import Renderer
from runner.sinks.view import RunView

__all__ = ["JsonLines"]


class JsonLines(Renderer):
    """Writes each record as the journal holds it, with the run it belongs to in front."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def record(self, view: RunView, record: Record) -> None:
        """Write one line."""
        self._out.write(b'{"run":"' + view.name.encode() + b'",' + encode(record)[1:])

    def frame(self, now: float) -> bool:  # noqa: ARG002
        """Let readers see what was written."""
        self._out.flush()
        return False

    def finish(self) -> None:
        """Let readers see the end."""
        self._out.flush()
