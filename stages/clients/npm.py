"""Packages of npm: which installations can be kept, where, and the words of its log."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.locks import hold, lock_of, withdraw
from pipeline.stage import CauseKind, StageErrored, StageFailed

__all__ = ["LOCKS", "Package", "Store", "install_trouble", "packages", "parse_package", "read_package", "told"]

MARKER = ".pipe-key"
KEPT = 4
LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
LIFECYCLE = {"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"}


@dataclass(frozen=True)
class Package:
    """A package.json and what lies beside it."""

    folder: Path
    content: Mapping[str, Any]
    lock: Path | None

    @property
    def scripts(self) -> Mapping[str, str]:
        """Its scripts by name."""
        found = self.content.get("scripts")
        return found if isinstance(found, dict) else {}

    def keepable(self) -> bool:
        """Whether an installation is all in `node_modules` and the same for the same lock file."""
        if self.lock is None or "workspaces" in self.content or LIFECYCLE & set(self.scripts):
            return False
        return not re.search(r'"link": *true|"(?:resolved|version)": *"file:', self.lock.read_text(errors="replace"))

    def key(self, node: str, registry: str) -> str:
        """What an installation depends on, as a file name."""
        total = hashlib.sha256(f"1 {node} {platform.machine()} {platform.libc_ver()} {registry}".encode())
        for path in (self.folder / "package.json", self.lock, self.folder / ".npmrc"):
            content = path.read_bytes() if path and path.exists() else b""
            total.update(f"\0{len(content)}\0".encode() + content)
        return total.hexdigest()[:32]


def read_package(folder: Path) -> Package:
    """The package in a folder.

    Raises:
        StageFailed: there is no package.json, or it cannot be read.
    """
    try:
        content = parse_package((folder / "package.json").read_bytes(), str(folder))
    except FileNotFoundError:
        raise StageFailed(f"there is no package.json in {folder}: set `dir:`", kind=CauseKind.CONFIG) from None
    lock = next((folder / name for name in LOCKS if (folder / name).exists()), None)
    return Package(folder, content, lock)


def parse_package(text: bytes, folder: str) -> Mapping[str, Any]:
    """What a package.json says.

    Raises:
        StageFailed: it is no JSON.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise StageFailed(f"{folder}/package.json is no JSON: {error}") from None
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Reading:
    """A kept installation, or None, and the lock on it."""

    path: Path | None
    _lock: IO[bytes]

    def close(self) -> None:
        """Let it go."""
        self._lock.close()


class Store:
    """Installations of earlier runs, by key; the last few are kept. Parallel runs may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, modules: Path, key: str) -> bool:
        """Whether a `node_modules` is that very installation already."""
        marker = modules / MARKER
        return marker.is_file() and marker.read_text() == key

    def read(self, key: str) -> "Reading":
        """The kept `node_modules` of that key, if there is one; nobody removes it until the reading is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _held(self.folder / f"{key}.lock")
        path = self.folder / key
        if not path.is_dir():
            return Reading(None, lock)
        return Reading(path, lock)

    def new(self, key: str) -> Path:
        """Where to copy a `node_modules` to before `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{key}.{os.getpid()}.{os.urandom(4).hex()}.part"

    def keep(self, part: Path, key: str) -> None:
        """Give a copy its name, all at once, and remove what is older than the last few."""
        with _held(self.folder / f"{key}.lock"):
            try:
                part.rename(self.folder / key)
            except OSError:  # another run was first
                shutil.rmtree(part, ignore_errors=True)
        kept = sorted((path for path in self.folder.iterdir() if path.is_dir() and not path.suffix), key=_age)
        for path in kept[KEPT:]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove it, unless somebody uses it or is removing it."""
        with contextlib.suppress(OSError):
            # what is removed half is never taken for a whole one
            if aside := withdraw(path):
                shutil.rmtree(aside, ignore_errors=True)


def packages(cache: Path) -> Reading:
    """The cache of npm itself, which is made for several at once; nobody removes it until the reading is closed."""
    cache.mkdir(parents=True, exist_ok=True)
    return Reading(cache / "packages", _held(cache / "packages.lock"))


def _held(path: Path) -> IO[bytes]:
    lock = hold(path)
    os.utime(lock.fileno())
    return lock


def _age(path: Path) -> float:
    """How recently a kept installation was used, or kept: the newest has the least."""
    times = [0.0]
    for each in (path, lock_of(path)):
        with contextlib.suppress(FileNotFoundError):
            times.append(each.stat().st_mtime)
    return -max(times)


# -- its log ---------------------------------------------------------------------------------------

NOISE = re.compile(r"^npm (?:ERR!|error)\s*(?:A complete log|.*/_logs/|$)|^\s*$")
CODE = re.compile(r"^npm (?:ERR!|error) code (?P<code>\w+)", re.MULTILINE)
NETWORK = {"ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ERR_SOCKET_TIMEOUT", "EHOSTUNREACH"}
MEANINGS = {
    "EUSAGE": "the lock file does not fit package.json: run `npm install` and commit what it changes",
    "E401": "the registry wants another login",
    "E403": "the registry forbids it",
    "E404": "a package is not in the registry",
    "ETARGET": "no version of a package fits",
    "ERESOLVE": "the versions that packages ask of each other do not fit together",
    "EJSONPARSE": "package.json or the lock file is no JSON",
    "ENOSPC": "there is no space left on the disk",
    "EBADENGINE": "a package asks for another version of node",
}


def told(lines: "deque[str]") -> list[str]:
    """The last lines that say something."""
    return [line for line in lines if not NOISE.match(line)][-30:]


def install_trouble(command: str, exit_code: int, lines: Sequence[str]) -> StageFailed | StageErrored:
    """The error for an installation that failed, by what npm wrote."""
    match = CODE.search("\n".join(lines))
    code = match["code"] if match else ""
    if code in NETWORK or re.fullmatch(r"E5\d\d", code):
        line = next((line for line in lines if "network" in line or "request to" in line), code)
        reason = re.sub(r"^npm (?:ERR!|error) *(?:network *)?", "", line)
        return StageErrored(f"{command}: the registry does not answer: {reason}", evidence=lines)
    reason = MEANINGS.get(code, f"ended with exit code {exit_code}{f' ({code})' if code else ''}")
    return StageFailed(f"{command}: {reason}", evidence=lines)
