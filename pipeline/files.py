"""Files of a workspace by their relative names: in a folder of this machine, below a folder, or laid together."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.stage import Files

__all__ = ["Below", "Folder", "Laid", "has"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is there. `root` is the workspace around it, which no link may leave."""

    path: Path
    root: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    def names(self, below: str = "") -> Iterator[str]:
        """Every file in it or in a folder of it."""
        if (self.path / below).is_file():
            yield below
        for folder, _, names in os.walk(self.path / below):
            for name in names:
                yield (Path(folder) / name).relative_to(self.path).as_posix()

    def read(self, name: str) -> bytes:
        """A file of it."""
        path = self.path / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise _gone(errno.EXDEV, name)
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Below:
    """What lies in one folder of other files."""

    files: Files
    folder: str

    @property
    def where(self) -> str:
        """The folder, and in what."""
        return f"{self.folder} of {self.files.where}"

    def names(self, below: str = "") -> Iterator[str]:
        """Every file in it or in a folder of it."""
        for name in self.files.names(_joined(self.folder, below)):
            yield str(PurePosixPath(name).relative_to(self.folder))

    def read(self, name: str) -> bytes:
        """A file of it."""
        return self.files.read(_joined(self.folder, name))


@dataclass(frozen=True, slots=True)
class Laid:
    """Several files, each at a folder of its own; of two with one name the later one holds."""

    parts: Sequence[tuple[str, Files]]

    @property
    def where(self) -> str:
        """What they are."""
        return " and ".join(files.where for _, files in self.parts)

    def names(self, below: str = "") -> Iterable[str]:
        """Every file of all of them."""
        found = (name for folder, files in self.parts for name in _at(folder, files, _plain(below)))
        return dict.fromkeys(found)

    def read(self, name: str) -> bytes:
        """A file of the last that has it."""
        for folder, files in reversed(self.parts):
            inside = _inside(name, folder)
            if inside is not None:
                try:
                    return files.read(inside)
                except FileNotFoundError:
                    continue
        raise _gone(errno.ENOENT, name)


def has(files: Files, name: str) -> bool:
    """Whether there is a file of that name."""
    try:
        files.read(name)
    except OSError:
        return False
    return True


def _at(folder: str, files: Files, below: str) -> Iterator[str]:
    """The names of files that lie at `folder`, those below `below` alone."""
    inside = _inside(below, folder)
    if inside is None and below and not f"{_plain(folder)}/".startswith(f"{below}/"):
        return
    for name in files.names(inside or ""):
        yield _joined(folder, name)


def _inside(name: str, folder: str) -> str | None:
    """A name as it is called within a folder; None if it does not lie there."""
    folder = _plain(folder)
    if not folder or name == folder:
        return name if not folder else ""
    return name.removeprefix(f"{folder}/") if name.startswith(f"{folder}/") else None


def _joined(folder: str, name: str) -> str:
    return _plain(os.path.normpath(f"{folder}/{name}"))


def _plain(folder: str) -> str:
    path = os.path.normpath(folder) if folder else ""
    return "" if path == "." else path


def _gone(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)
