"""What a plain YAML scalar means to kubectl, and the variables inside of scalars."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

__all__ = ["PLAIN", "Loader", "Variables", "plain"]

PLAIN = "!plain"
"""The tag of unquoted scalars."""
_WORDS: dict[str, bool | None] = {
    **{word: True for text in ("y", "yes", "true", "on") for word in (text, text.capitalize(), text.upper())},
    **{word: False for text in ("n", "no", "false", "off") for word in (text, text.capitalize(), text.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = (16, 2, 8, 10)

_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def plain(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar.

    The rules are those of go.yaml.in/yaml/v2 `resolve.go`, which kubectl reads with: YAML 1.1 words, no
    base-60 numbers; dates stay text because Kubernetes has no other type for them.
    """
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isascii() or text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        sign, *forms = match.groups()
        return next(int(sign + form, base) for form, base in zip(forms, _BASES, strict=True) if form is not None)
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        return int(number) if number.is_integer() and abs(number) < 1e18 else number
    return text


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Gives every unquoted scalar the tag `!plain`, so that it can be told from a quoted one."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012
        None: [(PLAIN, re.compile(""))]
    }


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables that manifests may name; `only` limits which names are looked at, None means all."""

    values: Mapping[str, str]
    only: frozenset[str] | None = None

    def replace(self, text: str) -> str:
        """Put values for `$NAME` and `${NAME}`; `$$` is a dollar, any other `$` itself. Unset names stay."""
        return _VARIABLE.sub(self._one, text) if "$" in text else text

    def alone(self, text: str) -> str | int | bool | None:
        """The value where the text is one variable and nothing else, read as a number or bool; else None."""
        match = _VARIABLE.fullmatch(text)
        if match is None or match[0] == "$$":
            return None
        value = self._one(match)
        if value == match[0] or value not in ("true", "false"):
            return int(value) if _DECIMAL.fullmatch(value) else value
        return value == "true"

    def unset(self, text: str) -> Iterator[tuple[str, int]]:
        """The names in the text that have no value, each with its offset."""
        for match in _VARIABLE.finditer(text):
            name = match[1] or match[2]
            if name and self._wanted(name) and name not in self.values:
                yield name, match.start()

    def _wanted(self, name: str) -> bool:
        return self.only is None or name in self.only

    def _one(self, match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$" if self.only is None else "$$"
        return self.values.get(name, match[0]) if self._wanted(name) else match[0]
