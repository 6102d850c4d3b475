"""What a stage installs: the chart wherever it is, the files of values, and a name for all of it together."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from pipeline.errors import nearest
from pipeline.stage import CauseKind, Files, StageFailed

__all__ = ["fingerprint", "is_local", "laid", "missing"]

_METADATA = "Chart.yaml"
_ARCHIVES = (".tgz", ".tar.gz")


def is_local(chart: str, files: Files) -> bool:
    """Whether a chart is a folder or an archive of the workspace, as for Helm itself; blocks."""
    return _seems_local(chart) or (not _leads_out(chart) and "://" not in chart and bool(_names(chart, files)))


def missing(chart: str, values: Sequence[str], files: Files) -> list[str]:
    """What of a local chart and of the values is not there, each in a sentence; blocks."""
    if outside := [name for name in (chart, *values) if _leads_out(name)]:
        return [f"{name} leads out of the stage's folder: set `dir:` to one that has all of it" for name in outside]
    found = []
    if _seems_local(chart) and not _names(chart, files):
        found.append(f"there is no chart in {chart} of {files.where}")
    for name in map(_plain, values):
        try:
            files.read(name)
        except OSError as error:
            beside = [each for each in files.names(name.rpartition("/")[0]) if each.endswith((".yaml", ".yml"))]
            near = nearest(name, beside)
            why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
            found.append(f"values: {name} of {files.where}: {why}" + (f"; {near}" if near else ""))
    return found


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _seems_local(chart: str) -> bool:
    return chart == "." or chart.startswith("./")


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/") or "."


def _names(chart: str, files: Files) -> list[str]:
    """The files of a local chart; none if it is none. Hidden ones are none of it: `.git`, and the store of runs."""
    folder = _plain(chart)
    found = files.names("" if folder == "." else folder)
    names = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")[:-1]))
    if folder.endswith(_ARCHIVES):
        return names
    metadata = _METADATA if folder == "." else f"{folder}/{_METADATA}"
    return names if metadata in names else []


def fingerprint(chart: str, values: Sequence[str], files: Files, *given: JsonValue) -> str:
    """A name for what is to be installed, the same for the same content; blocks.

    No secret goes into it: it stands in the cluster and in the journal.

    Raises:
        StageFailed: (config) a file of it cannot be read.
    """
    total = hashlib.sha256(json.dumps([chart, *given], sort_keys=True).encode())
    for name in _all(chart, values, files):
        content = _read(name, files)
        total.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def laid(chart: str, values: Sequence[str], files: Files, folder: Path) -> None:
    """Write a local chart and the values into a folder, for a helm that is to read them before the sources are here.

    Raises:
        StageFailed: (config) a file cannot be read.
    """
    for name in _all(chart, values, files):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_read(name, files))


def _read(name: str, files: Files) -> bytes:
    try:
        return files.read(name)
    except OSError as error:
        raise StageFailed(f"{name} of {files.where}: {error.strerror}", kind=CauseKind.CONFIG) from error


def _all(chart: str, values: Sequence[str], files: Files) -> list[str]:
    return list(dict.fromkeys([*_names(chart, files), *map(_plain, values)]))
