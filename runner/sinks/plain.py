"""`--output plain`: whole lines `[stage] text` and no cursor codes, for files, pipes and CI hosts.

Where a host groups lines, one stage is shown as it goes on, and the others when they have ended.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from pipeline.stage import Severity
from runner import events
from runner.events import Record
from runner.sinks.closing import closing
from runner.sinks.groups import Groups
from runner.sinks.sink import Renderer
from runner.sinks.tree import Row, clock, rows
from runner.sinks.view import LogReader, RunView, plain_text
from runner.state import LeafState

__all__ = ["Plain"]

SILENCE = 60.0


@dataclass
class _Followed:
    reader: LogReader
    prefix: str
    last: float = field(default_factory=time.time)


class Plain(Renderer):
    """Follows the log of every running leaf and tells each start and end in a line."""

    reads_logs = True

    def __init__(self, out: TextIO, groups: Groups) -> None:
        self._out = out
        self._groups = groups
        self._spoke = time.time()
        self._views: dict[str, RunView] = {}
        self._followed: dict[tuple[str, str], _Followed] = {}

    def record(self, view: RunView, record: Record) -> None:
        """Tell what happened."""
        self._views[view.name] = view
        match record.event:
            case events.StageStarted(stage, attempt):
                self._follow(view, stage, attempt)
            case events.StageRetrying(stage) | events.StageFinished(stage):
                self._unfollow(view, stage)
        if isinstance(record.event, events.RunReopened):
            for leaf, reason in record.event.leaves.items():
                self._say(f"{self._prefix(view, leaf)}runs again: {reason}")
        if isinstance(record.event, events.RunPreflighted):
            for line in doubts(record.event):
                self._say(line)
        if line := _told(view, record.event):
            stage = getattr(record.event, "stage", "")
            self._say((self._prefix(view, stage) if stage else "") + line)

    def frame(self, now: float) -> bool:
        """Show the next block of every log that may be shown by now; whether there may be more."""
        more = False
        for number, (key, followed) in enumerate(self._followed.items()):
            shown = number == 0 or self._groups.interleaves
            if shown and self._lines(followed.prefix, followed.reader.lines()):
                followed.last, more = now, True
            else:
                self._still(key, followed, now)
        self._alive(now)
        self._out.flush()
        return more

    def finish(self) -> None:
        """Repeat what matters: the last lines of what failed, then the tree."""
        for view in self._views.values():
            for line in closing(view, _plain_row):
                self._say(line)
        self._out.write(self._groups.close())
        self._out.flush()

    def _prefix(self, view: RunView, stage: str) -> str:
        return f"[{view.label}/{stage}] " if view.label else f"[{stage}] "

    def _follow(self, view: RunView, stage: str, attempt: int) -> None:
        prefix = self._prefix(view, stage)
        title = view.plan.leaf(stage).title
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self._say(f"{prefix}started{again}{': ' + title if title else ''}")
        self._followed[view.name, stage] = _Followed(LogReader(view.logs.blocks(stage, attempt)), prefix)

    def _unfollow(self, view: RunView, stage: str) -> None:
        followed = self._followed.pop((view.name, stage), None)
        if followed:
            for lines in followed.reader.end():
                self._lines(followed.prefix, lines)

    def _lines(self, prefix: str, lines: str) -> bool:
        if lines:
            begin = self._groups.enter(prefix.strip()) + prefix
            self._write(begin + lines.replace("\n", f"\n{prefix}", lines.count("\n") - 1))
            self.moved = time.monotonic()
        return bool(lines)

    def _still(self, key: tuple[str, str], followed: _Followed, now: float) -> None:
        """A heartbeat for a silent minute, or people and Jenkins think that it hangs."""
        if now - followed.last > SILENCE:
            followed.last = now
            run, stage = key
            leaf = self._views[run].state.leaf(stage)
            doing = f": {leaf.progress}" if leaf.progress else ""
            self._say(f"{followed.prefix}running for {clock(leaf.seconds(now))}{doing}")

    def _alive(self, now: float) -> None:
        """The same for a minute in which no stage was running: what the runs wait for."""
        if now - self._spoke > SILENCE:
            for view in self._views.values():
                row = next(rows(view, now))
                if row.running:
                    self._say(f"{row.name} for {row.time}: {row.note}")

    def _say(self, line: str) -> None:
        self._write(f"{self._groups.leave()}{plain_text(line)}\n")

    def _write(self, text: str) -> None:
        self._spoke = time.time()
        self._out.write(text)


def doubts(event: events.RunPreflighted) -> Iterator[str]:
    """What may fail or could not be checked; what will fail is told where a leaf ends for it."""
    from runner.findings import lines, read  # few runs have any

    found = map(read, event.findings)
    yield from lines(told for told in found if told.finding.severity is not Severity.FAILS)


def _told(view: RunView, event: events.Event) -> str:
    """What is said of an event, empty if nothing is."""
    match event:
        case events.RunStarted():
            return f"{view.name} started, {view.logs.place}"
        case events.RunResumed():
            return f"{view.name} goes on, {view.logs.place}"
        case events.StageLost(attempt=attempt, cause=cause):
            return f"attempt {attempt} is lost: {cause.message}"
        case events.StageRetrying(_, attempt, outcome, cause, delay):
            return f"attempt {attempt} {outcome}: {cause.message}; the next one in {clock(delay)}"
    return _told_of_ends(view, event)


def _told_of_ends(view: RunView, event: events.Event) -> str:
    match event:
        case events.StageFinished(stage):
            return _end(view.state.leaf(stage))
        case events.SecretLeaked(where):
            return f"a secret can be read in {where}"
        case events.RunWarned(message, logged=False):
            return f"warning: {message}"
        case events.CancelRequested(by, superseded):
            return f"{view.name} cancelling: {by} takes its place" if superseded else f"{view.name} cancelling: {by}"
        case events.RunQueued(group, behind):
            return f"{view.name} waits for {behind}: one run at a time in the group '{group}'"
    return ""


def _end(leaf: LeafState) -> str:
    took = f" in {clock(leaf.finished - leaf.started)}" if leaf.started else ""
    why = f": {leaf.cause.message}" if leaf.cause else ""
    allowed = " (allowed)" if leaf.allowed else ""
    return f"{leaf.outcome}{took}{allowed}{why}"


def _plain_row(row: Row) -> str:
    note = f"  {row.note}" if row.note else ""
    return f"{'  ' * row.depth}{row.mark} {row.name}  {row.time}{note}".rstrip()
