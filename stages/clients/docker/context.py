"""The context of a build: what goes to the engine, as it is at one moment."""

import contextlib
import io
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from pipeline.stage import StageFailed

__all__ = ["label_instruction", "snapshot"]

SPOOL_LIMIT = 16 << 20
DOCKERFILE = ".pipe.dockerfile"
IGNORE = ".dockerignore"


@contextlib.contextmanager
def snapshot(context: Path, dockerfile: Path, instructions: str = "") -> Iterator[tuple[IO[bytes], str]]:
    """The context as a tar file, as it is now, and the Dockerfile's name in it; in memory while it is small.

    Links stay links, so nothing outside comes in; owners are root, as with docker's own client.
    The Dockerfile goes under a name of its own, with `instructions` behind it, and no COPY sees that file.

    Raises:
        StageFailed: a file cannot be read.
    """
    with tempfile.SpooledTemporaryFile(SPOOL_LIMIT) as file:
        with tarfile.open(mode="w", fileobj=file, format=tarfile.GNU_FORMAT) as tar:
            try:
                ignored = _read(context / IGNORE)
                for path in _members(context, ignored):
                    _add(tar, context / path, path)
                hidden = f"\n{DOCKERFILE}\n" if ignored else f"{IGNORE}\n{DOCKERFILE}\n"
                _add_bytes(tar, IGNORE, ignored + hidden.encode())
                _add_bytes(tar, DOCKERFILE, dockerfile.read_bytes() + f"\n{instructions}\n".encode())
            except OSError as error:
                reason = error.strerror or str(error)
                raise StageFailed(f"cannot read {error.filename or context} in the context: {reason}") from error
        file.seek(0)
        yield file, DOCKERFILE


def label_instruction(dockerfile: bytes, labels: Mapping[str, str]) -> str:
    """One LABEL for all: given to the engine apart, each would be a step with a container of its own.

    Empty if that cannot be: there are none, or the Dockerfile has another escape character.
    """
    if not labels or re.search(rb"^#\s*escape\s*=\s*[^\\\s]", dockerfile, re.MULTILINE | re.IGNORECASE):
        return ""
    return "LABEL " + " ".join(f"{_quoted(name)}={_quoted(value)}" for name, value in labels.items())


def _quoted(text: str) -> str:
    escaped = re.sub(r'([\\"$])', r"\\\1", " ".join(text.splitlines()))
    return f'"{escaped}"'


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _members(context: Path, ignored: bytes) -> Iterable[str]:
    from docker.utils.build import exclude_paths

    lines = ignored.decode(errors="replace").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return sorted(exclude_paths(str(context), patterns, DOCKERFILE) - {IGNORE, DOCKERFILE})


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


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
