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
"""Seconds that a sink gets to show the rest when the runs have ended."""


class Renderer(ABC):
    """Turns records into output. All methods are called from one thread."""

    period: float = 0.1
    reads_logs: bool = False
    """Whether it shows what stages write while they run."""

    @abstractmethod
    def record(self, view: RunView, record: Record) -> None:
        """One more record of a run; `view.state` has it already."""

    @abstractmethod
    def frame(self, now: float) -> None:
        """Called every `period` seconds, after the records that came."""

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

    def stop(self) -> None:
        """Wait, bounded, until everything is shown."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(LAST_WORDS)

    def _work(self) -> None:
        try:
            while self._batch():
                self._renderer.frame(time.time())
            self._renderer.finish()
        except Exception as error:  # noqa: BLE001 - a closed pipe or a full disk ends the sink, never the run
            self.failure = error
        finally:
            self._renderer.restore()

    def _batch(self) -> bool:
        """Take what comes within one period; False when there will be no more."""
        end = time.monotonic() + self._renderer.period
        while (rest := end - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=rest)
            except queue.Empty:
                break
            if item is None:
                return False
            view, record = item
            view.state.apply(record)
            self._renderer.record(view, record)
        return True
