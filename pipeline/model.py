"""A pipeline file as written: read once, checked as a whole, every problem in it reported together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.draft import WITHOUT_NAMES, Kinds, as_map
from pipeline.errors import InvalidPipeline, Place, nearest
from pipeline.expressions import Form
from pipeline.layout import Given, Layout
from pipeline.params import check_defaults
from pipeline.shape import Path, at_path, judge, keys
from pipeline.source import Entry, Map, Node, Source, Text, plain
from pipeline.spec import INHERITED, PipelineSpec
from pipeline.triggers import circle
from pipeline.values import Report, overlaid

__all__ = ["Kinds", "Pipeline", "PipelineFile", "read"]

PIPELINES: Final = "pipelines"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline with what it inherits: its tree, and the shape that was found in it."""

    name: str
    node: Map
    spec: PipelineSpec
    place: Place


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """The pipelines of a file, by name, in the order of the file."""

    name: str
    pipelines: Mapping[str, Pipeline]
    digest: str = ""
    """SHA-256 of the file's bytes, in hex."""


def read(source: Source, kinds: Kinds) -> PipelineFile:
    """Check a file against the language and the installed kinds.

    Raises:
        InvalidPipeline: everything that is wrong with it.
    """
    report = Report(dict.fromkeys(source.problems))
    if source.root is None:
        raise InvalidPipeline(report.problems)
    found = {}
    for name, node, place in _pipelines(source.root, report):
        spec = _shape(name, node, report)
        if spec:
            check_defaults(node, spec.params, report)
            found[name] = Pipeline(name, node, spec, place)
            Layout(name, node, spec, kinds, Given(), report)
    if around := circle({name: pipeline.spec for name, pipeline in found.items()}):
        message = f"`triggers:` go round for ever: {' waits for '.join(around)}"
        report.add(found[around[0]].place, message, "let one of them start by something else")
    if report.problems:
        raise InvalidPipeline(report.problems)
    return PipelineFile(source.name, found, source.digest)


# -- one or several --------------------------------------------------------------------------------


def _pipelines(root: Map, report: Report) -> Iterator[tuple[str, Map, Place]]:
    """Each pipeline's name and tree, with what it inherits and what its stages take from `defaults:`."""
    rest = Map({key: entry for key, entry in root.entries.items() if not key.startswith("x-")}, root.place)
    several = root.entries.get(PIPELINES)
    if several is None:
        given = rest.get("name")
        yield given.value if isinstance(given, Text) else "pipeline", _with_defaults(rest), root.place
        return
    _check_top(rest, report)
    shared = Map({key: entry for key, entry in rest.entries.items() if key in INHERITED}, root.place)
    if not isinstance(several.value, Map) or not several.value.entries:
        report.add(several.key.place, "`pipelines:` must be a map of a name to a pipeline")
        return
    for name, entry in several.value.entries.items():
        if not isinstance(entry.value, Map):
            report.add(entry.key.place, f"the pipeline '{name}' must be a map with `stages:`")
        elif own_name := entry.value.entries.get("name"):
            report.add(own_name.key.place, f"unknown key 'name': the name of this pipeline is '{name}'")
        else:
            named = Entry(Text("name", entry.key.place), entry.key)
            node = _inheriting(shared, entry.value)
            yield name, _with_defaults(Map({"name": named, **node.entries}, entry.key.place)), entry.key.place


def _check_top(rest: Map, report: Report) -> None:
    for key, entry in rest.entries.items():
        if key in (PIPELINES, *INHERITED):
            continue
        if key in keys(PipelineSpec):
            report.add(entry.key.place, f"`{key}:` beside `pipelines:` belongs to no pipeline", "move it into one")
        else:
            report.add(entry.key.place, f"unknown key '{key}'", nearest(key, (PIPELINES, *INHERITED)))


def _inheriting(shared: Map, own: Map) -> Map:
    """A pipeline with the shared entries that it does not have itself."""
    merged = dict(own.entries)
    for key, entry in shared.entries.items():
        mine = own.entries.get(key)
        both = overlaid(entry.value, mine.value if mine else None)
        merged[key] = Entry(mine.key if mine else entry.key, both or entry.value)
    return Map(merged, own.place)


def _with_defaults(node: Map) -> Map:
    """A pipeline whose stages have what `defaults:` says and they do not."""
    defaults = node.get("defaults")
    if not isinstance(defaults, Map):
        return node
    merged = dict(node.entries)
    for key in ("stages", "finally"):
        stages = node.get(key)
        if isinstance(stages, Map):
            made = {name: Entry(entry.key, _stage(defaults, entry.value)) for name, entry in stages.entries.items()}
            merged[key] = Entry(node.entries[key].key, Map(made, stages.place))
    return Map(merged, node.place)


def _stage(defaults: Map, stage: Node) -> Node:
    return (overlaid(defaults, stage) or stage) if isinstance(stage, Map) else stage


# -- shape -----------------------------------------------------------------------------------------


def _shape(name: str, node: Map, report: Report) -> PipelineSpec | None:
    """What is sound in the tree, as a model; what is not is reported."""
    values = {"name": name, **as_map(plain(node))}
    if "name" not in node.entries:
        report.add(
            node.place, "`name:` is missing", "a file has one pipeline with a `name:`, or several in `pipelines:`"
        )
    shaped = judge(PipelineSpec, values, lambda path: _has_names(values, path))
    for complaint in shaped.complaints:
        report.complain(node, complaint, node.place)
    return shaped.model


def _has_names(values: Form, path: Path) -> bool:
    """Whether a value may have `${…}` and has: what it is cannot be judged before they are filled."""
    in_stage = len(path) > 2 and path[0] in ("stages", "finally")
    return not (in_stage and path[2] in WITHOUT_NAMES) and _has_mark(at_path(values, path))


def _has_mark(value: Form) -> bool:
    if isinstance(value, str):
        return "${" in value or "$$" in value
    if isinstance(value, dict):
        return any(map(_has_mark, value.values()))
    return isinstance(value, list) and any(map(_has_mark, value))
