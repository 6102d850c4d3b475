"""`pipe logs`: the output of a run or of one stage, as it is kept, and while it grows."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipeError, nearest
from runner.commands.resume import read_run
from runner.events import Record
from runner.folder import RunFolder
from runner.sinks.plain import Plain
from runner.sinks.view import RunView
from runner.store import Store

__all__ = ["logs"]

LOOK_EVERY = 0.2


def logs(words: str, stage: str, attempt: int, *, follow: bool) -> int:
    """Print the log of a leaf byte for byte, or those of a whole run in whole lines behind their leaves' names.

    Raises:
        PipeError: there is no such run, leaf or attempt.
    """
    folder = Store(os.environ, Path.cwd()).find(words)
    if stage:
        return _one(folder, stage, attempt, follow=follow)
    plan, _ = read_run(folder)
    view = RunView(plan, folder)
    renderer = Plain(sys.stdout)
    for record in _records(folder, follow=follow):
        if record is None:
            renderer.frame(time.time())
            continue
        view.state.apply(record)
        renderer.record(view, record)
    renderer.finish()
    return 0


def _one(folder: RunFolder, stage: str, attempt: int, *, follow: bool) -> int:
    plan, state = read_run(folder)
    known = [leaf.name for leaf in (*plan.leaves, *plan.finally_)]
    if leaves := [leaf.name for leaf in plan.leaves if leaf.stage == stage != leaf.name]:
        raise PipeError(f"{stage} is fanned out: name one of {', '.join(leaves)}")
    if stage not in known:
        raise PipeError(f"{plan.pipeline}#{plan.run.number} has no leaf '{stage}'; {nearest(stage, known)}")
    number = attempt or state.leaf(stage).attempt
    log = folder.log(stage, number)
    if not log.exists():
        leaf = state.leaf(stage)
        if leaf.outcome and leaf.cause and not attempt:
            raise PipeError(f"{stage} has no log: {leaf.outcome}: {leaf.cause.message}")
        raise PipeError(f"{stage} has no log of attempt {number}" if number else f"{stage} has not started")
    with log.open("rb") as file:
        while True:
            grows = follow and _grows(folder, stage, number)
            while block := file.read(1 << 20):
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            if not grows:
                return 0
            time.sleep(LOOK_EVERY)


def _grows(folder: RunFolder, stage: str, attempt: int) -> bool:
    """Whether that attempt is still under way."""
    owner = folder.ownership.owner()
    leaf = read_run(folder)[1].leaf(stage)
    return bool(owner and owner.alive() and leaf.running and leaf.attempt == attempt)


def _records(folder: RunFolder, *, follow: bool) -> Iterator[Record | None]:
    """The records of a run, and with `follow` those to come; None whenever there is nothing new."""
    seen = 0
    while True:
        ended = False
        owner = folder.ownership.owner()
        alive = bool(owner and owner.alive())
        for record in folder.records():
            if record.seq > seen:
                seen = record.seq
                ended = record.event.type == "run.finished"
                yield record
        if not follow or ended or not alive:
            yield None
            return
        yield None
        time.sleep(LOOK_EVERY)
