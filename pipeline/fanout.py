"""`each` and `needs`: which leaves a stage has, and which leaves one of them waits for."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Final

from pydantic import JsonValue

from pipeline.errors import nearest
from pipeline.expressions import Form, is_open, shown
from pipeline.plan import Need, NeedWord
from pipeline.spec import FREE, FREE_PATTERN

__all__ = ["SINGLE", "FanOutError", "Item", "expand", "items", "leaf_name", "split_need"]

_KEY: Final = re.compile(FREE_PATTERN)
_ONE_LEAF: Final = re.compile(r"(?P<stage>[^\[\]]*)\[(?P<key>[^\[\]]*)\]")


class FanOutError(Exception):
    """An `each` or a need that makes no sense; `path` leads to the value at fault."""

    def __init__(self, message: str, hint: str = "", path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.path = path


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of `each`: the leaf's key, and what `each.X` stands for in it."""

    key: str
    fields: Mapping[str, Form] = field(default_factory=dict)


MOST_LEAVES: Final = 1000
SINGLE: Final = Item("")
"""The only item of a stage that is not fanned out."""


def leaf_name(stage: str, key: str) -> str:
    """`image[server-gateway]`, or the stage's own name."""
    return f"{stage}[{key}]" if key else stage


def split_need(name: str) -> tuple[str, str]:
    """The stage and the key of a need as written; the key is empty for a whole stage."""
    match = _ONE_LEAF.fullmatch(name)
    return (match["stage"], match["key"]) if match else (name, "")


# -- each ------------------------------------------------------------------------------------------


def items(each: Form) -> tuple[Item, ...] | None:
    """The items of an `each`; None as long as it cannot be known how many there are and what they are called.

    Raises:
        FanOutError: it is no list of texts or maps with a `name`, no map of lists, empty, or has a key twice.
    """
    if isinstance(each, dict) and not is_tag(each):
        found = _product(each)
    elif isinstance(each, list):
        found = _listed(each)
    elif is_open(each):
        return None
    else:
        raise FanOutError("must be a list, or a map of lists")
    if found is not None:
        _check_unique(found)
    return found


def is_tag(form: Mapping[str, JsonValue]) -> bool:
    """Whether a map is an open value as a whole."""
    return set(form) == {"$"}


def _listed(entries: Sequence[Form]) -> tuple[Item, ...] | None:
    if not entries:
        raise FanOutError("is an empty list, so there is nothing to do")
    if len(entries) > MOST_LEAVES:
        raise FanOutError(f"makes {len(entries)} leaves, and a stage has at most {MOST_LEAVES}")
    named = [_fields(entry, index) for index, entry in enumerate(entries)]
    if any(fields is None or is_open(fields["name"]) for fields in named):
        return None
    return tuple(Item(_key(fields["name"], (index,)), fields) for index, fields in enumerate(named) if fields)


def _fields(entry: Form, index: int) -> Mapping[str, Form] | None:
    if isinstance(entry, dict) and not is_tag(entry):
        if "name" not in entry:
            raise FanOutError("an entry of `each:` that is a map needs a `name`", path=(index,))
        return entry
    if isinstance(entry, list):
        raise FanOutError("an entry of `each:` is a text or a map with a `name`, not a list", path=(index,))
    return None if is_open(entry) else {"name": entry}


def _product(axes: Mapping[str, Form]) -> tuple[Item, ...] | None:
    for axis, values in axes.items():
        if not isinstance(values, list) and not is_open(values):
            hint = "`each:` is a list, or a map of lists for their product"
            raise FanOutError(f"'{axis}' must be a list", hint, (axis,))
        if values == []:
            raise FanOutError(f"'{axis}' is an empty list, so there is nothing to do", path=(axis,))
    if not axes:
        raise FanOutError("is an empty map, so there is nothing to do")
    if is_open(dict(axes)):
        return None
    if (count := prod(len(values) for values in axes.values() if isinstance(values, list))) > MOST_LEAVES:
        raise FanOutError(f"makes {count} leaves, and a stage has at most {MOST_LEAVES}")
    lists = [[(_key(value, (axis,)), value) for value in _texts(axis, values)] for axis, values in axes.items()]
    return tuple(
        Item(",".join(key for key, _ in row), dict(zip(axes, (value for _, value in row), strict=True)))
        for row in product(*lists)
    )


def _texts(axis: str, values: Form) -> Iterator[str]:
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, str):
            raise FanOutError(f"the values of '{axis}' must be texts", path=(axis,))
        yield value


def _key(name: Form, path: tuple[str | int, ...]) -> str:
    if not isinstance(name, str) or not (_KEY.fullmatch(name) or name == "<unset>"):
        raise FanOutError(f"'{shown(name)}' cannot name a leaf: {FREE}", path=path)
    return name


def _check_unique(found: Sequence[Item]) -> None:
    seen: set[str] = set()
    for index, item in enumerate(found):
        if item.key in seen:
            raise FanOutError(f"'{item.key}' is in it twice", "the key of every leaf is its own", (index,))
        seen.add(item.key)


# -- needs -----------------------------------------------------------------------------------------


def expand(
    written: str, words: Sequence[str], mine: Item, own: Sequence[Item], others: Sequence[Item] | None
) -> Need | None:
    """One need of one leaf; None as long as the leaves of the other stage are not known.

    `own` are all items of the leaf's stage, `others` those of the stage it needs.

    Raises:
        FanOutError: a leaf that is not there, or fan-outs that do not go together leaf by leaf.
    """
    stage, key = split_need(written)
    word = _word(words)
    if others is None:
        return None
    keys = [item.key for item in others]
    if key:
        if key not in keys:
            raise FanOutError(f"'{stage}' has no leaf '{key}'", nearest(key, filter(None, keys)))
        if "all" in words:
            raise FanOutError(f"'{written}' is one leaf, and `all` asks for every one")
        return Need(on=written, leaves=(written,), word=word)
    if keys == [""]:
        return Need(on=stage, leaves=(stage,), word=word)
    if "all" in words or not mine.key:
        return Need(on=stage, leaves=tuple(leaf_name(stage, key) for key in keys), word=word, group=True)
    missing = [item.key for item in own if item.key not in keys]
    if missing:
        what = f"'{stage}' has no leaf for {', '.join(repr(key) for key in missing[:3])}"
        raise FanOutError(what, f"to wait for every leaf of it write `{{{stage}: all}}`")
    return Need(on=stage, leaves=(leaf_name(stage, mine.key),), word=word)


def _word(words: Sequence[str]) -> NeedWord:
    asked = dict.fromkeys(words)
    asked.pop("all", None)
    if len(asked) > 1:
        raise FanOutError(f"one of {', '.join(asked)}: they contradict each other")
    return NeedWord(next(iter(asked))) if asked else NeedWord.OK
