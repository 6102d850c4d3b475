"""JUnit XML: read as strangers write it, in a stream and within bounds, and written as Jenkins' junit plugin reads it.

The elements and attributes are those that Surefire writes and that plugin takes in (its SuiteResult and CaseResult).
"""

import html
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol
from xml.parsers import expat

__all__ = ["Case", "Clipped", "Result", "Unreadable", "Writer", "clipped", "read"]

BLOCK = 1 << 16
DEEPEST = 64
LONGEST_TOKEN = 4 << 20
LONGEST_NAME = 2000
MOST_CASES = 200_000
HALF = 50_000
"""Characters of a text that are kept at its beginning and at its end, as many as Jenkins shows."""
SLACK = 4096
"""Characters more that are read than written: a secret at a cut can only be masked while it is whole."""
LONGEST = 365 * 24 * 3600.0

Result = Literal["passed", "failed", "errored", "skipped"]

GREEN_HALF = 500
"""The same for what a test printed that did not fail."""
BUDGET = 32 << 20
"""Characters of texts in one file; after them each gets only as much as that of a green test."""

_LEFT_OUT = re.compile(r"\n… (\d+) characters are left out …\n")
_SUITES = ("testsuites", "testsuite")
_BAD = {"failure": "failed", "error": "errored", "skipped": "skipped"}
_RETRIED = ("flakyFailure", "flakyError", "rerunFailure", "rerunError")
_TEXTS = (*_BAD, *_RETRIED, "system-out", "system-err")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?", re.ASCII)


class Unreadable(Exception):
    """It is no JUnit XML, or one that nobody should read."""


MOST = HALF + SLACK


class Clipped:
    """A text of which the beginning and the end are kept."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._room, self._kept, self._dropped = MOST, 0, 0

    def add(self, text: str) -> None:
        """More of it."""
        if self._room:
            self._head.append(text[: self._room])
            text, self._room = text[self._room :], max(0, self._room - len(text))
        if text:
            self._tail.append(text[-MOST:])
            self._dropped += max(0, len(text) - MOST)
            self._kept += len(self._tail[-1])
        while self._tail and self._kept - len(self._tail[0]) >= MOST:
            gone = len(self._tail.popleft())
            self._kept, self._dropped = self._kept - gone, self._dropped + gone

    def __str__(self) -> str:
        """The text, with a word on what is missing."""
        missing = f"\n… {self._dropped} characters are left out …\n" if self._dropped else ""
        return "".join((*self._head, missing, *self._tail))


@dataclass
class Case:
    """One test. `suite` is the name of what it was in, `seconds` between 0 and a year."""

    suite: str
    timestamp: str
    classname: str
    name: str
    seconds: float = 0.0
    result: Result = "passed"
    message: str = ""
    type: str = ""
    text: str = ""
    retried: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Element, message, type and text of each earlier try."""
    out: str = ""
    err: str = ""

    @property
    def flaky(self) -> bool:
        """It failed and then succeeded."""
        return self.result == "passed" and bool(self.retried)

    @property
    def bad(self) -> bool:
        """The test says no."""
        return self.result in ("failed", "errored")

    def why(self) -> str:
        """The message of its failure, or of the first one before it succeeded."""
        message, text = (self.message, self.text) if self.bad or not self.retried else self.retried[0][1::2]
        return (message or next(iter(text.strip().splitlines()), "")).strip()

    def line(self) -> str:
        """Where it broke: the first line of the trace in its own class, else the first one at all."""
        text = self.text if self.bad or not self.retried else self.retried[0][3]
        places = [line.strip() for line in text.splitlines() if re.match(r"\s*(at |File \")", line)]
        own = self.classname.rpartition(".")[2].partition("$")[0]
        return next((line for line in places if own and own in line), places[0] if places else "")


class Readable(Protocol):
    """A file, as far as it is needed."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at its end."""


def read(file: Readable) -> Iterator[Case]:
    """The tests of a report, one by one; memory does not grow with the file.

    Raises:
        Unreadable: it is no XML, has a document type, or is beyond every measure.
    """
    reader = _Reader()
    while block := file.read(BLOCK):
        yield from reader.feed(block)
    yield from reader.end()


class _Reader:
    def __init__(self) -> None:
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _refuse
        parser.EntityDeclHandler = _refuse
        parser.ExternalEntityRefHandler = _refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._path: list[str] = []
        self._suites: list[tuple[str, str]] = []
        self._case: Case | None = None
        self._read: Clipped | None = None
        self._since = 0
        """How deep the element lies whose text is read."""
        self._attributes: dict[str, str] = {}
        self._ready: list[Case] = []
        self._fed = self._count = 0

    def feed(self, data: bytes) -> list[Case]:
        self._fed += len(data)
        self._parse(data)
        if self._fed - self._parser.CurrentByteIndex > LONGEST_TOKEN:
            raise Unreadable(f"a part of it is longer than {LONGEST_TOKEN >> 20} MiB")
        return self._taken()

    def end(self) -> list[Case]:
        if not self._fed:
            raise Unreadable("it is empty")
        self._parse(b"", last=True)
        return self._taken()

    def _parse(self, data: bytes, *, last: bool = False) -> None:
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            raise Unreadable(f"it is no XML: {error}") from None
        except (ValueError, LookupError) as error:  # an encoding that nobody knows
            raise Unreadable(str(error)) from None

    def _taken(self) -> list[Case]:
        ready, self._ready = self._ready, []
        return ready

    def _start(self, tag: str, given: dict[str, str]) -> None:
        attributes = {name: value[: LONGEST_NAME + SLACK] for name, value in given.items()}
        if not self._path and tag not in _SUITES:
            raise Unreadable(f"its root is <{tag[:40]}>, not <testsuite>")
        if len(self._path) >= DEEPEST:
            raise Unreadable(f"more than {DEEPEST} elements lie within each other")
        if tag in _SUITES:
            stamp = attributes.get("timestamp", "")
            self._suites.append((attributes.get("name", ""), stamp if _TIMESTAMP.fullmatch(stamp) else ""))
        elif tag == "testcase" and self._suites:
            self._begin(attributes.get("classname", ""), attributes.get("name", ""), attributes)
        elif tag == "error" and self._path[-1] in _SUITES:  # the class could not be loaded
            self._begin("", "<init>", {})
        if tag in _TEXTS and self._case and self._read is None:
            self._read, self._attributes, self._since = Clipped(), attributes, len(self._path)
        self._path.append(tag)

    def _begin(self, classname: str, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MOST_CASES:
            raise Unreadable(f"it has more than {MOST_CASES} tests")
        suite, stamp = self._suites[-1]
        seconds = _seconds(attributes.get("time", ""))
        self._case = Case(suite, stamp, classname or suite or "(no class)", name or "(no name)", seconds)

    def _text(self, text: str) -> None:
        if self._read and (len(self._path) == self._since + 1 or self._path[-1] == "stackTrace"):
            self._read.add(text)

    def _end(self, tag: str) -> None:
        self._path.pop()
        if self._case and self._read and len(self._path) == self._since:
            self._said(tag, self._case, str(self._read))
            self._read = None
        if tag in _SUITES and self._suites:
            self._suites.pop()
        if self._case and (tag == "testcase" or (tag == "error" and self._path[-1] in _SUITES)):
            self._ready.append(self._case)
            self._case = None

    def _said(self, tag: str, case: Case, text: str) -> None:
        message, kind = self._attributes.get("message", ""), self._attributes.get("type", "")
        if tag in _RETRIED:
            case.retried.append((tag, message, kind, text))
        elif tag == "system-out":
            case.out = text
        elif tag == "system-err":
            case.err = text
        elif tag == "error" or case.result in ("passed", "skipped"):
            case.result, case.message, case.type, case.text = _BAD[tag], message, kind, text  # type: ignore[assignment]


def _refuse(*_: Any) -> int:
    raise Unreadable("it has a document type or entities")


def _seconds(text: str) -> float:
    try:
        seconds = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST) if math.isfinite(seconds) else 0.0


def clipped(text: str, half: int = HALF) -> str:
    """A text of which the beginning and the end are kept, `half` characters each; it may have been clipped before."""
    before = _LEFT_OUT.search(text)
    missing = len(text) - 2 * half + (int(before[1]) - len(before[0]) if before else 0)
    return text if missing <= 0 else f"{text[:half]}\n… {missing} characters are left out …\n{text[-half:]}"


class Writer:
    """Writes one `<testsuites>`; every text is masked and made legal. `close` ends it."""

    def __init__(self, put: Callable[[str], object], mask: Callable[[str], str], name: str = "") -> None:
        self._put = put
        self._mask = mask
        self._budget = BUDGET
        named = f" name={self._attribute(name)}" if name else ""
        put(f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites{named}>\n')

    def suite(self, name: str, id_: str, timestamp: str, cases: Iterable[Case]) -> None:
        """One suite. Jenkins takes two of one name and time for the same, so the name has to say whose it is."""
        stamp = f" timestamp={self._attribute(timestamp)}" if timestamp else ""
        self._put(f"<testsuite name={self._attribute(name)} id={self._attribute(id_)}{stamp}>\n")
        try:
            for case in cases:
                self._case(case)
        finally:  # a report may break off in the middle
            self._put("</testsuite>\n")

    def copy(self, lines: Iterable[str]) -> None:
        """The suites of another file that a Writer wrote."""
        for line in lines:
            if not line.startswith(("<?xml", "<testsuites", "</testsuites>")):
                self._put(line)

    def close(self) -> None:
        """The end."""
        self._put("</testsuites>\n")

    def _case(self, case: Case) -> None:
        names = f"classname={self._attribute(case.classname)} name={self._attribute(case.name)}"
        self._put(f'<testcase {names} time="{case.seconds:.3f}">')
        if case.result != "passed":
            tag = {"failed": "failure", "errored": "error", "skipped": "skipped"}[case.result]
            self._element(tag, case.message, case.type, case.text)
        for tag, message, kind, text in case.retried:
            stack = f"<stackTrace>{self._text(text)}</stackTrace>"
            self._put(f"<{tag} message={self._attribute(message)} type={self._attribute(kind)}>{stack}</{tag}>")
        half = HALF if case.bad else GREEN_HALF
        for tag, text in (("system-out", case.out), ("system-err", case.err)):
            if text.strip():
                self._put(f"<{tag}>{self._text(text, half)}</{tag}>")
        self._put("</testcase>\n")

    def _element(self, tag: str, message: str, kind: str, text: str) -> None:
        typed = f" type={self._attribute(kind)}" if kind else ""
        self._put(f"<{tag} message={self._attribute(message)}{typed}>{self._text(text)}</{tag}>")

    def _text(self, text: str, half: int = HALF) -> str:
        shown = clipped(self._legal(text), half if self._budget > 0 else GREEN_HALF)
        self._budget -= len(shown)
        return html.escape(shown, quote=False).replace("\r", "&#13;")

    def _attribute(self, text: str) -> str:
        shown = html.escape(self._legal(text)[:LONGEST_NAME])
        return f'"{shown.translate(_KEPT)}"'

    def _legal(self, text: str) -> str:
        masked = self._mask(text)
        return masked if masked.isprintable() else _illegal().sub("", masked)


_KEPT = {ord(each): f"&#{ord(each)};" for each in "\t\n\r"}
"""Blanks that a reader of attributes would take for a space."""


@cache
def _illegal() -> re.Pattern[str]:
    """What XML 1.0 forbids."""
    return re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
