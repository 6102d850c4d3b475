"""Runs on a server: the answers that commands want of a run, by the server's API."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pipeline.errors import PipeError
from pipeline.plan import Plan
from pipeline.stage import Outcome
from runner.events import Record, decode
from runner.remote import streams
from runner.remote.connection import Lost, Server
from runner.remote.streams import Patience
from runner.runs import Summary
from runner.state import RunState, fold
from runner.status import Status, doing, ended

__all__ = ["ServerRun", "ServerRuns"]

MOST_HELD = 1 << 20
"""Bytes of a log that wait for who shows them; the stream waits then."""
LAST_BYTES = 256 << 10
_NOT_BEGUN = {"queued": "waits for its start", "waiting": "waits for approval"}
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class _Spool:
    """What came of one log and has not been shown."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._change = threading.Condition()
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Add bytes; wait while there are too many."""
        with self._change:
            self._change.wait_for(lambda: len(self._held) < MOST_HELD or self._closed)
            if not self._closed:
                self._held += data

    def read(self) -> bytes:
        """Take them all."""
        with self._change:
            data = bytes(self._held)
            self._held.clear()
            self._change.notify_all()
            return data

    def close(self) -> None:
        """Hold nothing any more."""
        with self._change:
            self._closed = True
            self._held.clear()
            self._change.notify_all()


@dataclass
class StreamedLogs:
    """The logs of a run as its stream brings them."""

    server: Server
    run: str
    _spools: dict[tuple[str, int], _Spool] = field(default_factory=dict)
    _deaf: bool = False

    @property
    def place(self) -> str:
        """Where the server shows the run."""
        return f"{self.server.url}/runs/{self.run}"

    @property
    def shelf(self) -> str:
        """The page of the run, which has its logs."""
        return self.place

    def feed(self, stage: str, attempt: int, data: bytes) -> None:
        """A piece came."""
        if not self._deaf:
            self.blocks(stage, attempt).feed(data)

    def blocks(self, leaf: str, attempt: int) -> _Spool:
        """As `Logs`; they can be read once."""
        return self._spools.setdefault((leaf, attempt), _Spool())

    def stop(self) -> None:
        """Nobody reads any more: what comes is thrown away."""
        self._deaf = True
        for spool in list(self._spools.values()):
            spool.close()

    def tail(self, leaf: str, attempt: int, lines: int) -> list[str]:
        """As `Logs`; if the server is away now, that is said instead."""
        try:
            found = b"".join(streams.log(self.server, self.run, leaf, attempt, -LAST_BYTES, follow=False))
        except PipeError as error:
            return [f"(the end of its log could not be read: {error})"]
        return [line.decode("utf-8", "replace") for line in found.splitlines()[-lines:]]


class ServerRun:
    """One run on a server."""

    def __init__(self, server: Server, row: Mapping[str, Any], *, fresh: bool = False) -> None:
        """`row` is what the server said of it; if that is `fresh`, it is not asked again for a first summary."""
        self.server = server
        self.id = str(row["id"])
        self.name = f"{row['project']}/{row['pipeline']}#{row['number']}"
        self.logs = StreamedLogs(server, self.id)
        self._row = row if fresh else None

    def summary(self) -> Summary:
        """As `Run`."""
        row, self._row = self._row or self.server.get("runs", self.id), None
        outcome = self._known(Outcome, row["outcome"]) if row["outcome"] else None
        if row["state"] in _NOT_BEGUN:
            how = Status(row["state"], row["note"] or _NOT_BEGUN[row["state"]])
        else:
            how = Status(row["outcome"] if outcome else "running", row["note"])
        times = {"started": float(row["started"]), "finished": float(row["ended"])}
        return Summary(self.name, how, self.id, outcome=outcome, place=self.logs.place, **times)

    def plan(self) -> Plan:
        """As `Run`."""
        try:
            return Plan.model_validate_json(self.server.text("runs", self.id, "plan"))
        except ValidationError:
            raise PipeError(f"cannot read the plan of {self.name}: {self.server.versions()}") from None

    def records(self) -> Iterator[Record]:
        """As `Run`."""
        return (record for record in self.follow(wait=False) if record is not None)

    def state(self) -> RunState:
        """As `Run`."""
        return fold(self.records())

    def status(self, state: RunState) -> Status:
        """As `Run`."""
        now = self.summary().status
        return ended(state) or Status(now.word, doing(state) or now.note)

    def follow(
        self, after: RunState | None = None, *, logs: bool = False, wait: bool = True
    ) -> Iterator[Record | None]:
        """As `Run`."""
        place = f"{after.epoch}.{after.seq}" if after else ""
        for said in streams.events(self.server, self.id, place, logs=logs, follow=wait):
            if said is None:
                yield None
            elif said.type == "log":
                piece = json.loads(said.data)
                self.logs.feed(piece["stage"], piece["attempt"], piece["text"].encode())
                yield None
            elif said.type != "end" and (record := self._known(decode, said.data)) is not None:
                yield record
        yield None

    def log(self, leaf: str, attempt: int, *, follow: bool) -> Iterator[bytes]:
        """As `Run`."""
        offset, patience = 0, Patience(streams.GIVES_UP_AFTER)
        while True:
            try:
                known = self.state().leaf(leaf)
                goes_on = follow and known.running and known.attempt == attempt
                for block in streams.log(self.server, self.id, leaf, attempt, offset, follow=goes_on):
                    patience.heard()
                    offset += len(block)
                    yield block
            except Lost as lost:
                patience.wait(lost)
                continue
            if not goes_on:
                return

    def cancel(self, by: str) -> None:  # noqa: ARG002 - the server knows whose token it is
        """As `Run`."""
        patience = Patience(20)
        while True:
            try:
                self.server.post("runs", self.id, "cancel")
            except Lost as lost:
                patience.wait(lost)
            else:
                return

    def approve(self) -> None:
        """Let the commit of a fork run that waits for it.

        Raises:
            PipeError: it does not wait, or the caller may not.
        """
        self.server.post("runs", self.id, "approve")

    def _known(self, read: Any, value: Any) -> Any:
        """Read something that a newer server may say in words that we do not know."""
        try:
            return read(value)
        except (ValueError, KeyError, TypeError):
            raise PipeError(f"cannot read what the server says of {self.name}: {self.server.versions()}") from None


@dataclass(frozen=True, slots=True)
class ServerRuns:
    """The runs of one server."""

    server: Server

    @property
    def place(self) -> str:
        """As `Runs`."""
        return self.server.url

    @property
    def words(self) -> str:
        """As `Runs`."""
        return f"--server {self.server.url} "

    def newest(self, pipeline: str, most: int) -> list[ServerRun]:
        """As `Runs`; a pipeline of one project is `shop/backend`."""
        project, _, name = pipeline.rpartition("/")
        rows = self._rows(most, project=project, pipeline=name)
        return [ServerRun(self.server, row, fresh=True) for row in rows]

    def find(self, words: str) -> ServerRun:
        """The run that somebody means: `shop/backend#12`, `backend#12`, `12`, `backend` (its newest), or its id.

        Raises:
            PipeError: there is none, or several; it names what there is.
        """
        if _ULID.fullmatch(words):
            return ServerRun(self.server, self.server.get("runs", words))
        named, _, number = words.rpartition("#") if "#" in words else ("", "", words)
        if not number.isdigit():
            named, number = words, ""
        project, _, pipeline = named.rpartition("/")
        rows = self._rows(50, project=project, pipeline=pipeline, number=int(number or 0))
        found = [ServerRun(self.server, row) for row in rows]
        if not found:
            raise PipeError(f"there is {f'no run {words!r}' if words else 'no run'} on {self.place}{self._known()}")
        pipelines = {run.name.partition("#")[0]: run for run in reversed(found)}
        if len(pipelines) > 1 and words:
            several = ", ".join(sorted(run.name for run in pipelines.values()))
            raise PipeError(f"which run {words} do you mean: {several}?")
        return found[0]

    def under_way(self) -> list[ServerRun]:
        """As `Runs`; those that wait for their start too."""
        rows = (*self._rows(50, state="running"), *self._rows(50, state="queued"))
        return [ServerRun(self.server, row) for row in rows]

    def waiting(self) -> list[Mapping[str, Any]]:
        """What the server says of the runs that wait for approval, the oldest first."""
        return list(self._rows(1000, state="waiting"))[::-1]

    def _rows(self, most: int, **named: str | int) -> Iterator[Mapping[str, Any]]:
        before = ""
        while most > 0:
            rows = self.server.get("runs", limit=min(most, 200), before=before, **named)
            yield from rows
            if len(rows) < min(most, 200):
                return
            most, before = most - len(rows), rows[-1]["id"]

    def _known(self) -> str:
        newest = [ServerRun(self.server, row).name for row in self._rows(5)]
        return f"; the newest are {', '.join(newest)}" if newest else ": nothing has run there yet"
