"""Globs: `*`, `?` and `[…]` within a part, `**` for any parts, `!` in front takes away, the last match wins."""

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["Glob", "compiled", "is_plain", "takes"]

_SIGNS: Final = re.compile(r"\[!?([^\]]+)\]")
_ANY: Final = None
"""Stands for `**`."""


def is_plain(pattern: str) -> bool:
    """Whether a pattern, or a part of one, means the one path that it spells."""
    return not set(pattern) & set("*?[!")


class Glob:
    """One pattern without its `!`, for whole paths; however it is written, matching takes little time."""

    def __init__(self, pattern: str) -> None:
        """Take a pattern apart.

        Raises:
            ValueError: it is no glob.
        """
        self._parts = [_part(part, pattern) for part in pattern.removeprefix("./").split("/")]

    def matches(self, path: str) -> bool:
        """Whether it matches a whole path. `**` stands for any number of parts, at the end for one at least."""
        names = path.split("/")
        last = len(self._parts) - 1
        # which numbers of leading names the parts so far can stand for
        reached = {0}
        for number, part in enumerate(self._parts):
            if part is _ANY:
                first = min(reached, default=len(names) + 1)
                reached = set(range(first + (number == last), len(names) + 1))
            else:
                reached = {at + 1 for at in reached if at < len(names) and part.match(names[at])}
        return len(names) in reached


def _part(part: str, pattern: str) -> "re.Pattern[str] | None":
    if part == "**":
        return _ANY
    for signs in _SIGNS.findall(part):
        for first, last in re.findall(r"(.)-(.)", signs):
            if first > last:
                raise ValueError(f"'{pattern}' is no glob: nothing lies between {first} and {last}")
    return re.compile(fnmatch.translate(part))


def takes(patterns: Sequence[str], path: str) -> bool:
    """Whether the patterns take this path or name: of those that match it, the last one says.

    Raises:
        ValueError: one of them is no glob.
    """
    for pattern in reversed(patterns):
        if compiled(pattern.removeprefix("!")).matches(path):
            return not pattern.startswith("!")
    return False


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Glob:
    """A glob without its `!`; raises ValueError as it does."""
    return Glob(pattern)
