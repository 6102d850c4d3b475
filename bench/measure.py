"""Interleaved runs of whole commands, and the ratio of two with its bootstrap interval."""

import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Ratio", "Taken", "interleaved", "measured", "timed", "verdict"]

T = TypeVar("T")

SAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run of a command took: seconds of wall time, and the peak MiB of its largest process."""

    seconds: float
    peak: float = 0.0


def measured(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Taken:
    """Run a command as a whole process; its output is dropped. Raises when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in argv], env={**clean, **(env or {})}, cwd=cwd, stdout=-3, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}:\n{said.decode()[-3000:]}")
    return Taken(seconds, usage.ru_maxrss / 1024)


def timed(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> float:
    """Seconds that a command takes as a whole process."""
    return measured(argv, env, cwd).seconds


def interleaved(rounds: int, *ways: Callable[[], T]) -> list[list[T]]:
    """Run the ways in turn, one unmeasured round first; what each way took, round by round."""
    for way in ways:
        way()
    taken: list[list[T]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, results in zip(ways, taken, strict=True):
            results.append(way())
    return taken


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios with its 95 % bootstrap interval, beside the most that it may be."""

    ours: float
    theirs: float
    median: float
    low: float
    high: float
    goal: float | None

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float], goal: float | None) -> "Ratio":
        """Of two ways that were run in turn."""
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        draw = random.Random(1)  # noqa: S311 - a bootstrap, not a secret
        medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
        low, high = medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975)]
        return cls(statistics.median(ours), statistics.median(theirs), statistics.median(ratios), low, high, goal)

    @property
    def verdict(self) -> str:
        """Whether it is within the goal, as far as the interval tells."""
        if self.goal is None:
            return ""
        return "met" if self.high <= self.goal else "missed" if self.low > self.goal else "not decided"


def verdict(name: str, ours: Sequence[float], theirs: Sequence[float], goal: float) -> str:
    """A ratio of seconds in one line."""
    it = Ratio.of(ours, theirs, goal)
    return (
        f"{name}: {it.ours:.2f} s against {it.theirs:.2f} s, "
        f"ratio {it.median:.3f} [{it.low:.3f}, {it.high:.3f}], goal {goal}: {it.verdict}"
    )
