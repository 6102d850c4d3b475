"""A run as it is told: its records and what its logs got, in one order, and from any place on."""

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from runner import events
from runner.events import Record
from runner.folder import RunFolder

__all__ = ["Piece", "Position", "find", "tell"]

ROOM = 256 << 10
"""Bytes of logs that are told at once, in all."""
LEAST = 4096
_WORDS = re.compile(r"(?:([1-9][0-9]{0,8})\.)?([0-9]{1,12})((?:\+[0-9]{1,12}:[0-9]{1,18})*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """What the log of an attempt got; `offset` is where that begins in the log, in bytes.

    It never ends within a character of UTF-8, unless the log does.
    """

    stage: str
    attempt: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Open:
    """An attempt under way: the number of the record that began it, and how many bytes of its log have been told."""

    stage: str
    attempt: int
    begun: int
    told: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """How much of a run has been told: all up to a record, and of each log under way so many bytes.

    As text it is `SEQ`, `EPOCH.SEQ` when the run was gone on with, and `+BEGUN:BYTES` for each log told in part.
    """

    epoch: int = 1
    seq: int = 0
    place: int = 0
    """The byte of the epoch's journal behind that record."""
    logs: tuple[_Open, ...] = ()

    def __str__(self) -> str:
        epoch = f"{self.epoch}." if self.epoch > 1 else ""
        return f"{epoch}{self.seq}" + "".join(f"+{log.begun}:{log.told}" for log in self.logs if log.told)

    def bare(self) -> "Position":
        """The same for somebody who wants no logs."""
        return replace(self, logs=())

    def behind(self, record: Record, epoch: int, place: int, *, logs: bool) -> "Position":
        """The position once that record has been told too."""
        stage = ended_attempt(record)
        still = tuple(log for log in self.logs if log.stage != stage) if stage else self.logs
        if logs and isinstance(record.event, events.StageStarted):
            still = (*still, _Open(record.event.stage, record.event.attempt, record.seq))
        return Position(epoch, record.seq, place, still)

    def heard(self, log: _Open, size: int) -> "Position":
        """The position once `size` further bytes of that log have been told too."""
        more = replace(log, told=log.told + size)
        return replace(self, logs=tuple(more if each is log else each for each in self.logs))


def ended_attempt(record: Record) -> str:
    """The leaf whose attempt ended with this record; empty if none did."""
    match record.event:
        case events.StageRetrying(stage) | events.StageFinished(stage) | events.StageLost(stage):
            return stage
    return ""


def find(folder: RunFolder, words: str | None, *, logs: bool) -> Position:
    """The position that a text means, as far as the run has come; None means: everything there is now.

    Raises:
        ValueError: the text is no position, or a journal is spoiled.
    """
    wanted, told = _read(words) if words is not None else (None, {})
    now = Position()
    for record, epoch, place in folder.placed():
        if wanted is not None and (epoch, record.seq) > wanted:
            break
        now = now.behind(record, epoch, place, logs=logs)
    for log in now.logs:
        size = told.get(log.begun, 0) if wanted is not None else _size(folder, log)
        now = now.heard(log, size)
    return now


def _read(words: str) -> tuple[tuple[int, int], dict[int, int]]:
    match = _WORDS.fullmatch(words or "0")
    if match is None:
        raise ValueError(f"'{words}' is no place in the events of a run")
    logs = (each.split(":") for each in match[3].split("+")[1:])
    return (int(match[1] or 1), int(match[2])), {int(begun): int(told) for begun, told in logs}


def tell(
    folder: RunFolder, after: Position, until: Position | None = None, *, logs: bool
) -> Generator[tuple[Record | Piece, Position]]:
    """What is there behind a position, each with the position behind it; with `until` nothing that is behind that.

    All of an attempt's log comes before the record that ends it. Of a log under way comes one piece, the caller
    asks again.

    Raises:
        ValueError: a journal is spoiled.
    """
    now = after
    for record, epoch, place in folder.placed(now.epoch, now.place):
        if until is not None and (epoch, record.seq) > (until.epoch, until.seq):
            return
        for log in now.logs:
            if log.stage == ended_attempt(record):
                for piece in _rest(folder, log):
                    now = now.heard(_same(now, log), len(piece.data))
                    yield piece, now
        now = now.behind(record, epoch, place, logs=logs)
        yield record, now
    limits = {log.begun: log.told for log in until.logs} if until else {}
    for log in now.logs:
        most = min(limits.get(log.begun, 0) - log.told, ROOM) if until else max(LEAST, ROOM // len(now.logs))
        if most > 0 and (piece := _piece(folder, log, most)).data:
            now = now.heard(log, len(piece.data))
            yield piece, now


def _same(now: Position, log: _Open) -> _Open:
    return next(each for each in now.logs if each.begun == log.begun)


def _rest(folder: RunFolder, log: _Open) -> Iterator[Piece]:
    """What is left of a log that has ended."""
    told = log.told
    while (piece := _piece(folder, replace(log, told=told), LEAST * 16)).data:
        yield piece
        told += len(piece.data)
    if (piece := _piece(folder, replace(log, told=told), 4, whole=False)).data:
        yield piece


def _piece(folder: RunFolder, log: _Open, most: int, *, whole: bool = True) -> Piece:
    try:
        with folder.log(log.stage, log.attempt).open("rb") as file:
            file.seek(log.told)
            data = file.read(most)
    except FileNotFoundError:  # nothing was written to it so far
        data = b""
    return Piece(log.stage, log.attempt, log.told, _whole(data) if whole else data)


def _size(folder: RunFolder, log: _Open) -> int:
    """How much of a log there is, up to the last whole character."""
    try:
        size = os.stat(folder.log(log.stage, log.attempt)).st_size  # noqa: PTH116 - a Path made from a Path
    except FileNotFoundError:
        return 0
    start = max(0, size - 4)
    return start + len(_piece(folder, replace(log, told=start), size - start).data)


def _whole(data: bytes) -> bytes:
    """Bytes without the beginning of a character whose rest is not there."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0b1100_0000:
            length = 2 if byte < 0b1110_0000 else 3 if byte < 0b1111_0000 else 4
            return data[:-back] if length > back else data
        if byte < 0b1000_0000:
            return data
    return data
