"""`--mirror URL`: the files of a run as a server keeps them too, reported piece by piece while they grow."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.plans import read_plan

if TYPE_CHECKING:
    import http.client

__all__ = ["TOKEN", "Mirror", "mirrored"]

TOKEN = "PIPE_SERVER_TOKEN"  # noqa: S105 - its name
"""The variable that proves to a server which run this is; no process of a stage sees it."""

PIECE, SMALLEST = 256 << 10, 4 << 10
"""Bytes of one request: fewer after each that broke, more after each that came through."""
LOOK_EVERY = 0.25
SHARE, RAREST = 20, 2.0
"""A look at many files is followed by so many times its own length of rest, in seconds at most so long."""
LONGEST_PAUSE = 5.0
ANSWER_WITHIN = 10.0
LAST_WORDS = 20.0
"""Seconds that what is left may take when the run has ended."""


class _Refused(Exception):
    """The server does not want this file, or nothing of this run at all."""


class _Away(Exception):
    """No answer; it may have taken what was sent, or not."""


@dataclass
class Mirror:
    """Reports one run in a thread of its own. It reads the files, so the engine neither waits for it nor feeds it."""

    url: str
    token: str
    run: str
    folder: RunFolder
    _sent: dict[str, int] = field(default_factory=dict)
    _piece: int = PIECE
    _complete: bool = False
    _unwanted: set[str] = field(default_factory=set)
    _connection: "http.client.HTTPConnection | None" = None

    def __post_init__(self) -> None:
        """Check the address; raises PipeError when it is none."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PipeError(f"--mirror {self.url}: give the URL of a server")
        self._parts = parts
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Report what is left, bounded in time, and say so if that was not enough."""
        self._ending.set()
        self._thread.join(LAST_WORDS + 1)
        if not self._complete:
            sys.stderr.write(f"pipe: not all of the run could be reported to {self.url}\n")

    def _work(self) -> None:
        try:
            self._until_ended()
        finally:
            self._hang_up()

    def _until_ended(self) -> None:
        pause, deadline = LOOK_EVERY, float("inf")
        while time.monotonic() < deadline:
            last, began = self._ending.is_set(), time.monotonic()
            deadline = min(deadline, began + LAST_WORDS) if last else deadline
            try:
                self._report()
                if last:
                    self._complete = True
                    return
                pause = min(RAREST, max(LOOK_EVERY, SHARE * (time.monotonic() - began)))
            except _Away:
                self._piece = max(SMALLEST, self._piece // 2)
                pause = min(LOOK_EVERY if last else LONGEST_PAUSE, pause * 2)
            except _Refused as refusal:
                sys.stderr.write(f"pipe: {self.url} does not take the run: {refusal}\n")
                return
            time.sleep(pause) if last else self._ending.wait(pause)

    def _report(self) -> None:
        """Send what there is at this moment.

        The journal goes last, as long as it was before the logs were looked at: who reads the copy may take it that
        the log of an attempt is complete where the journal tells of its end.
        """
        journal = _reported(self.folder.path, "", r"events\..*\.jsonl")
        rest = (
            *_reported(self.folder.path, "", r"plan\.json"),
            *_reported(self.folder.path / "logs", "logs/", r".*\.(log|idx)"),
        )
        for name, path, size in (*rest, *journal):
            while name not in self._unwanted and self._sent.get(name, -1) < size:
                self._send(name, path, size)

    def _send(self, name: str, path: Path, size: int) -> None:
        """Send one piece of a file; of one that is new to us nothing, for the answer says how much there is already."""
        offset, piece = self._sent.get(name, 0), b""
        if name in self._sent:
            try:
                piece = _read(path, offset, min(self._piece, size - offset))
            except OSError:
                self._unwanted.add(name)
                return
        status, answer = self._ask(f"/api/v1/runs/{self.run}/files/{quote(name)}?offset={offset}", piece)
        if status in (200, 409) and "offset" in answer:  # of an answer that broke there may be the beginning alone
            self._sent[name] = answer["offset"]
            self._piece = min(PIECE, self._piece * 2)
        elif status in (400, 413):
            sys.stderr.write(f"pipe: {self.url} does not take {name}: {answer.get('detail', status)}\n")
            self._unwanted.add(name)
        elif status in (401, 404):
            raise _Refused(answer.get("detail", status))
        else:
            raise _Away

    def _ask(self, path: str, body: bytes) -> tuple[int, dict[str, int]]:
        import http.client  # TLS and all: most runs have no server

        try:
            if self._connection is None:
                kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
                self._connection = kind(self._parts.hostname or "", self._parts.port, timeout=ANSWER_WITHIN)
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream"}
            self._connection.request("PUT", self._parts.path.rstrip("/") + path, body, headers)
            with closing(self._connection.getresponse()) as answer:
                found = json.loads(answer.read() or b"{}")
            return answer.status, found if isinstance(found, dict) else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._hang_up()
            raise _Away from error

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size) or b""


def _reported(folder: Path, prefix: str, wanted: str) -> list[tuple[str, Path, int]]:
    """Files that others read of a run, by name and with their sizes; they are written once or only grow."""
    try:
        with os.scandir(folder) as entries:
            named = [each for each in entries if re.fullmatch(wanted, each.name)]
            files = [each for each in named if each.is_file(follow_symlinks=False)]
            return sorted((prefix + each.name, folder / each.name, each.stat().st_size) for each in files)
    except OSError:
        return []


@contextmanager
def mirrored(url: str, token: str, folders: Iterable[RunFolder]) -> Iterator[None]:
    """Report these runs while something is done with them, and what is left at its end; without a URL nothing.

    Raises:
        PipeError: the URL is none.
    """
    mirrors = [Mirror(url, token, read_plan(folder).run.id, folder) for folder in folders] if url else []
    for mirror in mirrors:
        mirror.start()
    try:
        yield
    finally:
        for mirror in mirrors:
            mirror.stop()
