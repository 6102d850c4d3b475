"""`when:` in CEL: the names in a condition, whether it is sound, and what it says; no other module knows CEL."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import JsonValue

from pipeline.expressions import Fault

if TYPE_CHECKING:
    from cel_expr_python import cel

__all__ = ["ConditionError", "Type", "Use", "check", "check_syntax", "evaluate", "uses", "value"]

Type: TypeAlias = Literal["text", "bool", "int", "float", "list", "map", "any"]

_CEL_TYPES: Final[Mapping[Type, str]] = {
    "text": "STRING",
    "bool": "BOOL",
    "int": "INT",
    "float": "DOUBLE",
    "list": "LIST",
    "map": "MAP",
    "any": "DYN",
}
_ROOTS: Final = frozenset({"params", "vars", "pipeline", "run", "trigger", "each", "stages"})

_RAW = r"""[rR][bB]?(?:"[^"\n]*"|'[^'\n]*')"""
_LONG = r"""[bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3})"""
_SHORT = r"""[bB]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
_STRING = f"{_RAW}|{_LONG}|{_SHORT}"
_TOKEN = re.compile(rf"//[^\n]*|(?P<string>{_STRING})|(?P<word>[A-Za-z_]\w*)|(?P<space>\s+)|.", re.DOTALL | re.ASCII)
_FIELD = re.compile(r"\s*\.\s*(?P<name>[A-Za-z_]\w*)(?P<call>\s*\()?", re.ASCII)
_KEY = re.compile(r"""\s*\[\s*(?:'(?P<single>[^'\\\n]*)'|"(?P<double>[^"\\\n]*)")\s*\]""")
_ERROR = re.compile(r"ERROR: [^:]*:(\d+):(\d+): ([^\n]*)")


class ConditionError(Exception):
    """A condition could not be evaluated, or is not true or false."""


@dataclass(frozen=True, slots=True)
class Use:
    """A name in a condition: `params.only`, `stages.push.ref` or `stages.push[nacos].ref`, and where it stands."""

    name: str
    start: int
    end: int


def uses(text: str) -> tuple[Use, ...]:
    """Every use of a root, in order; a root without a field is reported by its own word."""
    return tuple(_uses(text))


def check(text: str, types: Mapping[str, Type], *, any_type: bool = False) -> tuple[Fault, ...]:
    """What CEL finds wrong, with the names of `types` declared. `any_type`: it need not be true or false."""
    try:
        made = _compiled(text, tuple(sorted(types.items())))
    except RuntimeError as error:
        return tuple(_faults(text, str(error)))
    said = made.return_type().name()
    if any_type or said in ("BOOL", "DYN"):
        return ()
    return (Fault(0, len(text), f"a condition is true or false, this is {_WORDS.get(said, said.lower())}"),)


def check_syntax(text: str) -> tuple[Fault, ...]:
    """What CEL finds wrong whatever its names mean."""
    from cel_expr_python import cel

    try:
        cel.NewEnv().compile(text, disable_check=True)
    except RuntimeError as error:
        return tuple(_faults(text, str(error)))
    return ()


def evaluate(text: str, names: Mapping[str, JsonValue]) -> bool:
    """Whether the condition holds for these values of its names.

    Raises:
        ConditionError: it cannot be evaluated, or says neither true nor false.
    """
    found = value(text, names)
    if not isinstance(found, bool):
        raise ConditionError(f"it is neither true nor false but {found!r}")
    return found


def value(text: str, names: Mapping[str, JsonValue]) -> JsonValue:
    """What an expression says for these values of its names.

    Raises:
        ConditionError: it cannot be evaluated.
    """
    from cel_expr_python import cel

    types: tuple[tuple[str, Type], ...] = tuple((name, "any") for name in sorted(names))
    try:
        made = _compiled(text, types)
        result = made.eval(data={_identifier(name, position): names[name] for position, (name, _) in enumerate(types)})
    except RuntimeError as error:
        raise ConditionError(next(_faults(text, str(error))).message) from None
    if result.type() == cel.Type.ERROR:
        raise ConditionError(_run_time_words(text, _first_line(str(result.value()))))
    found: JsonValue = result.plain_value()
    return found


# -- names -----------------------------------------------------------------------------------------


def _uses(text: str) -> Iterator[Use]:
    after_dot = False
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match["word"] in _ROOTS and not after_dot:
            use = _use(text, match)
            position = use.end
            yield use
        if not match["space"]:
            after_dot = match[0] == "."


def _use(text: str, root: re.Match[str]) -> Use:
    name, end = root[0], root.end()
    fields = 0
    while fields < (2 if root[0] == "stages" else 1):
        key = _KEY.match(text, end) if fields == 1 else None
        field = _FIELD.match(text, key.end() if key else end)
        if not field or field["call"]:
            break
        if key:
            name += f"[{key['single'] or key['double'] or ''}]"
        name += f".{field['name']}"
        end = field.end()
        fields += 1
    return Use(name, root.start(), end)


def _identifier(name: str, position: int) -> str:
    """What CEL knows a name by: dotted names are its own, a leaf's key becomes a field that no output can have."""
    stage, bracket, rest = name.partition("[")
    return f"{stage}._{position}{rest.rpartition(']')[2]}" if bracket else name


# -- CEL -------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _compiled(text: str, types: tuple[tuple[str, Type], ...]) -> "cel.Expression":
    from cel_expr_python import cel

    positions = {name: position for position, (name, _) in enumerate(types)}
    declared = {_identifier(name, positions[name]): getattr(cel.Type, _CEL_TYPES[type_]) for name, type_ in types}
    return cel.NewEnv(variables=declared).compile(_rewritten(text, positions))


def _rewritten(text: str, positions: Mapping[str, int]) -> str:
    """The text with leaf keys as identifiers, every other character in its column."""
    for use in reversed(uses(text)):
        if "[" in use.name and use.name in positions:
            identifier = _identifier(use.name, positions[use.name])
            head, _, output = identifier.rpartition(".")
            padding = " " * (use.end - use.start - len(identifier))
            text = f"{text[: use.start]}{head}{padding}.{output}{text[use.end :]}"
    return text


def _faults(text: str, said: str) -> Iterator[Fault]:
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    found = False
    for line, column, message in _ERROR.findall(said):
        if "*error*" in message or "<<nil>>" in message:  # what follows from another error
            continue
        found = True
        start = min(starts[min(int(line), len(starts)) - 1] + int(column) - 1, len(text))
        word = re.match(r"\w+(?:\.\w+)*", text[start:])
        words = _plain_words(message)
        hint = f"names begin with {', '.join(sorted(_ROOTS))}" if words.startswith("unknown name") else ""
        yield Fault(start, len(word[0]) if word else 1, words, hint)
    if not found:
        yield Fault(0, len(text), _first_line(said))


_WORDS = {"STRING": "a text", "INT": "a number", "DOUBLE": "a number", "NULL": "null"}
_OPERATORS = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%", "_?_:_": "? :", "!_": "!", "-_": "-"}
_OPERATORS |= {f"_{sign}_": sign for sign in ("==", "!=", "<", "<=", ">", ">=", "&&", "||", "in")} | {"@in": "in"}
_TYPE_WORDS = {"string": "text", "double": "float", "list(dyn)": "list", "map(dyn, dyn)": "map"}


def _plain_words(message: str) -> str:
    if match := re.fullmatch(r"found no matching overload for '(.+)' applied to '(.*)'", message):
        given = re.sub(r"\^?[a-z]+(\([a-z, ]*\))?", lambda word: _TYPE_WORDS.get(word[0], word[0]), match[2])
        return f"`{_OPERATORS.get(match[1], match[1])}` cannot take {given}"
    if match := re.match(r"undeclared reference to '([^']*)'", message):
        return f"unknown name '{match[1]}'"
    if match := re.match(r"Syntax error: (.*?)(?: expecting .*)?$", message):
        said = match[1].replace("mismatched input '<EOF>'", "it ends too early")
        return f"not valid CEL: {said}"
    return message


def _run_time_words(text: str, said: str) -> str:
    """What is wrong with the values of an expression that was sound."""
    if match := re.fullmatch(r'Key not found in map : "(.*)"', said):
        key = re.escape(match[1])
        owner = re.search(rf"""([A-Za-z_][\w.\[\]'"-]*?)(?:\.{key}\b|\[(['"]){key}\2\])""", text, re.ASCII)
        return f"{owner[1] if owner else 'a map in it'} has no '{match[1]}'"
    if "SELECT to non-message type" in said:
        return "a field is asked of something that has none"
    if match := re.fullmatch(r"Index error: index=(-?\d+) size=(\d+)", said):
        return f"a list of {match[2]} has no item {match[1]}"
    if match := re.fullmatch(r"No matching overloads found : _?([^(]+?)_?\((.*)\)", said):
        return f"`{match[1]}` cannot take {match[2]}"
    return said


def _first_line(said: str) -> str:
    """CEL's own words without its marks: `INVALID_ARGUMENT: ERROR: <input>:1:5: what [INVALID_ARGUMENT]`."""
    line = said.partition("\n")[0]
    return re.sub(r"^(?:[A-Z_]+: )*(?:<input>:-?\d+:-?\d+: )?|\.? \[[A-Z_]+\]$|\.$", "", line)
