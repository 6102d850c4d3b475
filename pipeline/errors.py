"""Mistakes of the file or of the call, worded for the person who made them."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["InvalidPipeline", "PipeError", "Place", "Problem", "nearest"]


class PipeError(Exception):
    """The call or its surroundings are wrong: shown without a traceback, exit code 2."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in a file: 1-based line and column, and how many columns it is wide."""

    file: str
    line: int
    column: int
    width: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what is wrong in the author's words, where, and the way out."""

    message: str
    place: Place | None = None
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.message}" if self.place else self.message]
        if self.place and self.place.text:
            lines += self._excerpt(self.place)
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)

    @staticmethod
    def _excerpt(place: Place) -> list[str]:
        number = str(place.line)
        carets = " " * (place.column - 1) + "^" * max(1, place.width)
        return [f" {number} | {place.text}", f" {' ' * len(number)} | {carets}"]


class InvalidPipeline(PipeError):
    """Everything that is wrong with one file, in the order of its lines."""

    def __init__(self, problems: "Iterable[Problem]") -> None:
        far = Place("", 1 << 30, 1)
        self.problems = sorted(problems, key=lambda problem: problem.place or far)
        count = len(self.problems)
        heading = f"{count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([*map(str, self.problems), heading]))


def nearest(word: str, known: "Iterable[str]") -> str:
    """A hint that names the closest known word, or all of them when none is close and they are few."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 24 else ""
