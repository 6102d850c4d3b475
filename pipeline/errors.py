"""Mistakes of the file or of the call, worded for the person who made them."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["InvalidPipeline", "PipeError", "Place", "Problem", "hinted", "nearest", "quoted"]

EXCERPT = 150
"""Longest line of an excerpt; of a longer one the part around the place is shown."""
MANY = 200
"""Beyond so many names only those that begin like the word are compared with it."""


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
        return "\n".join(map(_harmless, lines))

    @staticmethod
    def _excerpt(place: Place) -> list[str]:
        number = str(place.line)
        start = max(0, place.column - EXCERPT // 2) if len(place.text) > EXCERPT else 0
        text = place.text[start : start + EXCERPT]
        column = place.column - 1 - start
        carets = " " * column + "^" * max(1, min(place.width, len(text) - column))
        return [f" {number} | {text}", f" {' ' * len(number)} | {carets}"]


class InvalidPipeline(PipeError):
    """Everything that is wrong with one file, in the order of its lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        far = Place("", 1 << 30, 1)
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: _position(problem.place or far))
        count = len(self.problems)
        heading = f"{count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([*map(str, self.problems), heading]))


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or all of them when none is close and they are few."""
    from difflib import get_close_matches

    names = sorted(known)
    if len(names) > MANY:
        names = [name for name in names if name[:1] == word[:1] and abs(len(name) - len(word)) < 3][:MANY]
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 24 else ""


def hinted(message: str, word: str, known: Iterable[str]) -> str:
    """A message about a word that is none, with a hint behind it if there is one."""
    hint = nearest(word, known)
    return f"{message}; {hint}" if hint else message


def quoted(text: str) -> str:
    """A text as YAML takes it in a list or map, in quotes where it could be read as something else."""
    return text if re.fullmatch(r"[A-Za-z0-9_./-]+", text) else json.dumps(text, ensure_ascii=False)


def _position(place: Place) -> tuple[int, int]:
    return place.line, place.column


def _harmless(line: str) -> str:
    """Nothing that a file holds can move the cursor of the terminal that shows it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line.replace("\t", " "))
