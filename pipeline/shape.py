"""Values against the models that say what they may be: every complaint in the author's words, at its path.

Scalars arrive as text and the model's field decides what they are. What holds an open `${…}` is left
out of the judgement until it is known.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import nearest, quoted
from pipeline.expressions import Form, is_open

__all__ = ["Complaint", "Path", "Shaped", "at_path", "flat", "judge", "keys", "marks", "open_in"]

Path: TypeAlias = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)
ROUNDS: Final = 8
MOST: Final = 100
"""Complaints of one round that are worded; nobody reads more."""
_HERE: Final = -1
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with the value at a path, or with its key."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    missing: str = ""
    """The key that should be there and is not."""
    empty: bool = False
    """Something should be in it and is not."""
    structural: bool = False
    """A list, map or text stands where another of them should, whatever is in it."""


@dataclass(frozen=True, slots=True)
class Shaped(Generic[ModelT]):
    """The model of what is right (None if nothing is left of it), and what is wrong."""

    model: ModelT | None
    complaints: tuple[Complaint, ...]


def judge(
    model: type[ModelT], values: Mapping[str, JsonValue], open_at: Callable[[Path], bool] = lambda _: False
) -> Shaped[ModelT]:
    """Read values as a model. What is wrong, or still open, is taken out so that the rest can be read."""
    rest: dict[str, JsonValue] = dict(values)
    complaints: dict[Complaint, None] = {}
    for _ in range(ROUNDS):
        try:
            made = model.model_validate(rest)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            found = _of_their_forms(_complaints(model, rest, errors[:MOST]))
            complaints.update((item, None) for item in found if not _excused(item, rest, dict(values), open_at))
            paths = [_path(rest, details["loc"])[0] for details in errors]
            if () in paths:
                return Shaped(None, tuple(complaints))
            rest = _without(rest, paths)
        else:
            complaints.update((item, None) for item in _strict(made, rest))
            return Shaped(made, tuple(complaints))
    return Shaped(None, tuple(complaints))


def _of_their_forms(found: Sequence[Complaint]) -> list[Complaint]:
    """Without those that want another form of a value: it has one of its forms, if something is wrong inside of it."""
    paths = [(*each.path, each.missing) if each.missing else each.path for each in found]
    holders = {path[:depth] for path in paths for depth in range(len(path))}
    return [each for each in found if not (each.structural and each.path in holders)]


def _excused(complaint: Complaint, rest: JsonValue, values: JsonValue, open_at: Callable[[Path], bool]) -> bool:
    """It is about something open, or about what was taken out or reported before."""
    if complaint.empty:
        return bool(at_path(values, complaint.path))
    if complaint.missing:
        holder = at_path(values, complaint.path)
        return isinstance(holder, dict) and complaint.missing in holder
    if complaint.at_key:
        return False
    given = at_path(rest, complaint.path)
    return given is None or (open_at(complaint.path) and not (complaint.structural and isinstance(given, dict | list)))


def open_in(forms: Form) -> Callable[[Path], bool]:
    """Whether something at or below a path of these forms is still open."""
    return lambda path: is_open(at_path(forms, path))


def at_path(values: JsonValue, path: Path) -> JsonValue:
    """The value at a path, or that of the last part of it which there is."""
    for part in path:
        if isinstance(values, dict) and part in values:
            values = values[str(part)]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            break
    return values


def _without(values: Mapping[str, JsonValue], paths: Iterable[Path]) -> dict[str, JsonValue]:
    """A copy without the values at these paths."""
    cuts: dict[str | int, Any] = {}
    for path in paths:
        here = cuts
        for part in path[:-1]:
            here = here.setdefault(part, {})
        if path:
            here[path[-1]] = here.get(path[-1], {}) | {_HERE: True}
    return _without_cuts(values, cuts)


def _cut(value: JsonValue, cuts: Mapping[str | int, Any]) -> JsonValue:
    if not cuts:
        return value
    if isinstance(value, list):
        kept = [(cuts.get(index, {}), item) for index, item in enumerate(value)]
        return [_cut(item, inner) for inner, item in kept if _HERE not in inner]
    return _without_cuts(value, cuts) if isinstance(value, dict) else value


def _without_cuts(value: Mapping[str, JsonValue], cuts: Mapping[str | int, Any]) -> dict[str, JsonValue]:
    return {key: _cut(item, cuts.get(key, {})) for key, item in value.items() if _HERE not in cuts.get(key, {})}


# -- annotations -----------------------------------------------------------------------------------


def flat(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from flat(get_args(annotation)[0])
    elif origin is Union or str(origin) == "<class 'types.UnionType'>":
        for part in get_args(annotation):
            yield from flat(part)
    else:
        yield annotation


def marks(annotation: Any) -> Iterator[Any]:
    """Everything that `Annotated` says anywhere in an annotation."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for part in get_args(annotation):
        yield from marks(part)


@cache
def keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys that a model takes, as they are written."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


@cache
def _names(model: type[BaseModel]) -> Mapping[str, str]:
    """The key of each field, as it is written, to the field's name."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _model_at(model: type[BaseModel], path: Sequence[object]) -> type[BaseModel] | None:
    """The model that judges the value at a pydantic location."""
    here: list[Any] = [model]
    for part in path:
        here = [inner for annotation in here for inner in _step(annotation, part)] or here
    return next((item for item in here if isinstance(item, type) and issubclass(item, BaseModel)), None)


def _step(annotation: Any, part: object) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (field.alias, name):
                yield from flat(field.annotation)
        return
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(part, str):
        yield from flat(arguments[1])
    elif isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(part, int):
        yield from flat(arguments[0])


# -- words -----------------------------------------------------------------------------------------


def _complaints(
    model: type[BaseModel], values: dict[str, JsonValue], errors: Sequence[ErrorDetails]
) -> list[Complaint]:
    """A complaint for each error; those that want several forms of one value all say the same."""
    wanted: dict[Path, dict[str, None]] = {}
    for details in errors:
        if form := _WANTED.get(details["type"]):
            wanted.setdefault(_path(values, details["loc"])[0], {})[form] = None
    return [_complaint(model, values, details, wanted) for details in errors]


def _complaint(
    model: type[BaseModel],
    values: dict[str, JsonValue],
    details: ErrorDetails,
    wanted: Mapping[Path, Iterable[str]],
) -> Complaint:
    location = details["loc"]
    path, at_key = _path(values, location)
    kind = details["type"]
    if kind == "extra_forbidden":
        holder = _model_at(model, location[:-1])
        known = keys(holder) if holder else ()
        return Complaint(path, f"unknown key '{location[-1]}'", nearest(str(location[-1]), known), at_key=True)
    if kind == "missing":
        return Complaint(path, f"`{location[-1]}:` is missing", at_key=True, missing=str(location[-1]))
    if kind in _WANTED:
        message, hint = _unfit(tuple(wanted[path]), details["input"])
    else:
        message, hint = _words(details)
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    message = message if at_key or not key else f"`{key}:` {message}"
    return Complaint(path, message, hint, at_key=at_key, empty=kind == "too_short", structural=kind in _WANTED)


def _path(values: JsonValue, location: Sequence[object]) -> tuple[Path, bool]:
    """The part of a pydantic location that is in the values; the rest are names of models and alternatives."""
    path: list[str | int] = []
    for part in location:
        if isinstance(part, str | int) and _has(values, part):
            values = at_path(values, (part,))
            path.append(part)
    return tuple(path), location[-1:] == ("[key]",)


def _has(values: JsonValue, part: str | int) -> bool:
    if isinstance(values, list):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, dict) and part in values


_WANTED = {
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a map",
    "mapping_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}


def _unfit(wanted: Sequence[str], given: object) -> tuple[str, str]:
    message = f"must be {' or '.join(wanted)}, not {_described(given)}"
    if wanted == ("a list",) and isinstance(given, str) and given:
        return message, f"write `[{quoted(given)}]`"
    return message, ""


def _words(details: ErrorDetails) -> tuple[str, str]:
    kind, given = details["type"], details["input"]
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", details["ctx"]["expected"])
        return f"{_described(given)} is none of {', '.join(choices)}", _close(given, choices)
    if kind == "value_error":
        return str(details["ctx"]["error"]), ""
    if kind == "too_short":
        return "must not be empty", ""
    message = details["msg"].removeprefix("Input ")
    return f"{message}, not {_described(given)}" if isinstance(given, str | int) else message, ""


def _close(given: object, choices: Sequence[str]) -> str:
    hint = nearest(str(given), choices)
    return hint if hint.startswith("did") else ""


def _described(given: object) -> str:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, str):
        return f"'{given}'"
    if isinstance(given, list | tuple):
        return "a list"
    return "a map" if isinstance(given, dict) else str(given)


# -- stricter than pydantic ------------------------------------------------------------------------


def _strict(made: BaseModel, values: Mapping[str, JsonValue]) -> Iterator[Complaint]:
    """Texts that pydantic takes for a boolean or a number and the language does not: `yes`, `1_000`, ` 5`."""
    names = _names(type(made))
    for key, given in values.items():
        if not isinstance(given, str) or key not in names:
            continue
        taken = getattr(made, names[key])
        if type(taken) is bool and given not in ("true", "false"):
            yield Complaint((key,), f"`{key}:` must be true or false, not '{given}'")
        elif type(taken) is int and not _INT.fullmatch(given):
            yield Complaint((key,), f"`{key}:` must be a whole number, not '{given}'")
