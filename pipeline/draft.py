"""One stage as written: its kind, its leaves as far as they are known, and its values with their names found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from pydantic import BaseModel

from pipeline.conditions import Type
from pipeline.errors import PipeError, Place, nearest
from pipeline.expressions import Form
from pipeline.fanout import SINGLE, FanOutError, Item, items
from pipeline.scope import output_types
from pipeline.shape import flat, judge, keys, marks
from pipeline.source import Entry, List, Map, Node, Text, plain
from pipeline.spec import Approval, StageSpec, not_built
from pipeline.stage import FROM_PLAN, Outputs, ScriptMark, SecretKind, SecretRef, Stage
from pipeline.values import Report, Value, entries, literal, place_at, read_value

__all__ = [
    "WAITING",
    "WITHOUT_NAMES",
    "Draft",
    "Kind",
    "Kinds",
    "as_map",
    "draft",
    "expand_each",
    "field_marks",
    "secret_fields",
]

Kind = type[Stage[Outputs]]
Kinds = Mapping[str, Kind]

WAITING: Final = ("with", "env")
"""The keys whose values may wait for other stages."""

WITHOUT_NAMES: Final = ("uses", "run", "needs", "when", "takes")
"""The keys in which a `${` is just that."""
APPROVAL: Final = "approval"
SHELL: Final = "shell"


@dataclass
class Draft:
    """A stage on its way to leaves."""

    name: str
    place: Place
    node: Map
    spec: StageSpec
    last: bool
    """It is in `finally`."""
    kind_name: str = ""
    kind: Kind | None = None
    outputs: Mapping[str, Type] | None = None
    """None: nobody knows, for the kind is unknown."""
    items: tuple[Item, ...] | None = (SINGLE,)
    """None: what `each` holds is not known yet."""
    fanned_out: bool = False
    values: dict[str, Value] = field(default_factory=dict)
    fields_node: Map | None = None
    """The `with:` block with what `run:` adds to it."""

    @property
    def scripts(self) -> Mapping[str, Node]:
        """The fields that hold scripts, in which a `${` is just that."""
        found = _scripts(self.kind)
        given = self.fields_node.entries if self.fields_node else {}
        return {key: given[key].value for key in found if key in given}

    def entry(self, key: str) -> Entry | None:
        """A key of the stage with its value."""
        return self.node.entries.get(key)

    def place_of(self, *names: str) -> Place:
        """Where the value of the first of these keys stands that there is; else the stage."""
        found = next((entry for name in names if (entry := self.entry(name))), None)
        return found.place if found else self.place

    @property
    def fields_place(self) -> Place:
        """Where to point at for the `with:` block as a whole."""
        found = self.entry("with") or self.entry("run") or self.entry("uses")
        return found.key.place if found else self.place


def draft(name: str, entry: Entry, spec: StageSpec | None, kinds: Kinds, report: Report, *, last: bool) -> Draft:
    """Read one stage; what is wrong with it alone is reported."""
    node = entry.value if isinstance(entry.value, Map) else Map({}, entry.place)
    made = Draft(name, entry.key.place, node, spec or StageSpec(), last)
    if spec is None:
        made.items = None
        return made
    for key, found in node.entries.items():
        if key in not_built(StageSpec):
            report.add(found.key.place, f"`{key}:` is not built yet")
    _find_kind(made, kinds, report)
    made.fields_node = _fields_node(made, report)
    _read_values(made, report)
    _check_honoured(made, report)
    return made


# -- the kind --------------------------------------------------------------------------------------


def _find_kind(made: Draft, kinds: Kinds, report: Report) -> None:
    uses, run = made.entry("uses"), made.entry("run")
    if uses and run:
        report.add(run.key.place, "a stage has `uses:` or `run:`, not both")
    elif uses and isinstance(uses.value, Text):
        _take_kind(made, uses.value.value, kinds, report)
    elif run and isinstance(run.value, Text | List):
        _take_kind(made, SHELL, kinds, report)
    elif not uses and not run and set(made.node.entries) <= set(keys(StageSpec)):
        report.add(made.place, f"the stage '{made.name}' does nothing", "give it `run:`, or `uses:` and `with:`")


def _take_kind(made: Draft, name: str, kinds: Kinds, report: Report) -> None:
    made.kind_name = name
    place = made.place_of("uses", "run")
    if name == APPROVAL:
        _approval(made, report)
    elif name not in kinds:
        report.add(place, f"unknown kind '{name}'", nearest(name, [*kinds, APPROVAL]))
    else:
        _installed(made, kinds, place, report)


def _installed(made: Draft, kinds: Kinds, place: Place, report: Report) -> None:
    try:
        made.kind = kinds[made.kind_name]
    except PipeError as error:
        report.add(place, str(error))
        return
    if made.kind.inner:
        report.add(place, f"a file cannot use '{made.kind_name}': the program makes such stages itself")
    made.outputs = output_types(made.kind.outputs_model()) | dict.fromkeys(made.spec.outputs, "text")


def _approval(made: Draft, report: Report) -> None:
    report.add(made.place_of("uses"), "`uses: approval` is not built yet")
    fields = made.node.get("with") or Map({}, made.place)
    shaped = judge(Approval, as_map(plain(fields)), lambda _: False)
    for complaint in shaped.complaints:
        report.complain(fields, complaint, made.fields_place)
    inputs = dict(entries(made.node.get("with", "inputs")))
    made.outputs = {"by": "text", "at": "text", **dict.fromkeys(inputs, "any")}


def as_map(value: Form) -> dict[str, Form]:
    """The value if it is a map; anything else was reported by whoever checked the shape."""
    return value if isinstance(value, dict) else {}


# -- values ----------------------------------------------------------------------------------------


def _fields_node(made: Draft, report: Report) -> Map:
    given = made.node.get("with")
    fields = dict(given.entries) if isinstance(given, Map) else {}
    run = made.entry("run")
    if run is None or made.kind_name != SHELL or made.entry("uses"):
        return Map(fields, made.fields_place)
    for name in ("script", "argv"):
        if name in fields:
            report.add(fields[name].key.place, f"`run:` says it already: leave `{name}:` out")
    name = "script" if isinstance(run.value, Text) else "argv"
    return Map({**fields, name: Entry(run.key, run.value)}, run.key.place)


def _read_values(made: Draft, report: Report) -> None:
    for key, entry in made.node.entries.items():
        if key not in (*WITHOUT_NAMES, "each", "with") and key in keys(StageSpec):
            made.values[key] = read_value(entry.value, report)
    if made.fields_node:
        made.values["with"] = _read_fields(made.fields_node, _scripts(made.kind), report)
    if each := made.entry("each"):
        made.fanned_out = True
        made.items = None
        made.values["each"] = read_value(each.value, report)


def _read_fields(node: Map, scripts: frozenset[str], report: Report) -> Value:
    """The fields as one value; those that hold scripts stay as they are."""
    rest = read_value(Map({key: entry for key, entry in entries(node) if key not in scripts}, node.place), report)
    fixed = {key: literal(entry.value) for key, entry in entries(node) if key in scripts}
    return Value({**as_map(rest.form), **fixed}, rest.uses)


@cache
def _scripts(kind: Kind | None) -> frozenset[str]:
    fields = field_marks(kind) if kind else {}
    return frozenset(name for name, found in fields.items() if any(isinstance(mark, ScriptMark) for mark in found))


@cache
def field_marks(kind: Kind) -> Mapping[str, tuple[object, ...]]:
    """Everything that `Annotated` says about each field of a kind that has such a mark."""
    found = {name: (*info.metadata, *marks(info.annotation)) for name, info in kind.model_fields.items()}
    return {name: said for name, said in found.items() if said}


@cache
def secret_fields(model: type[BaseModel]) -> Mapping[tuple[str, ...], tuple[SecretKind, ...]]:
    """The fields that name secrets, by their paths in a `with:` block, and which kinds of secret each takes."""
    found: dict[tuple[str, ...], tuple[SecretKind, ...]] = {}
    for name, info in model.model_fields.items():
        said = (*info.metadata, *marks(info.annotation))
        if kinds := next((mark.kinds for mark in said if isinstance(mark, SecretRef)), None):
            found[name,] = kinds
        for inner in flat(info.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= {(name, *path): kinds for path, kinds in secret_fields(inner).items()}
    return found


def expand_each(made: Draft, form: Form, report: Report) -> None:
    """Take in what `each` holds once its names are filled."""
    entry = made.entry("each")
    if entry is None:
        return
    try:
        made.items = items(form)
    except FanOutError as error:
        place = place_at(entry.value, error.path, entry.place)
        report.add(place, str(error) if error.path else f"`each:` {error}", error.hint)


# -- what a kind cannot do -------------------------------------------------------------------------


def _check_honoured(made: Draft, report: Report) -> None:
    if made.kind is None:
        return
    for key, given in entries(made.fields_node):
        if FROM_PLAN in field_marks(made.kind).get(key, ()):
            report.add(given.key.place, f"`with:` has no `{key}:`", f"`{key}:` is a key of the pipeline")
    wants: Mapping[str, Callable[[Kind], bool]] = {
        "outputs": lambda _: made.kind_name == SHELL,
        "executor": lambda kind: kind.starts_processes,
        "services": lambda kind: kind.starts_processes,
        "resources": lambda kind: kind.starts_processes,
        "cache": lambda kind: kind.starts_processes,
    }
    for key, honoured in wants.items():
        entry = made.entry(key)
        if entry and not honoured(made.kind):
            report.add(entry.key.place, f"a stage of kind '{made.kind_name}' has no `{key}:`", _why[key])


_why: Final = {
    "outputs": "it is for `run:`; kinds declare their own outputs",
    "executor": "it is for kinds that start processes",
    "services": "they are for kinds that start processes",
    "resources": "they are for kinds that start processes",
    "cache": "it is for kinds that start processes",
}
