"""Globs: `*`, `?` and `[…]` within a part, `**` across, `!` in front takes away, the last match wins."""

import re
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["compiled", "takes"]

_WILDCARDS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)


def takes(patterns: Sequence[str], path: str) -> bool:
    """Whether the patterns take this path or name: of those that match it, the last one says.

    Raises:
        ValueError: one of them is no glob.
    """
    for pattern in reversed(patterns):
        if compiled(pattern.removeprefix("!")).fullmatch(path):
            return not pattern.startswith("!")
    return False


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A glob without its `!`, for whole paths.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile("".join(_piece(token[0]) for token in _TOKEN.finditer(pattern.removeprefix("./"))))
    except re.error as error:
        raise ValueError(f"'{pattern}' is no glob: {error}") from error


def _piece(token: str) -> str:
    if token in _WILDCARDS:
        return _WILDCARDS[token]
    if not token.startswith("[") or len(token) < 3:
        return re.escape(token)
    inner = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
    return f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
