"""Files and folders as one archive that carries its own digest. Links are kept as links, and never followed."""

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["DamagedError", "Tree", "look", "pack", "packed_signature", "unpack"]

BLOCK = 1 << 20
_DIGEST = hashlib.sha256().digest_size
_TRAILER = 2 * _DIGEST
"""Behind the tar archive stand the signature of what is in it, and the digest of all before."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWNERS = 0o777
"""Permissions are kept; what makes a program run as another user is not."""

Step = Callable[[], None]
"""Called again and again while it works; what it raises ends the work."""


class _Stream(tarfile.TarFile):
    members: list[tarfile.TarInfo]
    """Everything that it has seen, which nobody here asks for."""


class DamagedError(Exception):
    """An archive is not what was written."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is in files and folders, without their contents."""

    signature: bytes
    """Changes when a name, a size, a time in whole seconds, a permission or the end of a link does."""
    size: int
    """Bytes of the files; of several links to one file each counts."""


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    """In the archive: the number of the path that it belongs to, and what is below it."""
    folder: int
    """Descriptor of the folder that it is in."""
    name: str
    about: os.stat_result

    def described(self) -> tarfile.TarInfo | None:
        """How it stands in an archive; None of what is neither file, folder nor link."""
        info = tarfile.TarInfo(self.path)
        info.mode, info.mtime = self.about.st_mode & _OWNERS, int(self.about.st_mtime)
        if stat.S_ISREG(self.about.st_mode):
            info.size = self.about.st_size
        elif stat.S_ISDIR(self.about.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(self.about.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(self.name, dir_fd=self.folder)
        else:
            return None
        return info


class _Signature:
    def __init__(self) -> None:
        self._total = hashlib.sha256()
        self._size = 0

    def add(self, info: tarfile.TarInfo) -> None:
        # a folder's own time and permissions are changed by the work in it
        said = (info.path, info.type, info.size, info.mtime, info.mode, info.linkname)
        line = repr(said[:2] if info.isdir() else said)
        self._total.update(line.encode("utf-8", "surrogateescape") + b"\n")
        self._size += info.size

    def tree(self) -> Tree:
        return Tree(self._total.digest(), self._size)


def look(paths: Sequence[Path], step: Step) -> Tree:
    """What is there of these paths, as `pack` would take it.

    Raises:
        OSError: it cannot be read.
    """
    total = _Signature()
    for entry in _entries(paths):
        step()
        if info := entry.described():
            total.add(info)
    return total.tree()


def pack(file: IO[bytes], paths: Sequence[Path], step: Step) -> Tree:
    """Write an archive of what is there of these paths. Whether something changed meanwhile tells another look.

    Raises:
        OSError: it cannot be read or written.
    """
    out, total = _Digesting(file), _Signature()
    linked: dict[tuple[int, int], str] = {}
    with _Stream.open(fileobj=out, mode="w|", bufsize=BLOCK, format=tarfile.PAX_FORMAT) as tar:
        for entry in _entries(paths):
            step()
            if info := entry.described():
                total.add(info)
                _add(tar, entry, info, linked)
                tar.members.clear()
    out.write(total.tree().signature)
    file.write(out.digest())
    return total.tree()


def _add(tar: tarfile.TarFile, entry: _Entry, info: tarfile.TarInfo, linked: dict[tuple[int, int], str]) -> None:
    if not info.isreg():
        tar.addfile(info)
        return
    if entry.about.st_nlink > 1:
        first = linked.setdefault((entry.about.st_dev, entry.about.st_ino), info.path)
        if first != info.path:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
            tar.addfile(info)
            return
    with os.fdopen(os.open(entry.name, _FILE, dir_fd=entry.folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{entry.path} was replaced while it was read")
        tar.addfile(info, file)


def _entries(paths: Sequence[Path]) -> Iterator[_Entry]:
    """Everything in these paths in the order of their names, each folder before what is in it."""
    for number, path in enumerate(paths):
        outer = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path.parent.is_dir() else -1
        if outer < 0:
            continue
        try:
            about = _about(path.name, outer)
            if about is None or stat.S_ISLNK(about.st_mode):
                continue
            yield _Entry(str(number), outer, path.name, about)
            if stat.S_ISDIR(about.st_mode):
                yield from _below(path, number)
        finally:
            os.close(outer)


def _below(top: Path, number: int) -> Iterator[_Entry]:
    for place, folders, files, descriptor in os.fwalk(top, onerror=_raise):
        folders.sort()
        within = str(number) if place == str(top) else f"{number}/{os.path.relpath(place, top)}"
        for name in (*folders, *sorted(files)):
            if about := _about(name, descriptor):
                yield _Entry(f"{within}/{name}", descriptor, name, about)


def _about(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _raise(error: OSError) -> None:
    raise error


# -- out again -------------------------------------------------------------------------------------


def packed_signature(file: IO[bytes]) -> bytes:
    """The signature of what is in an archive, as it says itself; empty if it is too short for one."""
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), _DIGEST, size - _TRAILER) if size > _TRAILER else b""


def unpack(file: IO[bytes], place: Path, wanted: Sequence[int], step: Step) -> int:
    """Lay what belongs to the wanted paths into an empty folder, each under its number; the bytes that it has.

    Raises:
        DamagedError: the archive is not what was written; what is in the folder is worth nothing.
        OSError: it cannot be read or written.
    """
    source = _Digested(file)
    late: list[tuple[Path, tarfile.TarInfo]] = []
    links: set[str] = set()
    size = 0
    numbers = {str(number) for number in wanted}
    try:
        with _Stream.open(fileobj=source, mode="r|", bufsize=BLOCK) as tar:
            while info := tar.next():
                tar.members.clear()
                step()
                path = _checked(info, links)
                if path.parts[0] in numbers:
                    _lay(tar, info, place, late)
                    size += info.size
    except (tarfile.TarError, EOFError, ValueError, LookupError) as error:
        raise DamagedError(str(error)) from error
    source.prove()
    for folder, info in reversed(late):
        _finish(folder, info)
    return size


def _checked(info: tarfile.TarInfo, links: set[str]) -> PurePosixPath:
    """The path of an entry, which stays in the place and goes through no link."""
    path = PurePosixPath(info.name)
    for each in (path, PurePosixPath(info.linkname)) if info.islnk() else (path,):
        if each.is_absolute() or not each.parts or ".." in each.parts or not links.isdisjoint(map(str, each.parents)):
            raise DamagedError(f"it names {info.name!r}")
    if info.issym():
        links.add(str(path))
    return path


def _lay(tar: tarfile.TarFile, info: tarfile.TarInfo, place: Path, late: list[tuple[Path, tarfile.TarInfo]]) -> None:
    path = place / info.name
    if info.isdir():
        path.mkdir(mode=0o700)
        late.append((path, info))
    elif info.issym():
        path.symlink_to(info.linkname)
    elif info.islnk():
        os.link(place / info.linkname, path, follow_symlinks=False)
    elif info.isreg() and (content := tar.extractfile(info)):
        with path.open("xb") as file:
            while block := content.read(BLOCK):
                file.write(block)
        _finish(path, info)
    else:
        raise DamagedError(f"it holds {info.name!r}, which is no file")


def _finish(path: Path, info: tarfile.TarInfo) -> None:
    # what cannot be written by its owner could not be moved to its place
    path.chmod(info.mode | (0o700 if "/" not in info.name and info.isdir() else 0))
    os.utime(path, (info.mtime, info.mtime))


class _Digesting(io.BufferedIOBase):
    """Writes on, and counts what it wrote into a digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._total = hashlib.sha256()

    def write(self, data: "Buffer", /) -> int:
        self._total.update(data)
        return self._file.write(data)

    def digest(self) -> bytes:
        return self._total.digest()


class _Digested(io.BufferedIOBase):
    """Reads an archive up to its digest, and compares that with what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size - _DIGEST
        self._total = hashlib.sha256()

    def read(self, size: int | None = BLOCK, /) -> bytes:
        data = self._file.read(min(size or BLOCK, max(0, self._left)))
        self._left -= len(data)
        self._total.update(data)
        return data

    def prove(self) -> None:
        while self.read(BLOCK):
            pass
        if self._file.read() != self._total.digest():
            raise DamagedError("its content does not have its digest")
