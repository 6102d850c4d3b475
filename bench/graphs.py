"""Graphs of commands that do nothing, written down for us and for the programs that we are measured against."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.measure import Taken, measured

__all__ = ["BIN", "Graph", "chain", "diamond", "layered", "programs", "wide"]

BIN = Path(sys.executable).parent
JOBS = "8"

Graph = Mapping[str, list[str]]
"""A name → the names that it needs."""


def chain(size: int) -> Graph:
    """One after the other."""
    return {f"s{n}": [f"s{n - 1}"] if n else [] for n in range(size)}


def wide(size: int) -> Graph:
    """All at once."""
    return {f"s{n}": [] for n in range(size)}


def layered(layers: int, width: int, parents: int) -> Graph:
    """Layers in which each needs so many of the layer before."""
    return {
        f"s{layer}_{n}": [f"s{layer - 1}_{(n + p) % width}" for p in range(parents)] if layer else []
        for layer in range(layers)
        for n in range(width)
    }


def diamond(size: int) -> Graph:
    """One, then all at once, then one."""
    middle = [f"s{n}" for n in range(size - 2)]
    return {"first": [], **{name: ["first"] for name in middle}, "last": middle}


# -- as files --------------------------------------------------------------------------------------


def pipeline(graph: Graph, command: Callable[[str], str]) -> Iterator[str]:
    """For pipe."""
    yield "name: bench\nstages:\n"
    for name, needs in graph.items():
        waits = f", needs: [{', '.join(needs)}]" if needs else ""
        yield f'  {name}: {{run: "{command(name)}"{waits}}}\n'


def makefile(graph: Graph, command: Callable[[str], str]) -> Iterator[str]:
    """For make; the semicolon makes it start a shell for each command, as we do."""
    yield f".PHONY: all {' '.join(graph)}\nall: {' '.join(graph)}\n"
    for name, needs in graph.items():
        yield f"{name}: {' '.join(needs)}\n\t@{command(name)};\n"


def dodo(graph: Graph, command: Callable[[str], str]) -> Iterator[str]:
    """For doit."""
    tasks = [
        {"basename": name, "actions": [command(name)], "task_dep": needs, "verbosity": 0}
        for name, needs in graph.items()
    ]
    yield f"TASKS = {tasks!r}\n\n\ndef task_all():\n    yield from TASKS\n"


def programs(
    graph: Graph, folder: Path, command: Callable[[str], str] = lambda _: "true"
) -> dict[str, Callable[[], Taken]]:
    """How each program runs the graph, from nothing, whatever it remembers of the last time."""
    for file, text in (("pipeline.yaml", pipeline), ("Makefile", makefile), ("dodo.py", dodo)):
        (folder / file).write_text("".join(text(graph, command)))

    def pipe(*words: str) -> Taken:
        shutil.rmtree(folder / ".pipe", ignore_errors=True)
        return measured([BIN / "pipe", "run", "pipeline.yaml", "-o", "plain", "-j", JOBS, *words], cwd=folder)

    def doit() -> Taken:
        for left in folder.glob(".doit.db*"):
            left.unlink()
        return measured([BIN / "doit", "-n", JOBS, "-P", "thread"], cwd=folder, env={"PATH": os.environ["PATH"]})

    return {
        "pipe": pipe,
        "strict": lambda: pipe("--durability", "strict"),
        "make": lambda: measured(["make", "-s", "-j", JOBS], cwd=folder),
        "doit": doit,
    }
