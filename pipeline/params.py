"""Parameters: where the value of each comes from, and whether it is one that the file allows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic import JsonValue

from pipeline.expressions import parse
from pipeline.source import Entry, Map
from pipeline.spec import ParamSpec
from pipeline.stage import UNSET
from pipeline.values import Report, entries, read_value

__all__ = ["Offered", "Unset", "check_defaults", "gather"]

Unset: TypeAlias = Literal["error", "placeholder"]
_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Offered:
    """What the call and its host offer: values by parameter, and variables."""

    params: Mapping[str, str]
    variables: Mapping[str, str]
    unset: Unset


def check_defaults(node: Map, specs: Mapping[str, ParamSpec], report: Report) -> None:
    """Report defaults that are no value of their parameter."""
    for name, spec, default in _defaults(node, specs):
        uses = read_value(default.value, report).uses
        for use in uses:
            report.add(use.place, f"a default is fixed: it cannot use `{use.name}`", "combine values in `vars:`")
        if not uses and (fault := _fault(spec, _default(spec))):
            report.add(default.place, f"the default of '{name}': {fault}")


def _defaults(node: Map, specs: Mapping[str, ParamSpec]) -> Iterator[tuple[str, ParamSpec, Entry]]:
    for name, entry in entries(node.get("params")):
        found = dict(entries(entry.value)).get("default")
        if found and name in specs and specs[name].default is not None:
            yield name, specs[name], found


def gather(node: Map, specs: Mapping[str, ParamSpec], offered: Offered, report: Report) -> dict[str, JsonValue]:
    """The value of every parameter; all that are missing or wrong are reported."""
    found: dict[str, JsonValue] = {}
    for name, entry in entries(node.get("params")):
        spec = specs[name]
        known = _offered(name, spec, offered)
        if known is None and offered.unset == "placeholder":
            found[name] = [UNSET] if spec.type == "list" else UNSET
        elif known is None:
            report.add(entry.key.place, f"the parameter '{name}' has no value", _ways(name, spec))
        else:
            found[name], origin = known
            if fault := _fault(spec, found[name]):
                report.add(entry.key.place, f"the parameter '{name}', from {origin}: {fault}")
    return found


def _offered(name: str, spec: ParamSpec, offered: Offered) -> tuple[JsonValue, str] | None:
    """The first value that there is, and where it is from."""
    if name in offered.params:
        return _converted(spec, offered.params[name]), "-p"
    if spec.env and spec.env in offered.variables:
        return _converted(spec, offered.variables[spec.env]), f"the variable {spec.env}"
    return (_default(spec), "its default") if spec.default is not None else None


def _ways(name: str, spec: ParamSpec) -> str:
    variable = f", or set the variable {spec.env}" if spec.env else ""
    about = f" ({spec.description})" if spec.description else ""
    return f"give it by -p {name}=VALUE{variable}{about}"


def _default(spec: ParamSpec) -> JsonValue:
    default: JsonValue = spec.default
    if isinstance(default, list):
        return [parse(item).form if isinstance(item, str) else item for item in default]
    return _converted(spec, parse(default).form if isinstance(default, str) else default)


def _converted(spec: ParamSpec, value: JsonValue) -> JsonValue:
    """A text as the type of its parameter; one that cannot be is left as it is."""
    if not isinstance(value, str):
        return value
    if spec.type == "list":
        return [part.strip() for part in value.split(",")] if value else []
    if spec.type == "bool" and value in ("true", "false"):
        return value == "true"
    return int(value) if spec.type == "int" and _INT.fullmatch(value) else value


_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "text": (str, "a text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "list": (list, "a list of texts"),
}


def _fault(spec: ParamSpec, value: JsonValue) -> str:
    """What is wrong with the value of a parameter; empty if nothing is."""
    wanted, words = _TYPES[spec.type]
    items = value if isinstance(value, list) else [value]
    if type(value) is not wanted or (wanted is list and not all(isinstance(item, str) for item in items)):
        return f"'{value}' is not {words}" if isinstance(value, str) else f"it must be {words}"
    for item in items:
        text = str(item).lower() if isinstance(item, bool) else str(item)
        if spec.choices and text not in spec.choices:
            return f"'{text}' is none of {', '.join(spec.choices)}"
        if spec.pattern is not None and not re.fullmatch(spec.pattern, text):
            return f"'{text}' does not match '{spec.pattern}'"
    return ""
