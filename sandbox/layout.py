"""Where a sandbox keeps its things, and the names it goes by outside its namespaces."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from ipaddress import IPv4Network
from pathlib import Path
from time import monotonic, sleep

from sandbox.progress import activity

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path.home() / ".cache" / "pipe-ci"
ADDRESSES = IPv4Network("10.200.0.0/16")


class SandboxError(Exception):
    """The sandbox cannot go on; the message is for the user."""


@dataclass(frozen=True)
class Layout:
    """The folders and names of the sandbox that belongs to one checkout."""

    checkout: Path

    @property
    def identity(self) -> str:
        """Eight hex digits that differ from checkout to checkout."""
        return hashlib.sha256(os.fsencode(self.checkout)).hexdigest()[:8]

    @property
    def state(self) -> Path:
        """Everything of this sandbox that is a file."""
        return self.checkout / ".sandbox"

    @property
    def sockets(self) -> Path:
        """A folder with a short path: a Unix socket's may not exceed 107 bytes."""
        return Path("/tmp") / self.mark  # noqa: S108

    @property
    def mark(self) -> str:
        """The name of the link, the cgroups, the socket folder and the comment of firewall rules."""
        return f"pipe-{self.identity}"

    @property
    def env_file(self) -> Path:
        """What `env` prints."""
        return self.state / "env"

    @property
    def records(self) -> tuple[Path, Path]:
        """Where the first process is written down; twice, because people delete `.sandbox` by `git clean`."""
        return self.state / "world.json", self.sockets / "world.json"

    @property
    def parts_file(self) -> Path:
        """What the first process knows about its parts."""
        return self.state / "parts.json"

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.state / "logs" / f"{part}.log"


HERE = Layout(CHECKOUT)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by `text` so that a reader sees the old or the new content, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(name).chmod(mode)
    Path(name).replace(path)


@contextmanager
def locked(path: Path, limit: float = 1800) -> Iterator[None]:
    """Hold the lock file `path`; raises SandboxError if another process keeps it longer than `limit` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _try_lock(file.fileno()):
            with activity(f"waiting for another sandbox command to release {path.name}"):
                _await_lock(file.fileno(), path, limit)
        yield


def _await_lock(descriptor: int, path: Path, limit: float) -> None:
    deadline = monotonic() + limit
    while not _try_lock(descriptor):
        if monotonic() > deadline:
            raise SandboxError(f"another sandbox command has held {path} for {limit:.0f} s; end it and try again")
        sleep(0.1)


def _try_lock(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True
