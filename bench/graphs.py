"""What a graph of `true` costs: `pipe run` beside make (every command by a shell) and ninja, interleaved."""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import interleaved, timed, verdict

PIPE = Path(sys.executable).with_name("pipe")
JOBS = "8"

Graph = dict[str, list[str]]
"""A name → the names that it needs."""


def chain(size: int) -> Graph:
    """One after the other."""
    return {f"s{n}": [f"s{n - 1}"] if n else [] for n in range(size)}


def wide(size: int) -> Graph:
    """All at once."""
    return {f"s{n}": [] for n in range(size)}


def layered(layers: int, width: int, parents: int) -> Graph:
    """Layers in which each needs a few of the layer before."""
    return {
        f"s{layer}_{n}": [f"s{layer - 1}_{(n + p) % width}" for p in range(parents)] if layer else []
        for layer in range(layers)
        for n in range(width)
    }


def diamond(size: int) -> Graph:
    """One, then all at once, then one."""
    middle = [f"s{n}" for n in range(size - 2)]
    return {"first": [], **{name: ["first"] for name in middle}, "last": middle}


@dataclass(frozen=True)
class Work:
    """A graph, and the most that it may cost against make."""

    name: str
    graph: Graph
    goal: float
    rounds: int


WORKS = (
    Work("W2 chain of 200", chain(200), 1.8, 9),
    Work("W3 500 at once", wide(500), 1.8, 9),
    Work("W4 20 layers of 50", layered(20, 50, 3), 1.5, 7),
    Work("W5 diamond of 5,000", diamond(5000), 1.3, 5),
)


def pipeline(graph: Graph) -> Iterator[str]:
    """The graph as a pipeline file."""
    yield "name: bench\nstages:\n"
    for name, needs in graph.items():
        waits = f", needs: [{', '.join(needs)}]" if needs else ""
        yield f'  {name}: {{run: "true"{waits}}}\n'


def makefile(graph: Graph) -> Iterator[str]:
    """The graph as a Makefile whose commands go through a shell, as ours do."""
    yield f".PHONY: all {' '.join(graph)}\nall: {' '.join(graph)}\n"
    for name, needs in graph.items():
        yield f"{name}: {' '.join(needs)}\n\t@true;\n"


def ninja(graph: Graph) -> Iterator[str]:
    """The graph for ninja; nothing is ever up to date."""
    yield "rule r\n  command = true\n"
    for name, needs in graph.items():
        yield f"build {name}: r{' | ' + ' '.join(needs) if needs else ''}\n"


def ways(graph: Graph, folder: Path) -> dict[str, Callable[[], float]]:
    """How long each takes for a graph."""
    for file, text in (("pipeline.yaml", pipeline), ("Makefile", makefile), ("build.ninja", ninja)):
        (folder / file).write_text("".join(text(graph)))

    def ours() -> float:
        shutil.rmtree(folder / ".pipe", ignore_errors=True)
        return timed([PIPE, "run", "pipeline.yaml", "-o", "plain", "-j", JOBS], cwd=folder)

    found: dict[str, Callable[[], float]] = {
        "pipe": ours,
        "make": lambda: timed(["make", "-s", "-j", JOBS], cwd=folder),
    }
    if shutil.which("ninja"):
        found["ninja"] = lambda: timed(["ninja", "-j", JOBS], cwd=folder)
    return found


def main() -> None:
    """Print a line for each graph: the median of each, and our ratio to make."""
    for work in WORKS:
        with tempfile.TemporaryDirectory() as folder:
            names = ways(work.graph, Path(folder))
            taken = dict(zip(names, interleaved(work.rounds, *names.values()), strict=True))
        print(verdict(f"{work.name}, pipe against make", taken["pipe"], taken["make"], work.goal))
        others = (f"{name} {statistics.median(seconds):.2f} s" for name, seconds in taken.items())
        print(f"  {', '.join(others)}, {1000 * statistics.median(taken['pipe']) / len(work.graph):.2f} ms a stage")
    print(f"  on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
