"""`${name.name}` in values: found once, filled as far as is known, and never looked for in what was filled in.

A *form* is a JSON value in which what is still open is tagged:
`{"$": ["registry/", {"ref": "stages.image.ref"}]}` is a text followed by a reference, and a reference
that stands alone keeps the type of its value. Texts in a form are final: `$$` became `$` when the file
was read, and a value that was filled in is never read again. A key of a map that consists of dollars
has one more of them in a form, so that no map can pass for a tag.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydantic import JsonValue

__all__ = [
    "TAG",
    "ExpressionError",
    "Fault",
    "Form",
    "Parsed",
    "Reference",
    "bind",
    "fill",
    "is_open",
    "names",
    "parse",
    "quote",
    "quoted_key",
    "scalar_text",
    "shown",
]

TAG: Final = "$"
Form: TypeAlias = JsonValue
_Part: TypeAlias = JsonValue

_MARK = re.compile(r"\$\$|\$\{([^{}\n]*)\}|\$\{")
NAME: Final = re.compile(r"[a-z]+\.[A-Za-z_]\w*(?:(?:\[[^\[\]]+\])?\.[A-Za-z_]\w*)?", re.ASCII)


class ExpressionError(ValueError):
    """A value cannot stand where its `${…}` stands."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in `${…}`, and where it starts in the text."""

    name: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a part of a text."""

    start: int
    length: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text of the file as a form."""

    form: Form
    references: tuple[Reference, ...] = ()
    faults: tuple[Fault, ...] = ()


def parse(text: str) -> Parsed:
    """Find the references of a text as written, and make its dollars plain."""
    if "$" not in text:
        return Parsed(text)
    parts: list[_Part] = []
    references: list[Reference] = []
    faults: list[Fault] = []
    end = 0
    for match in _MARK.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        name = match[1]
        if match[0] == "$$":
            parts.append("$")
        elif name is not None and NAME.fullmatch(name):
            parts.append({"ref": name})
            references.append(Reference(name, match.start(), len(match[0])))
        else:
            faults.append(_fault(match))
            parts.append(match[0])
    parts.append(text[end:])
    return Parsed(_template(parts), tuple(references), tuple(faults))


def _fault(match: re.Match[str]) -> Fault:
    start, length, inner = match.start(), len(match[0]), match[1]
    if inner is None:
        return Fault(start, length, "`${` is not closed by `}`", "for a dollar before a brace write `$${`")
    if NAME.fullmatch(inner.strip()):
        return Fault(start, length, f"`{match[0]}` has spaces inside", f"write `${{{inner.strip()}}}`")
    hint = "write `${name.name}`: no defaults, functions or operators; for a dollar before a brace write `$${`"
    return Fault(start, length, f"`{match[0]}` is no name", hint)


def quote(value: JsonValue) -> Form:
    """A plain value as a form."""
    if isinstance(value, list):
        return [quote(item) for item in value]
    if isinstance(value, dict):
        return {quoted_key(key): quote(item) for key, item in value.items()}
    return value


def is_open(form: Form) -> bool:
    """Whether something in it is still to be filled."""
    return next(names(form), None) is not None


def names(form: Form) -> Iterator[str]:
    """The names that are still open, as often as they occur."""
    if isinstance(form, list):
        for item in form:
            yield from names(item)
    elif isinstance(form, dict):
        parts = _parts(form)
        if parts is None:
            for item in form.values():
                yield from names(item)
        else:
            yield from (str(part["ref"]) for part in parts if isinstance(part, dict))


def bind(form: Form, known: Mapping[str, Form]) -> Form:
    """Fill in what is known; the rest stays open.

    Raises:
        ExpressionError: a list or map would have to stand inside a text.
    """
    if isinstance(form, list):
        return [bind(item, known) for item in form]
    if not isinstance(form, dict):
        return form
    parts = _parts(form)
    if parts is None:
        return {key: bind(item, known) for key, item in form.items()}
    if len(parts) == 1 and isinstance(parts[0], dict):
        return known.get(str(parts[0]["ref"]), form)
    filled: list[_Part] = []
    for part in parts:
        filled += _bound(part, known) if isinstance(part, dict) else [part]
    return _template(filled, beside_text=True)


def fill(value: Form, lookup: Callable[[str], JsonValue]) -> JsonValue:
    """The plain value of a form; `lookup` answers for every name that is still open.

    Raises:
        ExpressionError: a list, a map or no value would have to stand inside a text.
    """
    if isinstance(value, list):
        return [fill(item, lookup) for item in value]
    if not isinstance(value, dict):
        return value
    parts = _parts(value)
    if parts is None:
        return {_plain_key(key): fill(item, lookup) for key, item in value.items()}
    if len(parts) == 1 and isinstance(parts[0], dict):
        return lookup(str(parts[0]["ref"]))
    return "".join(_filled(part, lookup) for part in parts)


def shown(form: Form) -> JsonValue:
    """The form as a person would write it: what is open as `${…}`."""
    return fill(form, lambda name: f"${{{name}}}")


def scalar_text(value: JsonValue, name: str) -> str:
    """A scalar inside a text.

    Raises:
        ExpressionError: it is none.
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "a map" if isinstance(value, dict) else "no value"
        raise ExpressionError(f"`${{{name}}}` is {kind}, which cannot stand inside a text")
    return json.dumps(value)


# -- the tagged form -------------------------------------------------------------------------------


def _parts(form: Mapping[str, JsonValue]) -> Sequence[_Part] | None:
    tagged = form.get(TAG)
    return tagged if isinstance(tagged, list) and len(form) == 1 else None


def _template(parts: Sequence[_Part], *, beside_text: bool = False) -> Form:
    """Parts as a form, neighbouring texts joined. `beside_text`: what is left is a text even if it is one name."""
    joined: list[_Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    kept = [part for part in joined if part != ""]
    if all(isinstance(part, str) for part in kept):
        return "".join(map(str, kept))
    return {TAG: ["", *kept] if beside_text and len(kept) == 1 else kept}


def _bound(part: Mapping[str, JsonValue], known: Mapping[str, Form]) -> Sequence[_Part]:
    name = str(part["ref"])
    if name not in known:
        return [dict(part)]
    form = known[name]
    inner = _parts(form) if isinstance(form, dict) else None
    return list(inner) if inner is not None else [scalar_text(form, name)]


def _filled(part: _Part, lookup: Callable[[str], JsonValue]) -> str:
    if isinstance(part, dict):
        name = str(part["ref"])
        return scalar_text(lookup(name), name)
    return str(part)


def quoted_key(key: str) -> str:
    """A key of a map as it stands in a form."""
    return key + TAG if key and not key.strip(TAG) else key


def _plain_key(key: str) -> str:
    return key[:-1] if len(key) > 1 and not key.strip(TAG) else key
