"""Keys of a pipeline that no program honours yet: they are refused, and still everything in them is checked."""

from collections.abc import Iterator, Mapping
from typing import Final

from pipeline import conditions
from pipeline.errors import nearest
from pipeline.scope import Scope, UnknownName
from pipeline.source import List, Map, Text
from pipeline.spec import PipelineSpec, not_built
from pipeline.values import Report, Use, entries, read_value

__all__ = ["check_unbuilt"]

_PAYLOAD: Final[Mapping[str, conditions.Type]] = {"body": "any", "headers": "any"}


def check_unbuilt(node: Map, spec: PipelineSpec, scope: Scope, report: Report) -> None:
    """Report the keys, and the names in them that mean nothing."""
    for key, entry in entries(node):
        if key not in not_built(PipelineSpec):
            continue
        report.add(entry.key.place, f"`{key}:` is not built yet")
        for use in read_value(entry.value, report).uses:
            try:
                if key == "triggers":
                    _check_trigger_name(use, spec)
                scope.find(use.name)
            except UnknownName as error:
                report.add(use.place, str(error), error.hint)
    for word, trigger in _triggers(node):
        _check_trigger(word, trigger, node, report)


def _check_trigger_name(use: Use, spec: PipelineSpec) -> None:
    """A trigger is looked at before there is a run: nothing that a run decides can be in it."""
    root, _, name = use.name.partition(".")
    param = spec.params.get(name) if root == "params" else None
    if root == "trigger" and "params" in use.path:
        return
    if param and param.default is None and param.env is None:
        raise UnknownName(f"`triggers:` may use params with a default, and '{name}' has none")
    if root != "params":
        raise UnknownName(f"`triggers:` cannot use `{use.name}`", "use params, and in its `params:` also `trigger.`")


def _triggers(node: Map) -> Iterator[tuple[str, Map]]:
    for word, entry in entries(node.get("triggers")):
        found = entry.value.items if isinstance(entry.value, List) else [entry.value]
        yield from ((word, item) for item in found if isinstance(item, Map))


def _check_trigger(word: str, trigger: Map, node: Map, report: Report) -> None:
    declared = dict(entries(node.get("params")))
    for name, entry in entries(trigger.get("params")):
        if name not in declared:
            report.add(entry.key.place, f"there is no parameter '{name}'", nearest(name, declared))
    if word == "webhook":
        values = [entry.value for _, entry in entries(trigger.get("values"))]
        for text in (trigger.get("when"), *values):
            if isinstance(text, Text):
                _check_payload(text, report)


def _check_payload(text: Text, report: Report) -> None:
    for fault in conditions.check(text.value, _PAYLOAD, any_type=True):
        report.add(text.at(fault.start, fault.length), fault.message, "names begin with body, headers")
