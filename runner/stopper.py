"""Signals: the first one cancels the runs, a second one cuts what is left, and neither waits for ever."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import anyio

from runner.engine import STOP_WITHIN, Engine
from runner.guardian import CANARY
from runner.journal import EpochLost
from runner.sinks.sink import Sink

__all__ = ["Stopper"]

REPORT_WITHIN = 1.5
"""Seconds that reports may take when stages did not stop in time: Jenkins waits no longer."""
_OBEYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stopper:
    """Ends all engines of this process when it is told to."""

    def __init__(self, engines: Sequence[Engine], sink: Sink, report: Callable[[], None]) -> None:
        """`report` writes the reports on the runs, whatever they ended like."""
        self._engines = engines
        self._sink = sink
        self._report = report
        self._heard: Counter[str] = Counter()
        self.exit_code = 0
        """130 or 143 once a signal came, else 0."""

    async def obey_signals(self, early: Sequence[int] = ()) -> None:
        """Take the signals that reach this process; runs until cancelled. One that comes later finds nothing to end.

        `early` are those that came before; they are heard when the runs have begun.

        Not by the event loop's own receiver: that gives them their default back when it ends, and a sweep of Jenkins
        which comes to this process then would end it while the last things are written down.
        """
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for obeyed in _OBEYED:
            signal.signal(obeyed, lambda *_: None)
        os.write(writing, bytes(early))
        try:
            while True:
                await anyio.wait_readable(reading)
                for number in os.read(reading, 16):
                    self._hear("direct", number)
        finally:
            for obeyed in _OBEYED:
                signal.signal(obeyed, signal.default_int_handler if obeyed == signal.SIGINT else signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
            os.close(reading)
            os.close(writing)

    async def obey_guardian(self, pipe: int) -> None:
        """Take what the guardian passes on, one byte a signal; the end of the pipe means that it is dead.

        A terminal and Jenkins signal all of us, so a second signal is one that comes twice the same way.
        """
        os.set_blocking(pipe, False)
        while True:
            await anyio.wait_readable(pipe)
            numbers = os.read(pipe, 16)
            for number in numbers:
                self._hear("canary" if number & CANARY else "guardian", number & ~CANARY)
            if not numbers:
                self._let_go()
                return

    def _hear(self, source: str, number: int) -> None:
        self._heard[source] += 1
        if not self.exit_code:
            self.exit_code = 130 if number == signal.SIGINT else 143
            for engine in self._engines:
                with suppress(EpochLost, OSError):  # it ends by that itself; the others are cancelled all the same
                    engine.cancel(signal.Signals(number).name)
        elif self._heard[source] > 1:
            for engine in self._engines:
                engine.cut()

    def _let_go(self) -> None:
        """Without a guardian nobody would end what we leave: stop as if killed, so that the runs can be resumed."""
        for engine in self._engines:
            engine.let_go("its guardian died")

    async def last_resort(self) -> None:
        """Leave behind runs that were told to end and do not, and write that down.

        What they hold up ends with this process, as soon as no other run of it is under way.
        """
        async with anyio.create_task_group() as tasks:
            for engine in self._engines:
                tasks.start_soon(self._leave_behind, engine)

    async def _leave_behind(self, engine: Engine) -> None:
        await engine.stopping.wait()
        await anyio.sleep(STOP_WITHIN)
        with suppress(EpochLost, OSError):
            engine.abandon()
        engine.gone.set()
        for other in self._engines:
            await other.gone.wait()
        with anyio.move_on_after(REPORT_WITHIN):
            await anyio.to_thread.run_sync(self._report, abandon_on_cancel=True)
        await anyio.to_thread.run_sync(partial(self._sink.stop, hurried=True))
        os._exit(self.exit_code or 1)
