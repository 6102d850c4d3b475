"""`set:` of a stage as one more file of values: JSON, so that no value is ever read as something else."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy

from pydantic import JsonValue

from pipeline.stage import CauseKind, StageFailed

__all__ = ["values_text"]

_DOT = re.compile(r"(?<!\\)\.")


def values_text(*given: Mapping[str, JsonValue]) -> bytes:
    r"""The values that these name, nested; of two for one place the later one holds. Empty if there are none.

    Args:
        given: values by their path: `image.tag`; a dot within a name is written `\.`.

    Raises:
        StageFailed: (config) a path leads into a list, is empty in part, or into another's value.
    """
    nested: dict[str, JsonValue] = {}
    for values in given:
        for path, value in values.items():
            _put(nested, path, deepcopy(value))
    return json.dumps(nested).encode() if nested else b""


def _put(nested: dict[str, JsonValue], path: str, value: JsonValue) -> None:
    names = [name.replace("\\.", ".") for name in _DOT.split(path)]
    if "" in names or re.search(r"\[\d*\]", path):
        message = f"set: '{path}' is no path such as image.tag; a list is written as a whole: set: {{hosts: [a, b]}}"
        raise StageFailed(message, kind=CauseKind.CONFIG)
    place = nested
    for name in names[:-1]:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise StageFailed(f"set: '{path}' leads into a value that is set as well", kind=CauseKind.CONFIG)
        place = inner
    place[names[-1]] = value
