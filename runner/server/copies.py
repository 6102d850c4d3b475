"""Copies of runs, as their `--mirror` reports them: whatever a run is, its server reads nothing else of it."""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from runner.server.database import mirrors

__all__ = ["Misplaced", "RunCopies", "Unfit", "grant", "granted"]

LARGEST_FILE = 1 << 30
LARGEST_RUN = 4 << 30
_REPORTED = re.compile(r"plan\.json|events\.[1-9][0-9]{0,8}\.jsonl|logs/[^/\0]{1,250}\.(?:log|idx)")


class Unfit(Exception):
    """A file that no copy has, or too much of one."""


class Misplaced(Exception):
    """Bytes that do not follow on what is there."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(f"there are {offset} bytes")


@dataclass
class RunCopies:
    """Appends what is reported."""

    _sizes: dict[Path, int] = field(default_factory=dict)

    def append(self, copy: Path, name: str, offset: int, piece: bytes) -> int:
        """Append to a file of a copy, and return how many bytes it has then. Blocks.

        What was taken already is not taken twice: whoever does not know says the same again, or sends nothing.

        Raises:
            Misplaced: it does not begin where the file ends.
            Unfit: there is no such file in a run, or the run grows beyond all measure.
        """
        if not _REPORTED.fullmatch(name):
            raise Unfit(f"'{name}' is no file of a run")
        if offset + len(piece) > LARGEST_FILE or self._size(copy) + len(piece) > LARGEST_RUN:
            raise Unfit(f"a file has no more than {LARGEST_FILE >> 20} MiB, and a run {LARGEST_RUN >> 20}")
        path = copy / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unfit(f"'{name}': {error.strerror}") from error
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # an engine and the one that took its run over may report at once
            there = os.fstat(descriptor).st_size
            if there != offset:
                raise Misplaced(there)
            file.seek(offset)
            while piece:
                written = file.write(piece)
                offset, piece = offset + written, piece[written:]
                self._sizes[copy] += written
        return offset

    def _size(self, copy: Path) -> int:
        if copy not in self._sizes:
            self._sizes[copy] = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
        return self._sizes[copy]


def grant(connection: Connection, run: str) -> str:
    """A new token by which one run reports itself; only its digest is kept, and the former one is worth nothing."""
    token = f"pipe_run_{secrets.token_urlsafe(32)}"
    connection.execute(delete(mirrors).where(mirrors.c.run == run))
    connection.execute(insert(mirrors).values(run=run, digest=hashlib.sha256(token.encode()).hexdigest()))
    return token


def granted(connection: Connection, run: str, token: str) -> bool:
    """Whether it is the token of that run."""
    kept = connection.execute(select(mirrors.c.digest).where(mirrors.c.run == run)).scalar_one_or_none()
    digest = hashlib.sha256(token.encode()).hexdigest()
    return kept is not None and hmac.compare_digest(kept, digest)
