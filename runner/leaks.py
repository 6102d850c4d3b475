"""Whether a secret stands in something that a run wrote, or among arguments: a second look, with the masker's own eyes.

What the plan says in clear was there before any secret: a password that is also a service's name is no leak by that.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

from runner.folder import RunFolder
from runner.mask import Masker

__all__ = ["Look", "shown_by_arguments"]

BLOCK = 1 << 20
_APART = ("work", "copies")
_NAMES_ALONE = "artifacts/"
"""What a stage wrote into them is its own."""
_PUBLIC = ("plan.json", "ballast", "owner.")
"""Files with these beginnings hold what is known anyway."""
PROC = Path("/proc")
MOST_PROCESSES = 2000


class Look:
    """One look through the folder of a run. It blocks, for no more than `within` seconds; `stop` ends it."""

    def __init__(self, folder: RunFolder, masker: Masker, within: float) -> None:
        self._folder = folder.path
        self._masker = masker
        self._deadline = monotonic() + within
        self.unread = 0
        """Files for which there was no time, or that cannot be read."""

    def __call__(self) -> list[str]:
        """The files in which a secret stands, by their names in the folder; a name that holds one is not told."""
        return list(self._found())

    def stop(self) -> None:
        """Look no further."""
        self._deadline = 0.0

    def _found(self) -> Iterator[str]:
        for name, path in _files(self._folder, self._closed):
            if monotonic() > self._deadline:
                self.unread += 1
            elif self._masker.holds(os.fsencode(name)):
                yield f"the name of a file in {name.partition('/')[0] if '/' in name else 'its folder'}"
            elif not name.startswith(_NAMES_ALONE) and self._in_file(path):
                yield name

    def _closed(self, _: OSError) -> None:
        self.unread += 1

    def _in_file(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.unread += error.errno != errno.ELOOP  # a link leads to what is no file of the run
            return False
        with os.fdopen(descriptor, "rb", buffering=0):
            try:
                return stat.S_ISREG(os.fstat(descriptor).st_mode) and self._masker.found_in(self._blocks(descriptor))
            except OSError:
                self.unread += 1
                return False

    def _blocks(self, descriptor: int) -> Iterator[bytes]:
        while block := os.read(descriptor, BLOCK):
            yield block
            if monotonic() > self._deadline:
                self.unread += 1
                return


def _files(folder: Path, closed: Callable[[OSError], None]) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder, onerror=closed):
        top = Path(place) == folder
        folders[:] = [name for name in folders if not (top and name in _APART)]
        for name in (name for name in names if not (top and name.startswith(_PUBLIC))):
            path = Path(place) / name
            yield path.relative_to(folder).as_posix(), path


def shown_by_arguments(masker: Masker, mark: str) -> set[tuple[str, str]]:
    """Leaf and program of each process below this one that shows a secret to whoever lists processes. Blocks.

    `mark` is the variable that says which leaf a process works for.
    """
    found = set()
    for pid in _below(os.getpid()):
        arguments = _read(PROC / str(pid) / "cmdline")
        if masker.holds(arguments):
            program = os.fsdecode(arguments.partition(b"\0")[0].rpartition(b"/")[2])
            found.add((_leaf(pid, mark), "a program" if masker.holds(os.fsencode(program)) else program))
    return found


def _below(pid: int) -> Iterator[int]:
    """The processes that one started, and those that they started; of very many the first."""
    parents = deque([pid])
    for _ in range(MOST_PROCESSES):
        if not parents:
            return
        parent, tasks = parents.popleft(), list[Path]()
        with suppress(OSError):
            tasks = list((PROC / str(parent) / "task").iterdir())
        children = [int(child) for task in tasks for child in _read(task / "children").split()]
        yield from children
        parents.extend(children)


def _leaf(pid: int, mark: str) -> str:
    beginning = os.fsencode(f"{mark}=")
    for each in _read(PROC / str(pid) / "environ").split(b"\0"):
        if each.startswith(beginning):
            return os.fsdecode(each.removeprefix(beginning)).partition("/")[2].rpartition("/")[0]
    return ""


def _read(path: Path) -> bytes:
    """A file of /proc; empty if the process has just ended, or is somebody else's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
