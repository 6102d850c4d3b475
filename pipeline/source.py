"""YAML text as a tree in which every value knows its place; no bytes make it crash.

Scalars stay the text that the author wrote: what a value means is decided by the place that takes it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import JsonValue

from pipeline.errors import PipeError, Place, Problem, nearest

if TYPE_CHECKING:
    import yaml

__all__ = ["Entry", "List", "Map", "Node", "Null", "Source", "Text", "load", "plain"]

LARGEST: Final = 2 << 20
DEEPEST: Final = 50
MOST_NODES: Final = 50_000
"""Counted as if every alias were written out: what makes a bomb a bomb."""
MOST_PROBLEMS: Final = 100

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A scalar: what it says, and where."""

    value: str
    place: Place
    block: Sequence[str] = ()
    """The lines of a text that is written as a block (`|`), one for each of its own."""

    def at(self, start: int, length: int) -> Place:
        """The place of a part of the text, if it stands in the file as it is; else that of the whole."""
        place = self.place
        number, begin = self.value.count("\n", 0, start), self.value.rfind("\n", 0, start) + 1
        if number < len(self.block):
            line = self.value[begin:].partition("\n")[0]
            indent = self.block[number].rfind(line)
            column = max(indent, 0) + 1 + start - begin
            return Place(place.file, place.line + 1 + number, column, max(1, length), self.block[number])
        offset = place.text.find(self.value, place.column - 1) if self.value else -1
        if offset < 0:
            return place
        return Place(place.file, place.line, offset + 1 + start, max(1, length), place.text)


@dataclass(frozen=True, slots=True, eq=False)
class Null:
    """A value that is missing; reported already."""

    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class List:
    """A sequence of nodes."""

    items: tuple["Node", ...]
    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A key of a map with its value."""

    key: Text
    value: "Node"

    @property
    def place(self) -> Place:
        """Where to point at: the value if it is a scalar, else the key."""
        return self.value.place if isinstance(self.value, Text | Null) else self.key.place


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """Keys and values in the order of the file."""

    entries: Mapping[str, Entry]
    place: Place

    def get(self, *path: str) -> "Node | None":
        """The value at a path of keys."""
        node: Node = self
        for key in path:
            entry = node.entries.get(key) if isinstance(node, Map) else None
            if entry is None:
                return None
            node = entry.value
        return node


Node: TypeAlias = Text | Null | List | Map


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read: its tree (None when it has none), and what is wrong with its YAML."""

    name: str
    root: Map | None
    problems: tuple[Problem, ...] = ()
    digest: str = ""
    """SHA-256 of the file's bytes, in hex."""


def plain(node: Node) -> JsonValue:
    """The node without places: texts, lists and maps; None where a value is missing."""
    if isinstance(node, Text):
        return node.value
    if isinstance(node, List):
        return [plain(item) for item in node.items]
    if isinstance(node, Map):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    return None


def load(path_or_text: Path | str | bytes, name: str) -> Source:
    """Read a file (a Path) or its content; what is wrong with it is in the result.

    Raises:
        PipeError: the file cannot be read.
    """
    content = _read(path_or_text) if isinstance(path_or_text, Path) else path_or_text
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(data) > LARGEST:
        return Source(name, None, (Problem("the file is larger than 2 MiB", Place(name, 1, 1)),))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        message = f"this is not a UTF-8 text: byte 0x{data[error.start]:02x}"
        return Source(name, None, (Problem(message, _Lines(name, before).at(len(before))),))
    return replace(_parse(name, text), digest=hashlib.sha256(data).hexdigest())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise PipeError(f"{path}: {error.strerror}") from None


def _parse(name: str, text: str) -> Source:
    lines = _Lines(name, text)
    if control := _CONTROL.search(text):
        message = f"the control character U+{ord(control[0]):04X} cannot be in a pipeline file"
        return Source(name, None, (Problem(message, lines.at(control.start())),))
    builder = _Builder(lines)
    try:
        root = builder.build(text)
    except _StopError as stop:
        return Source(name, None, (*builder.problems, stop.problem))
    if isinstance(root, Map):
        return Source(name, root, tuple(builder.problems))
    message = "a pipeline file is a map with `name:` and `stages:`" if root else "the file is empty"
    return Source(name, None, (*builder.problems, Problem(message, root.place if root else Place(name, 1, 1))))


# -- places ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    name: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return _BREAK.split(self.text)

    def place(self, line: int, column: int, width: int = 1) -> Place:
        text = self.lines[line] if line < len(self.lines) else ""
        return Place(self.name, line + 1, column + 1, max(1, width), text)

    def at(self, offset: int) -> Place:
        ends = list(_BREAK.finditer(self.text, 0, offset))
        return self.place(len(ends), offset - (ends[-1].end() if ends else 0))


# -- building --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StopError(Exception):
    problem: Problem


@dataclass(slots=True)
class _Built:
    """A node, and what it costs to write it out once more."""

    node: Node
    size: int = 1
    height: int = 0


@dataclass(slots=True)
class _Open:
    """A collection that has not ended yet."""

    start: Place
    anchor: str | None
    is_map: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: Text | None = None
    expects_value: bool = False
    size: int = 1
    height: int = 0


class _Builder:
    def __init__(self, lines: _Lines) -> None:
        self.problems: list[Problem] = []
        self._lines = lines
        self._open: list[_Open] = []
        self._anchors: dict[str, _Built] = {}
        self._nodes = 0
        self._root: Node | None = None

    def build(self, text: str) -> Node | None:
        import yaml

        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise _StopError(_syntax_problem(error, self._lines)) from None
        return self._root

    def _take(self, event: "yaml.Event") -> None:
        import yaml

        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.CollectionStartEvent():
                self._start(event, is_map=isinstance(event, yaml.MappingStartEvent))
            case yaml.CollectionEndEvent():
                self._end()
            case yaml.DocumentStartEvent():
                self._document(event)

    def _place(self, event: "yaml.Event") -> Place:
        (line, column), (last, end) = _position(event.start_mark), _position(event.end_mark)
        return self._lines.place(line, column, end - column if last == line else 1)

    def _document(self, event: "yaml.Event") -> None:
        if self._root is not None:
            raise _StopError(Problem("a pipeline file is one document: a second one begins here", self._place(event)))

    def _scalar(self, event: "yaml.ScalarEvent") -> None:
        place = self._place(event)
        self._refuse_tag(event.tag, place)
        if not event.style and event.value in _NULLS:
            place = self._null(place)
            built = _Built(Null(place))
        else:
            built = _Built(Text(event.value, place, self._block(event)))
            if "\0" in event.value:
                self._report("no text can hold the character U+0000", place)
        self._anchor(event.anchor, built)
        self._add(built)

    def _block(self, event: "yaml.ScalarEvent") -> Sequence[str]:
        if event.style != "|":
            return ()
        first, last = _position(event.start_mark)[0] + 1, _position(event.end_mark)[0]
        return self._lines.lines[first:last]

    def _null(self, place: Place) -> Place:
        """Report a missing value, at its key if it has one."""
        parent = self._open[-1] if self._open else None
        key = parent.key if parent and parent.is_map and parent.expects_value else None
        if key:
            place = key.place if place.width == 1 else place
            self._report(f"`{key.value}:` has no value", place, 'leave the key out, or write "" for an empty text')
        elif parent:
            self._report("a value is missing here", place, 'null is no value; write "" for an empty text')
        return place

    def _alias(self, event: "yaml.AliasEvent") -> None:
        place = self._place(event)
        anchor = str(event.anchor)
        built = self._anchors.get(anchor)
        if built is None:
            if any(frame.anchor == anchor for frame in self._open):
                raise _StopError(Problem(f"'*{anchor}' stands inside of what it names", place))
            hint = nearest(anchor, self._anchors) or "put it in quotes if it is not meant to be an alias"
            raise _StopError(Problem(f"'*{anchor}' names no anchor above it", place, hint))
        self._check_depth(built.height, place)
        self._add(built, place)

    def _start(self, event: "yaml.CollectionStartEvent", *, is_map: bool) -> None:
        place = self._place(event)
        self._refuse_tag(event.tag, place)
        self._open.append(_Open(place, event.anchor, is_map))
        self._check_depth(0, place)

    def _end(self) -> None:
        frame = self._open.pop()
        node = Map(frame.entries, frame.start) if frame.is_map else List(tuple(frame.items), frame.start)
        built = _Built(node, frame.size, frame.height + 1)
        self._anchor(frame.anchor, built)
        self._add(built)

    def _anchor(self, anchor: str | None, built: _Built) -> None:
        if anchor:
            self._anchors[anchor] = built

    def _add(self, built: _Built, alias: Place | None = None) -> None:
        self._count(built, alias)
        if not self._open:
            self._root = built.node
            return
        frame = self._open[-1]
        frame.size += built.size
        frame.height = max(frame.height, built.height)
        if not frame.is_map:
            frame.items.append(built.node)
        elif frame.expects_value:
            frame.expects_value = False
            if frame.key:
                frame.entries.setdefault(frame.key.value, Entry(frame.key, built.node))
        else:
            frame.expects_value = True
            frame.key = self._key(frame, built.node)

    def _key(self, frame: _Open, node: Node) -> Text | None:
        """The key if it can be one; None makes its value go nowhere."""
        if not isinstance(node, Text):
            self._report("a key must be a text", node.place, "put it in quotes")
        elif node.value == "<<":
            self._report(
                "merge keys `<<` are not supported", node.place, "use an alias for the whole value, or `defaults:`"
            )
        elif first := frame.entries.get(node.value):
            self._report(f"the key '{node.value}' stands here twice, first in line {first.key.place.line}", node.place)
        else:
            return node
        return None

    def _count(self, built: _Built, alias: Place | None) -> None:
        self._nodes += built.size if alias else 1
        if self._nodes > MOST_NODES:
            what = "with its aliases written out" if alias else "of this size"
            place = alias or built.node.place
            raise _StopError(Problem(f"a file {what} is too large: more than {MOST_NODES} values", place))

    def _check_depth(self, height: int, place: Place) -> None:
        if len(self._open) + height > DEEPEST:
            raise _StopError(Problem(f"nested more than {DEEPEST} levels deep", place))

    def _refuse_tag(self, tag: str | None, place: Place) -> None:
        if tag == "!":
            rest = place.text[place.column - 1 :].lstrip("! ").partition(" #")[0].strip()
            self._report("a `!` in front of a value would be dropped by YAML", place, f'put it in quotes: "!{rest}"')
        elif tag is not None:
            self._report("tags are not supported", place, "put it in quotes if the `!` belongs to the text")

    def _report(self, message: str, place: Place, hint: str = "") -> None:
        self.problems.append(Problem(message, place, hint))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _StopError(Problem(f"stopped after {MOST_PROBLEMS} problems", place))


# -- syntax errors ---------------------------------------------------------------------------------

_TROUBLE = ("${", "!", "*", "@", "`", "%", "? ", ": ", "&")
_VALUE = re.compile(r"\s*(?:- )*(?P<key>[^\s:#{\[]+: )?(?P<value>.*?)\s*(?: #.*)?")


def _syntax_problem(error: "yaml.MarkedYAMLError", lines: _Lines) -> Problem:
    place = lines.place(*_position(error.problem_mark or error.context_mark))
    if "\t" in place.text[: place.column] and not place.text[: place.column].strip():
        return Problem("a tab cannot indent in YAML", place, "use spaces")
    began = error.context_mark
    hint = "" if began and _position(began)[0] + 1 < place.line else _quotes(place.text, place.column - 1)
    return Problem(f"not valid YAML: {_said(error)}", place, hint)


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line, mark.column) if mark else (0, 0)


def _said(error: "yaml.MarkedYAMLError") -> str:
    said = str(error.problem or error.context)
    began = error.context_mark
    if error.context and began and error.problem_mark and began.line != error.problem_mark.line:
        return f"{said} {error.context} that begins in line {began.line + 1}"
    return said


def _quotes(line: str, column: int) -> str:
    """The advice to use quotes, when what is near is a text that YAML reads as something else."""
    near = line[max(0, column - 2) : column + 2] + " "
    if not any(sign in near for sign in _TROUBLE):
        return ""
    if expression := _expression_near(line, column):
        return f'put it in quotes: "{expression}"'
    match = _VALUE.fullmatch(line)
    value = match["value"] if match else ""
    if not match or not match["key"] or value[:1] in "[{\"'":
        return "put the text in quotes"
    quote = "'" if '"' in value else '"'
    return f"put it in quotes: {match['key']}{quote}{value}{quote}"


def _expression_near(line: str, column: int) -> str:
    found: Iterator[re.Match[str]] = re.finditer(r"[^\s,:{}\[\]]*\$\{[^{}]*\}[^\s,{}\[\]]*", line)
    return next((match[0] for match in found if match.start() - 2 <= column <= match.end()), "")
