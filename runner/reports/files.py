"""Writing what a run leaves at its end, in its folder and where the call wants it: each file whole, or not at all."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from runner.folder import RunFolder
from runner.mask import Masker
from runner.reports.sarif import write_problems
from runner.reports.summary import write_summary
from runner.reports.tests import no_run, write_tests
from runner.sinks.view import RunView
from runner.state import fold

__all__ = ["Ended", "write_all", "write_refusal"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, or was stopped, with the secrets that it held."""

    view: RunView
    folder: RunFolder
    masker: Masker
    epoch: int

    @property
    def ours(self) -> bool:
        """Nobody has taken the run over meanwhile: else its folder is another engine's to write to."""
        return not self.folder.ownership.lost(self.epoch)


def write_all(runs: Sequence[Ended], *, junit: str = "", summary: str = "") -> None:
    """Write the reports on each run into its folder; `junit` and `summary` are paths of those on all of them.

    It is the same whatever the runs ended like. What cannot be written is told, and changes no outcome.
    """
    for run in runs:
        run.view.state = fold(run.folder.records())
        if run.ours:
            _write_own(run)
    if junit:
        _write(Path(junit), partial(_tests, runs=runs))
    if summary:
        _write(Path(summary), partial(_summary, runs=runs))


def _write_own(run: Ended) -> None:
    _write(run.folder.junit, partial(_tests, runs=[run]))
    _write(run.folder.summary, partial(_summary, runs=[run]))
    if any(leaf.problems for leaf in run.view.state.leaves.values()):
        _write(run.folder.problems, partial(_problems, run=run))
    else:
        _remove(run.folder.problems)


def write_refusal(junit: str, why: str) -> None:
    """A report on a call that started nothing, for Jenkins calls it a fault when there is none."""
    _write(Path(junit), partial(no_run, why=why))


def _tests(file: IO[str], runs: Sequence[Ended]) -> None:
    write_tests(file, [(run.view, run.folder) for run in runs], _mask(runs))


def _summary(file: IO[str], runs: Sequence[Ended]) -> None:
    write_summary(file, [run.view for run in runs], _mask(runs))


def _problems(file: IO[str], run: Ended) -> None:
    write_problems(file, run.view, run.masker.mask_text)


def _mask(runs: Sequence[Ended]) -> Callable[[str], str]:
    """Take the secrets of all of them out of a text."""

    def mask(text: str) -> str:
        for run in runs:
            text = run.masker.mask_text(text)
        return text

    return mask


def _write(path: Path, write: Callable[[IO[str]], None]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", errors="replace") as file:
            write(file)
        part.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        sys.stderr.write(f"pipe: {path} could not be written: {error}\n")


def _remove(path: Path) -> None:
    """What an earlier epoch of the run had to say, and this one has not."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        sys.stderr.write(f"pipe: {path} says what is no longer true, and could not be removed: {error.strerror}\n")
