"""`pipe logs`: the output of a run or of one stage, as it is kept, and while it grows."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pipeline.errors import PipeError, nearest
from runner.commands.resume import read_run
from runner.events import Record
from runner.folder import RunFolder
from runner.sinks.plain import Plain
from runner.sinks.view import RunView
from runner.state import LeafState
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
    leaf = _once_started(folder, stage) if follow else state.leaf(stage)
    number = attempt or leaf.attempt
    if not 0 < number <= leaf.attempt:
        raise PipeError(_why_none(leaf, attempt))
    while True:
        _print(_blocks(folder.log(stage, number), partial(_runs, folder, stage, number) if follow else bool))
        if not follow or attempt or not _goes_on(folder, stage, number):
            return 0
        number += 1


def _print(blocks: Iterator[bytes]) -> None:
    for block in blocks:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


def _goes_on(folder: RunFolder, stage: str, number: int) -> bool:
    """Wait until another attempt has begun, or it is sure that none will."""
    while True:
        alive = _has_engine(folder)
        leaf = read_run(folder)[1].leaf(stage)
        if leaf.attempt > number:
            return True
        if leaf.outcome or not alive:
            if not leaf.outcome:
                sys.stderr.write(f"pipe: the engine of the run died; {stage} has no end\n")
            return False
        time.sleep(LOOK_EVERY)


def _once_started(folder: RunFolder, stage: str) -> LeafState:
    """A leaf when it has started, or ended without, or when nobody is there to start it any more."""
    while True:
        alive = _has_engine(folder)
        leaf = read_run(folder)[1].leaf(stage)
        if leaf.attempt or leaf.outcome or not alive:
            return leaf
        time.sleep(LOOK_EVERY)


def _why_none(leaf: LeafState, attempt: int) -> str:
    if attempt:
        return f"{leaf.name} has no attempt {attempt}; it had {leaf.attempt or 'none'} so far"
    if leaf.outcome and leaf.cause:
        return f"{leaf.name} has no log: {leaf.outcome}: {leaf.cause.message}"
    return f"{leaf.name} has not started"


def _blocks(log: Path, grows: Callable[[], bool]) -> Iterator[bytes]:
    """What a log holds, and what comes while it grows; a log that nothing was written to is not there."""
    place = 0
    while True:
        last = not grows()
        if log.exists():
            with log.open("rb") as file:
                file.seek(place)
                while block := file.read(1 << 20):
                    place += len(block)
                    yield block
        if last:
            return
        time.sleep(LOOK_EVERY)


def _runs(folder: RunFolder, stage: str, attempt: int) -> bool:
    """Whether that attempt is still under way."""
    leaf = read_run(folder)[1].leaf(stage)
    return _has_engine(folder) and leaf.running and leaf.attempt == attempt


def _has_engine(folder: RunFolder) -> bool:
    owner = folder.ownership.owner()
    return bool(owner and owner.alive())


def _records(folder: RunFolder, *, follow: bool) -> Iterator[Record | None]:
    """The records of a run, and with `follow` those to come; None whenever there is nothing new."""
    seen = 0
    while True:
        ended = False
        alive = _has_engine(folder)
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
