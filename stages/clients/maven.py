"""Maven's local repositories, which runs may not share, and the words of its log."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.locks import take
from pipeline.stage import StageErrored, StageFailed

__all__ = ["Lease", "Log", "lease"]


# -- local repositories ----------------------------------------------------------------------------

ORIGINS = "_remote.repositories"
COPIED = ("maven-metadata-", "resolver-status.properties", ORIGINS)


@dataclass(frozen=True)
class Lease:
    """A local repository that is this run's alone until `release`."""

    repository: Path
    _lock: IO[bytes]

    def release(self) -> None:
        """Give it back."""
        self._lock.close()


def lease(cache: Path, home: Path) -> Lease:
    """A free repository of the pool in `cache`, or a new one.

    Maven 3 writes into its local repository without any lock (MNG-2802), so two runs never get the same.
    A new one starts with everything that the fullest of the others, or the user's own, had downloaded.

    Raises:
        NoLocksError: nobody can have one alone there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    number = 0
    while (lock := take(cache / f"{number}.lock")) is None:
        number += 1
    os.utime(lock.fileno())
    folder = cache / str(number)
    if not folder.exists():
        _seed(folder, [path for path in cache.iterdir() if path.is_dir()], home / ".m2" / "repository")
    return Lease(folder, lock)


def _seed(folder: Path, others: Sequence[Path], own: Path) -> None:
    sources = sorted(others, key=_fullness, reverse=True) or [own]
    folder.mkdir()
    with contextlib.suppress(OSError):  # a poorer start only means more downloads
        for found, name in _downloaded(sources[0]):
            _bring(found / name, folder / found.relative_to(sources[0]) / name)


def _fullness(folder: Path) -> int:
    return sum(1 for _ in folder.glob(f"*/*/*/*/{ORIGINS}"))


def _downloaded(source: Path) -> Iterator[tuple[Path, str]]:
    """Folder and name of what came from a remote; what a run installed by itself stays its own."""
    for folder, _, files in os.walk(source):
        names = {name for name in files if name.startswith(COPIED)}
        if ORIGINS in files:
            text = (Path(folder) / ORIGINS).read_text(errors="replace")
            names |= set(re.findall(r"^(\S+)>[^=\s]+=$", text, re.MULTILINE)) & set(files)
        for name in names:
            yield Path(folder), name


def _bring(source: Path, target: Path) -> None:
    """Link what Maven only ever replaces as a whole; copy what it writes into, or what lies on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.name.startswith(COPIED):
        try:
            target.hardlink_to(source)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES}:
                raise
        else:
            return
    part = target.with_name(f"{target.name}.part")
    shutil.copy2(source, part)
    part.replace(target)


# -- its log ---------------------------------------------------------------------------------------

EVIDENCE_LIMIT = 60
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MODULE = re.compile(r"\[INFO\] Building (?P<module>\S+).*\[(?P<number>\d+)/(?P<count>\d+)\]\s*$")
VERSION = re.compile(r"(?:Apache )?(?P<what>Maven|Java)(?: version:)? (?P<version>\d[^\s,]*)")
GOAL = re.compile(
    r"Failed to execute goal (?:on project (?P<unresolved>[^:\s]+)"
    r"|\S+?:(?P<plugin>[\w-]+):\S+ .*?on project (?P<project>[^:\s]+)): (?P<why>.*)"
)
SOURCE = re.compile(r"\S+\.\w+:\[\d+,\d+\]")
TESTS = re.compile(r"\[ERROR\] Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: \d+$")
HELP = re.compile(r"-> \[Help|To see the full stack|Re-run Maven|For more information|\[Help \d+\]|^\[ERROR\]\s*$"
                  r"|After correcting|mvn <args>|COMPILATION ERROR")  # fmt: skip
NETWORK = re.compile(
    r"Could not transfer|Unknown host|Connection (?:refused|reset|timed out)|Read timed out|status code: 5\d\d"
    r"|No route to host|Network is unreachable|Temporary failure in name resolution"
)


@dataclass
class Log:
    """What Maven said so far: the module that it is at, and its error lines, each once."""

    root: str = ""
    """What to leave out of paths."""
    module: str = ""
    number: int = 0
    count: int = 0
    errors: list[str] = field(default_factory=list)
    last: str = ""
    tool: str = ""
    """Maven and the Java that it runs on, with their versions."""
    _tests: str = ""
    _head: bool = True
    """What it says of itself comes first of all."""

    def take(self, line: str) -> bool:
        """Read one line; True if another module has begun."""
        line = COLOUR.sub("", line).rstrip()
        self.last = line or self.last
        if match := MODULE.match(line):
            self.module, self.number, self.count = match["module"], int(match["number"]), int(match["count"])
            return True
        if line.startswith("["):
            self._head = False
        if self._head and (match := VERSION.match(line)):
            self.tool = ", ".join(filter(None, (self.tool, f"{match['what']} {match['version']}")))
        if line.startswith("[ERROR]"):
            self._error(line)
        return False

    async def version(self) -> str:
        """What it said of itself, as a fact of the run."""
        return self.tool

    def _error(self, line: str) -> None:
        if match := TESTS.match(line):
            self._tests = f"{int(match[2]) + int(match[3])} of {match[1]}"
        line = line.replace(self.root, "") if self.root else line
        if HELP.search(line):
            return
        # said as it happened and again at the end: the end has the order
        self.errors = [*(known for known in self.errors if known != line), line][-EVIDENCE_LIMIT:]

    def trouble(self, program: str, exit_code: int) -> StageFailed | StageErrored:
        """The error for a run that ended so, in a few words, with the lines that prove it."""
        evidence = self.errors or [self.last]
        text = "\n".join(evidence)
        if NETWORK.search(text):
            line = next(line for line in evidence if NETWORK.search(line))
            return StageErrored(
                f"a repository does not answer: {line.removeprefix('[ERROR] ')[:300]}", evidence=evidence
            )
        match = GOAL.search(text)
        if match is None:
            first = evidence[0].removeprefix("[ERROR] ")[:300]
            return StageFailed(f"{program} ended with exit code {exit_code}: {first}", evidence=evidence)
        return StageFailed(self._reason(match, evidence), evidence=evidence)

    def _reason(self, match: "re.Match[str]", evidence: Sequence[str]) -> str:
        if match["unresolved"]:
            return f"dependencies of {match['unresolved']} cannot be resolved: {match['why'][:300]}"
        project, plugin = match["project"], match["plugin"].removeprefix("maven-").removesuffix("-plugin")
        if plugin == "compiler":
            count = len({place for line in evidence for place in SOURCE.findall(line)})
            return f"compilation failed in {project}: {count or 1} error{'s' if count > 1 else ''}"
        if plugin in {"surefire", "failsafe"} and self._tests:
            return f"tests failed in {project}: {self._tests}"
        return f"{plugin} failed in {project}: {match['why'][:300]}"
