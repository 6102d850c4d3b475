"""Which names a value or a condition may use, of which type they are, and what they stand for as far as is known."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue

from pipeline.conditions import Type
from pipeline.errors import nearest
from pipeline.expressions import Form, names
from pipeline.plan import Trigger
from pipeline.shape import flat
from pipeline.stage import UNSET

__all__ = ["ROOTS", "Binding", "Scope", "UnknownName", "output_types", "type_of"]

ROOTS: Final = ("params", "vars", "pipeline", "run", "trigger", "each", "stages")

_FIXED: Final[Mapping[str, Mapping[str, Type]]] = {
    "pipeline": {"name": "text"},
    "run": {"number": "int", "id": "text", "url": "text"},
    "trigger": {name: "bool" if info.annotation is bool else "text" for name, info in Trigger.model_fields.items()},
}
LAST: Final[Mapping[str, Type]] = {"outcome": "text", "previous": "text"}
"""What `run.` has in `finally` alone."""


class UnknownName(Exception):
    """A name that means nothing here, and the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Binding:
    """What a name stands for: its type, and its form if that is known (open forms may be inside)."""

    type: Type
    form: Form | None = None


@dataclass(frozen=True)
class Scope:
    """The names of one pipeline that do not depend on a stage."""

    params: Mapping[str, Binding]
    fixed: Mapping[str, Form] = field(default_factory=dict)
    """`run.number` and the like, when they are known."""
    variables: dict[str, Binding] = field(default_factory=dict)
    """Filled from the top: a var sees those above it."""
    later: Sequence[str] = ()
    """All vars of the pipeline."""

    def find(self, name: str, *, last: bool = False) -> Binding:
        """What a name outside of `each` and `stages` stands for.

        Raises:
            UnknownName: nothing.
        """
        root, _, rest = name.partition(".")
        if not rest:
            raise UnknownName(f"`{name}` is no name", f"write `{name}.NAME`")
        if root == "params":
            return self._of(name, rest, self.params, "parameter")
        if root == "vars":
            if rest in self.later and rest not in self.variables:
                raise UnknownName(f"`{name}` stands further down", "a var may use those above it")
            return self._of(name, rest, self.variables, "var")
        if root not in _FIXED:
            hint = nearest(root, ROOTS)
            raise UnknownName(
                f"unknown name `{name}`",
                hint
                if hint.startswith("did")
                else f"names begin with {', '.join(ROOTS)}; for `${{` itself write `$${{`",
            )
        known = {**_FIXED[root], **(LAST if root == "run" else {})}
        if rest in LAST and root == "run" and not last:
            raise UnknownName(f"`{name}` is known in `finally` only")
        if rest not in known:
            raise UnknownName(f"unknown name `{name}`", nearest(rest, known))
        return Binding(known[rest], self.fixed.get(name))

    @staticmethod
    def _of(name: str, key: str, known: Mapping[str, Binding], word: str) -> Binding:
        if key not in known:
            raise UnknownName(f"unknown name `{name}`", nearest(key, known) or f"there is no {word}")
        return known[key]


def type_of(form: Form, types: Mapping[str, Type]) -> Type:
    """The type that a form has or will have; `types` knows the names that are open in it."""
    if isinstance(form, list):
        return "list"
    if isinstance(form, bool):
        return "bool"
    if isinstance(form, int):
        return "int"
    if isinstance(form, dict):
        parts = form.get("$")
        if not isinstance(parts, list):
            return "map"
        if len(parts) == 1:
            return types.get(next(names(form)), "any")
    return "text"


def output_types(model: type[BaseModel]) -> dict[str, Type]:
    """The outputs of a kind with their types."""
    return {name: _annotated(info.annotation) for name, info in model.model_fields.items()}


_PLAIN: Final[Mapping[Any, Type]] = {str: "text", bool: "bool", int: "int", float: "float", timedelta: "text"}


def _annotated(annotation: Any) -> Type:
    found = {_single(part) for part in flat(annotation)}
    return found.pop() if len(found) == 1 else "any"


def _single(annotation: Any) -> Type:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return "text" if all(isinstance(choice, str) for choice in get_args(annotation)) else "any"
    if isinstance(origin, type):
        if issubclass(origin, enum.StrEnum):
            return "text"
        if issubclass(origin, Mapping | BaseModel):
            return "map"
        if issubclass(origin, Sequence | set | frozenset):
            return "list"
    return "any"


def contains_unset(value: JsonValue) -> bool:
    """Whether a host variable that is not set shows through in a value."""
    if isinstance(value, str):
        return UNSET in value
    if isinstance(value, list):
        return any(map(contains_unset, value))
    return isinstance(value, dict) and any(map(contains_unset, value.values()))
