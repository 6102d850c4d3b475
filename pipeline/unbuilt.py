"""Keys of a pipeline that no program honours yet: they are refused, and still everything in them is checked."""

from pipeline.scope import Scope, UnknownName
from pipeline.source import Map
from pipeline.spec import PipelineSpec, not_built
from pipeline.values import Report, entries, read_value

__all__ = ["check_unbuilt"]


def check_unbuilt(node: Map, scope: Scope, report: Report) -> None:
    """Report the keys, and the names in them that mean nothing."""
    for key, entry in entries(node):
        if key not in not_built(PipelineSpec):
            continue
        report.add(entry.key.place, f"`{key}:` is not built yet")
        for use in read_value(entry.value, report).uses:
            try:
                scope.find(use.name)
            except UnknownName as error:
                report.add(use.place, str(error), error.hint)
