"""Which files the globs of `manifests:` name."""

import errno
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.globs import takes
from pipeline.stage import CauseKind, Files, StageFailed

__all__ = ["choose_manifests"]

_SUFFIXES = (".yaml", ".yml", ".json")
_WILD = frozenset("*?[")
_MAX_BYTES = 16 * 1024 * 1024


def choose_manifests(patterns: Sequence[str], files: Files) -> dict[str, str]:
    """The text of every manifest that the patterns name, by its path, sorted.

    `*`, `?`, `[…]` match within a part of the path, `**` across, `!` in front takes away, the last match
    wins; of what wildcards find only `.yaml`, `.yml` and `.json` are manifests, as for `kubectl -f`.

    Raises:
        StageFailed: (config) nothing matches, a pattern leaves the folder, or a file cannot be read.
    """
    for pattern in patterns:
        _refuse_outside(pattern)
    starts = {_literal(each) for each in patterns if not each.startswith("!")}
    try:
        found = {path for start in starts for path in files.names(start) if takes(patterns, path)}
    except ValueError as error:
        raise StageFailed(str(error), kind=CauseKind.CONFIG) from error
    chosen = sorted(path for path in found if path.endswith(_SUFFIXES) or path in patterns)
    if not chosen:
        hint = _hint(patterns, files, found)
        said = f"no manifest in {files.where} matches {' '.join(patterns) or 'an empty list'}{hint}"
        raise StageFailed(said, kind=CauseKind.CONFIG)
    return {path: _read(files, path) for path in chosen}


def _hint(patterns: Sequence[str], files: Files, found: set[str]) -> str:
    literal = [each.removeprefix("!") for each in patterns if not _WILD & set(each)]
    folders = [each for each in literal if any(name != each for name in files.names(each))]
    if folders:
        return f"; {folders[0]} is a folder, its files are {folders[0].rstrip('/')}/**"
    others = ", ".join(sorted(found)[:5])
    return f"; it matches only files that are no .yaml, .yml or .json: {others}" if found else ""


def _refuse_outside(pattern: str) -> None:
    path = PurePosixPath(pattern.removeprefix("!"))
    if path.is_absolute() or ".." in path.parts:
        raise StageFailed(f"'{pattern}' leaves the stage's folder: name manifests inside of it", kind=CauseKind.CONFIG)


def _literal(pattern: str) -> str:
    """The leading parts of a pattern that have no wildcard: where to look, instead of everywhere."""
    parts: list[str] = []
    for part in PurePosixPath(pattern).parts:
        if _WILD & set(part):
            break
        parts.append(part)
    return "/".join(parts)


def _read(files: Files, name: str) -> str:
    try:
        content = files.read(name)
        if len(content) > _MAX_BYTES:
            raise StageFailed(f"{name} is larger than 16 MiB", kind=CauseKind.CONFIG)
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise StageFailed(f"{name} is no UTF-8 text (byte {error.start})", kind=CauseKind.CONFIG) from error
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise StageFailed(f"{name} is a link that leaves the workspace", kind=CauseKind.CONFIG) from error
        raise StageFailed(f"{name} cannot be read: {error.strerror}", kind=CauseKind.CONFIG) from error
