"""Files that a stage leaves in its workspace, reached whatever somebody makes of it meanwhile: no link is followed."""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.globs import is_plain, takes
from pipeline.stage import CauseKind, StageFailed
from runner.mask import Masker

__all__ = ["Copies", "Kept", "Opened", "Seen", "Take", "Walk"]

BLOCK = 1 << 20
DEEPEST = 128
"""Folders within each other; each holds a descriptor while it is walked through."""
MOST_FILES = 10_000
MOST_BYTES = 4 << 30
STORE = ".pipe"
"""Runs that are kept in the workspace itself are nothing that a stage made."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Opened:
    """A plain file that is open; `path` is relative to the stage's folder."""

    path: str
    about: os.stat_result
    _descriptor: int
    _stopped: Callable[[], bool]

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes; none at its end.

        Raises:
            TimeoutError: the walk was told to stop.
        """
        if self._stopped():
            raise TimeoutError("no time was left to collect files")
        return os.read(self._descriptor, size)


Take = Callable[[Opened], None]


@dataclass
class Seen:
    """What became of the globs."""

    paths: list[str] = field(default_factory=list)
    special: int = 0
    closed: list[str] = field(default_factory=list)
    """Files that we may not read."""
    """Links and other things that are no plain files; they were left where they are."""
    old: int = 0
    """Files that were there before the attempt began."""
    unmatched: tuple[str, ...] = ()


@dataclass
class Walk:
    """Opens the plain files of a folder that globs take, one after the other. It blocks, and `stop` makes it return."""

    root: Path
    """The workspace: a path of ours."""
    below: PurePosixPath
    """The stage's folder in it: a path of somebody else's."""
    patterns: Sequence[str]
    take: Take
    since: float = 0.0
    """Leave out what has not been written after this moment, in seconds since the epoch."""
    within: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Entered around the walk, in the thread that walks."""
    _stopped: bool = False

    def __call__(self) -> Seen:
        """Walk once.

        Raises:
            StageFailed: (config) there is too much, or `take` says so.
            OSError: it cannot be read.
        """
        with self.within:
            return self._walk()

    def _walk(self) -> Seen:
        seen = Seen()
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in self.below.parts:
                outer, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
                os.close(outer)
            for path, name, parent in self._entries(folder, "", 0):
                if takes(self.patterns, path):
                    self._open(path, name, parent, seen)
        except (FileNotFoundError, NotADirectoryError):
            pass  # the folder is gone, or a link by now
        finally:
            os.close(folder)
        wanted = [pattern for pattern in self.patterns if not pattern.startswith("!")]
        seen.unmatched = tuple(each for each in wanted if not any(takes((each,), path) for path in seen.paths))
        return seen

    def stop(self) -> None:
        """Walk no further."""
        self._stopped = True

    def _entries(self, folder: int, path: str, depth: int) -> Iterator[tuple[str, str, int]]:
        """Everything that is no folder, with the descriptor of the folder that it is in."""
        if depth > DEEPEST:
            raise StageFailed(f"{path} lies in more than {DEEPEST} folders", kind=CauseKind.CONFIG)
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_folder in names:
            if self._stopped:
                raise TimeoutError("no time was left to collect files")
            here = f"{path}{name}"
            if not is_folder:
                yield here, name, folder
            elif here != STORE and self._leads_on(f"{here}/"):
                with suppress(FileNotFoundError, NotADirectoryError):  # it was replaced meanwhile
                    inner = os.open(name, _FOLDER, dir_fd=folder)
                    try:
                        yield from self._entries(inner, f"{here}/", depth + 1)
                    finally:
                        os.close(inner)

    def _leads_on(self, folder: str) -> bool:
        """Whether a glob can take something below a folder, as far as its beginning without signs tells."""
        beginnings = (_beginning(pattern) for pattern in self.patterns if not pattern.startswith("!"))
        return any(folder.startswith(each) or each.startswith(folder) for each in beginnings)

    def _open(self, path: str, name: str, parent: int, seen: Seen) -> None:
        try:
            file = os.open(name, _FILE, dir_fd=parent)
        except PermissionError:
            seen.closed.append(path)
            return
        except OSError:  # a link, a socket, or gone
            seen.special += 1
            return
        try:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode):
                seen.special += 1
            elif about.st_mtime < self.since:
                seen.old += 1
            else:
                seen.paths.append(path)
                self.take(Opened(path, about, file, lambda: self._stopped))
        finally:
            os.close(file)


def _beginning(pattern: str) -> str:
    """The folders of a glob that stand before its first sign."""
    parts = pattern.removeprefix("./").split("/")[:-1]
    plain = next((index for index, part in enumerate(parts) if not is_plain(part)), len(parts))
    return "".join(f"{part}/" for part in parts[:plain])


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was copied; `path` is relative to the stage's folder, `size` and `sha256` are those of the copy."""

    path: str
    size: int
    sha256: str


@dataclass
class Copies:
    """Copies of files in a folder that is made for them; bounded in number and in size."""

    target: Path
    patterns: Sequence[str]
    masker: Masker
    files: list[Kept] = field(default_factory=list)
    _size: int = 0

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All of them, or none if something goes wrong."""
        try:
            yield
        except BaseException:
            shutil.rmtree(self.target, ignore_errors=True)
            self.files = []
            raise

    def take(self, file: Opened) -> None:
        """Copy one file.

        Raises:
            StageFailed: (config) it is too much, or the name of a file holds a secret.
        """
        if self.masker.holds(os.fsencode(file.path)):
            raise StageFailed("artifacts: the name of a file holds a secret", kind=CauseKind.CONFIG)
        if len(self.files) >= MOST_FILES:
            raise self._too_much(f"{MOST_FILES} files")
        copy = self.target / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        size, digest = 0, hashlib.sha256()
        with copy.open("xb") as out:
            while block := file.read():
                size += len(block)
                if self._size + size > MOST_BYTES:
                    raise self._too_much(f"{MOST_BYTES >> 30} GiB")
                digest.update(block)
                out.write(block)
        copy.chmod(0o755 if file.about.st_mode & stat.S_IXUSR else 0o644)
        self._size += size
        self.files.append(Kept(file.path, size, digest.hexdigest()))

    def _too_much(self, most: str) -> StageFailed:
        message = f"artifacts: {', '.join(self.patterns)} would be more than {most}: take fewer, or pack them into one"
        return StageFailed(message, kind=CauseKind.CONFIG)
