"""The output of a program, read line by line while it runs."""

import re
from collections.abc import Callable

__all__ = ["Lines"]

LINE_LIMIT = 8192
BREAK = re.compile(rb"[\r\n]+")


class Lines:
    """Cuts blocks of bytes into lines; a carriage return ends one too, and what is too long is cut."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, block: bytes) -> None:
        """Add a block; every line that it completes is handed on."""
        *lines, self._rest = BREAK.split(self._rest + block)
        for line in lines:
            self._hand(line)
        self._rest = self._rest[:LINE_LIMIT]

    def end(self) -> None:
        """Hand on what is left without an end of line."""
        self._hand(self._rest)
        self._rest = b""

    def _hand(self, line: bytes) -> None:
        if line:
            self._take(line[:LINE_LIMIT].decode(errors="replace"))
