"""The context of a build: what goes to the engine, as it is at one moment."""

import contextlib
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pipeline.stage import StageFailed

__all__ = ["snapshot"]

SPOOL_LIMIT = 16 << 20
DOCKERFILE = ".pipe.dockerfile"


@contextlib.contextmanager
def snapshot(context: Path, dockerfile: Path) -> Iterator[tuple[IO[bytes], str]]:
    """The context as a tar file, as it is now, and the Dockerfile's name in it; in memory while it is small.

    Links stay links, so nothing outside comes in; owners are root, as with docker's own client.

    Raises:
        StageFailed: a file cannot be read.
    """
    inside = dockerfile.is_relative_to(context)
    name = str(dockerfile.relative_to(context)) if inside else DOCKERFILE
    with tempfile.SpooledTemporaryFile(SPOOL_LIMIT) as file:
        with tarfile.open(mode="w", fileobj=file, format=tarfile.GNU_FORMAT) as tar:
            try:
                for path in _members(context, name):
                    _add(tar, context / path, path)
                if not inside:
                    _add(tar, dockerfile, name)
            except OSError as error:
                reason = error.strerror or str(error)
                raise StageFailed(f"cannot read {error.filename or context} in the context: {reason}") from error
        file.seek(0)
        yield file, name


def _members(context: Path, dockerfile: str) -> Iterable[str]:
    from docker.utils.build import exclude_paths

    ignore = context / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return sorted(exclude_paths(str(context), patterns, dockerfile))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        return
    info = tar.gettarinfo(path, name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = int(info.mtime)
    if not info.isreg():
        tar.addfile(info)
        return
    with path.open("rb") as source:
        tar.addfile(info, source)
