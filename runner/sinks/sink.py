"""A thread that reads events at its own pace, so that a slow or broken reader never holds up a run."""

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from runner.events import Record
from runner.sinks.view import RunView

__all__ = ["Renderer", "Sink"]

LAST_WORDS = 10.0
"""Seconds without anything shown after which nobody waits any more for a sink whose runs have ended."""


class Renderer(ABC):
    """Turns records into output. All methods are called from one thread."""

    period: float = 0.1
    reads_logs: bool = False
    """Whether it shows what stages write while they run."""
    moved: float = 0.0
    """When it last got something across, by `time.monotonic()`."""

    @abstractmethod
    def record(self, view: RunView, record: Record) -> None:
        """One more record of a run; `view.state` has it already."""

    @abstractmethod
    def frame(self, now: float) -> bool:
        """Show what else there is, every `period` seconds after the records that came; whether there is more."""

    @abstractmethod
    def finish(self) -> None:
        """All runs have ended."""

    def restore(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give the terminal back as it was, also after a failure."""


class Sink:
    """Feeds a renderer from a queue in a thread of its own."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._queue: queue.SimpleQueue[tuple[RunView, Record] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sink", daemon=True)
        self.failure: Exception | None = None
        self.reads_logs = renderer.reads_logs

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def reader(self, view: RunView) -> Callable[[Record], None]:
        """What a journal calls for every record of this run."""
        return lambda record: self._queue.put((view, record))

    def stop(self, *, hurried: bool = False) -> bool:
        """Wait until all is shown, as long as somebody reads on; whether it is. `hurried`: ten seconds in all."""
        self._queue.put(None)
        began = time.monotonic()
        while self._thread.is_alive():
            since = began if hurried else max(began, self._renderer.moved)
            if time.monotonic() - since > LAST_WORDS:
                return False
            self._thread.join(0.1)
        return True

    def _work(self) -> None:
        try:
            more = False
            while self._batch(0.0 if more else self._renderer.period):
                more = self._renderer.frame(time.time())
            self._renderer.finish()
        except Exception as error:  # noqa: BLE001 - a closed pipe or a full disk ends the sink, never the run
            self.failure = error
        finally:
            self._renderer.restore()

    def _batch(self, seconds: float) -> bool:
        """Take what has come, and what comes within some seconds; False when there will be no more."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + self._renderer.period:
            try:
                item = self._queue.get(timeout=max(0.0, began + seconds - now))
            except queue.Empty:
                break
            if item is None:
                return False
            view, record = item
            view.state.apply(record)
            self._renderer.record(view, record)
            self._renderer.moved = time.monotonic()
        return True
