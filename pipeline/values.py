"""Values of the tree as forms, the names in them with their places, and the way from a path back to a place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.conditions import Type
from pipeline.errors import InvalidPipeline, Place, Problem
from pipeline.expressions import Form, parse, quoted_key
from pipeline.shape import Complaint, Path
from pipeline.source import Entry, List, Map, Node, Text

__all__ = ["Report", "Use", "Value", "literal", "overlaid", "place_at", "read_value"]


MOST: Final = 100


@dataclass
class Report:
    """Everything that is wrong with a file, each thing once."""

    problems: dict[Problem, None] = field(default_factory=dict)

    def add(self, place: Place, message: str, hint: str = "") -> None:
        """Take in one mistake.

        Raises:
            InvalidPipeline: there are so many that nobody reads more.
        """
        self.problems[Problem(message, place, hint)] = None
        if len(self.problems) >= MOST:
            raise InvalidPipeline([*self.problems, Problem(f"stopped after {MOST} problems")])

    def complain(self, node: Node, complaint: Complaint, fallback: Place) -> None:
        """Take in a complaint about a value below a node."""
        place = place_at(node, complaint.path, fallback, at_key=complaint.at_key)
        self.add(place, complaint.message, complaint.hint)


@dataclass(frozen=True, slots=True)
class Use:
    """A name in a value: where it stands in the file, and the path to the text that holds it."""

    name: str
    place: Place
    path: Path
    alone: bool
    """The text is nothing but this name, so its value keeps its type."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as written: a form in which every name is open, and these names."""

    form: Form
    uses: tuple[Use, ...] = ()
    changed: bool = False
    """It is not what stands in the file: it has names, or a `$$`."""


def read_value(node: Node, report: Report) -> Value:
    """A node with its `${…}` found; what is wrong with their spelling is reported."""
    uses: list[Use] = []
    form = _form(node, (), uses, report)
    return Value(form, tuple(uses), form != literal(node))


def _form(node: Node, path: Path, uses: list[Use], report: Report) -> Form:
    if isinstance(node, Text):
        parsed = parse(node.value)
        for fault in parsed.faults:
            report.add(node.at(fault.start, fault.length), fault.message, fault.hint)
        for found in parsed.references:
            alone = found.length == len(node.value)
            uses.append(Use(found.name, node.at(found.start, found.length), path, alone))
        return parsed.form
    if isinstance(node, List):
        return [_form(item, (*path, index), uses, report) for index, item in enumerate(node.items)]
    if isinstance(node, Map):
        return {quoted_key(key): _form(entry.value, (*path, key), uses, report) for key, entry in node.entries.items()}
    return None


def misplaced(use: Use, type_: Type, *, text: bool) -> str:
    """Why a name cannot stand where it does; `text`: its place takes texts only."""
    if type_ not in ("list", "map") or (use.alone and not text):
        return ""
    if not use.alone:
        return f"`${{{use.name}}}` is a {type_}, which cannot stand inside a text"
    key = next((part for part in reversed(use.path) if isinstance(part, str)), "")
    return f"`{key}:` must be a text, not a {type_}" if key else f"must be a text, not a {type_}"


def literal(node: Node) -> Form:
    """A node in which a `$` is a `$`."""
    if isinstance(node, Text):
        return node.value
    if isinstance(node, List):
        return [literal(item) for item in node.items]
    if isinstance(node, Map):
        return {quoted_key(key): literal(entry.value) for key, entry in node.entries.items()}
    return None


def overlaid(below: Node | None, above: Node | None) -> Map | None:
    """Two maps as one, entry by entry; the entries of `above` win and stand behind those of `below` alone."""
    upper = above.entries if isinstance(above, Map) else {}
    lower = {key: entry for key, entry in (below.entries if isinstance(below, Map) else {}).items() if key not in upper}
    base = above if isinstance(above, Map) else below
    return Map({**lower, **upper}, base.place) if isinstance(base, Map) else None


def place_at(node: Node, path: Path, fallback: Place, *, at_key: bool = False) -> Place:
    """Where the value at a path stands, or its key; where there is none, where it should have been."""
    place = fallback
    key = fallback
    for part in path:
        step = _step(node, part)
        if step is None:
            break
        if isinstance(step, Entry):
            key, node, place = step.key.place, step.value, step.place
        else:
            node, key, place = step, step.place, step.place
    return key if at_key else place


def _step(node: Node, part: str | int) -> Entry | Node | None:
    if isinstance(node, Map):
        return node.entries.get(str(part))
    if isinstance(node, List) and isinstance(part, int) and part < len(node.items):
        return node.items[part]
    return None


def entries(node: Node | None) -> Iterator[tuple[str, Entry]]:
    """The entries of a map; of anything else none."""
    found: Mapping[str, Entry] = node.entries if isinstance(node, Map) else {}
    return iter(found.items())
