"""Interleaved timings of whole commands, and the ratio of two with its bootstrap interval."""

import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["interleaved", "timed", "verdict"]

SAMPLES = 5000


def timed(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> float:
    """Seconds that a command takes as a whole process; its output is dropped. Raises when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in argv], env={**clean, **(env or {})}, cwd=cwd, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr).decode()[-3000:]}")
    return time.perf_counter() - before


def interleaved(rounds: int, *ways: Callable[[], float]) -> list[list[float]]:
    """Run the ways in turn, one unmeasured round first; seconds of each way, round by round."""
    for way in ways:
        way()
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, seconds in zip(ways, taken, strict=True):
            seconds.append(way())
    return taken


def verdict(name: str, ours: Sequence[float], theirs: Sequence[float], goal: float) -> str:
    """The median of the paired ratios with a 95 % bootstrap interval, and whether it is within the goal."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    draw = random.Random(1)  # noqa: S311 - a bootstrap, not a secret
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
    low, high = medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975)]
    met = "met" if high <= goal else "missed" if low > goal else "not decided"
    return (
        f"{name}: {statistics.median(ours):.2f} s against {statistics.median(theirs):.2f} s, "
        f"ratio {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}], goal {goal}: {met}"
    )
