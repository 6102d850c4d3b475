"""What went wrong, found in the lines of a log: complaints of compilers, and the first exception of a program."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import JsonValue

__all__ = ["EXCEPTIONS", "MOST", "Problem", "as_json", "find", "lines_of"]

MOST = 100
EXCEPTIONS = ("python", "java", "node")
BLOCK = 1 << 20
LONGEST_LINE = 1 << 11
FARTHEST = 32 << 20
"""Bytes before the end of a log in which complaints are looked for."""

_SIGNS = ("error", "warning", "ERROR", "WARNING", ".go:")
"""Without one of them a line is no complaint, and most lines have none."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = r"(?P<file>[^\s():][^:()]*?\.\w+)"
_SAYS = r"(?P<level>error|warning)"
_MAVEN = re.compile(
    r"\[(?P<level>ERROR|WARNING)\] (?P<file>\S[^:]*\.\w+):\[(?P<line>\d+)(?:,(?P<column>\d+))?\] (?P<message>.*)"
)
_TSC = re.compile(
    _PLACE + r"[(:](?P<line>\d+)[,:](?P<column>\d+)\)?(?: -|:) " + _SAYS + r" (?P<rule>TS\d+): (?P<message>.*)"
)
_GCC = re.compile(
    _PLACE + r":(?P<line>\d+):(?:(?P<column>\d+):)? (?:fatal )?" + _SAYS + r": (?P<message>.*)"
)  # and javac by itself
_GO = re.compile(r"(?P<file>[^\s:]+\.go):(?P<line>\d+):(?P<column>\d+): (?P<message>.*)")
_ESLINT_FILE = re.compile(r"(?P<file>/[^:]+\.(?:[cm]?[jt]sx?|vue|svelte))")
_ESLINT = re.compile(
    r"\s+(?P<line>\d+):(?P<column>\d+)\s+" + _SAYS + r"\s+(?P<message>\S.*?)(?:\s{2,}(?P<rule>[@\w/-]+))?"
)
_TRACEBACK = "Traceback (most recent call last):"
_PYTHON_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+).*')
_FRAME = re.compile(
    r"\s+at (?!java\.|jdk\.|node:)(?:.*\()?(?:file://)?(?P<file>[^()\s:]+\.\w+):(?P<line>\d+)(?::(?P<column>\d+))?\)?"
    r"(?: ~?\[.*\])?"  # as logback says which jar it is of
)
_THROWN = re.compile(r'(?:Exception in thread "[^"]*" |Uncaught )?(?P<message>[\w.$]*(?:Error|Exception)(?:: .*)?)')
_ONE_LINE = (("javac", _MAVEN), ("tsc", _TSC), ("compiler", _GCC), ("go", _GO))


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint. Its place counts from 1, `column` is 0 when unknown; `file` is below the workspace if in it.

    Of an exception, whose `tool` is one of `EXCEPTIONS`, the place is the innermost that is not in the language's own
    code, and of Python the innermost in the workspace, if there is one.
    """

    tool: str
    level: Literal["error", "warning"]
    file: str
    line: int
    column: int
    message: str
    rule: str = ""

    def __str__(self) -> str:
        """As compilers write it: `src/A.java:3:8: error: …`."""
        place = f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")
        return f"{place}: {self.level}: {self.message}" + (f" ({self.rule})" if self.rule else "")


def as_json(problem: Problem) -> dict[str, JsonValue]:
    """One flat record."""
    return asdict(problem)


def find(lines: Iterable[str], root: str = "") -> Iterator[Problem]:
    """The complaints in some lines, each once, in their order; `root` is what to leave out of paths.

    Those of javac and Maven, tsc, eslint, gcc and its family and go; the exceptions of Python, Java and Node.js.
    """
    seen: set[Problem] = set()
    file = ""
    exception = _FirstException(root)
    for raw in lines:
        line = (_COLOUR.sub("", raw) if "\x1b" in raw else raw).rstrip()
        if thrown := exception.feed(line):
            yield thrown
        if line.startswith("/") and (match := _ESLINT_FILE.fullmatch(line)):
            file = match["file"]
            continue
        if not any(sign in line for sign in _SIGNS):
            continue
        problem = _one_line(line, root) or (_eslint(line, file, root) if file else None)
        if problem and problem not in seen:
            seen.add(problem)
            yield problem


def _one_line(line: str, root: str) -> Problem | None:
    for tool, pattern in _ONE_LINE:
        if match := pattern.fullmatch(line):
            return _problem(tool, match.groupdict(), match["file"], root)
    return None


def _eslint(line: str, file: str, root: str) -> Problem | None:
    match = _ESLINT.fullmatch(line)
    return _problem("eslint", match.groupdict(), file, root) if match else None


def _problem(tool: str, found: dict[str, str | None], file: str, root: str) -> Problem:
    return Problem(
        tool,
        "warning" if (found.get("level") or "").lower() == "warning" else "error",
        file.removeprefix(root) if root else file,
        int(found["line"] or 0),
        int(found.get("column") or 0),
        (found["message"] or "").strip(),
        found.get("rule") or "",
    )


class _FirstException:
    """The first exception in some lines: Python says what it is behind its trace, Java and Node.js before it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._found = self._in_traceback = False
        self._place: re.Match[str] | None = None
        self._ours = 0
        self._thrown = ""

    def feed(self, line: str) -> Problem | None:
        if self._found:
            return None
        if line.startswith(_TRACEBACK):
            self._in_traceback, self._place, self._ours = True, None, 0
            return None
        return self._of_python(line) if self._in_traceback else self._of_others(line)

    def _of_python(self, line: str) -> Problem | None:
        if not line or line[0].isspace():
            frame = _PYTHON_FRAME.fullmatch(line)
            if frame and (ours := self._how_far_ours(frame["file"])) >= self._ours:
                self._place, self._ours = frame, ours
            return None
        self._in_traceback = False
        return self._told("python", self._place, line) if self._place else None

    def _how_far_ours(self, file: str) -> int:
        if self._root and file.startswith(self._root):
            return 2
        return 0 if "/lib/python" in file or file.startswith("<") else 1

    def _of_others(self, line: str) -> Problem | None:
        if line.lstrip().startswith("at "):
            place = _FRAME.fullmatch(line) if self._thrown else None
            return self._told("node" if place["column"] else "java", place, self._thrown) if place else None
        match = _THROWN.fullmatch(line) if "Error" in line or "Exception" in line else None
        self._thrown = match["message"] if match else ""
        return None

    def _told(self, tool: str, place: re.Match[str], message: str) -> Problem:
        self._found = True
        return _problem(tool, {**place.groupdict(), "message": message}, place["file"], self._root)


def lines_of(log: Path) -> Iterator[str]:
    """The lines of a log, of a long one those near its end; what goes on for longer than any complaint is cut."""
    try:
        file = log.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        file.seek(max(0, log.stat().st_size - FARTHEST))
        yield from _lines(file)


def _lines(file: IO[bytes]) -> Iterator[str]:
    rest = b""
    while block := file.read(BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        yield from (line[:LONGEST_LINE].decode("utf-8", "replace") for line in whole)
        rest = rest[:LONGEST_LINE]
    yield rest.decode("utf-8", "replace")
