"""What the engine itself costs, beside make and doit, as a table; with a path as argument it is written there too."""

import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.graphs import BIN, Graph, chain, diamond, layered, programs, wide
from bench.measure import Ratio, Taken, interleaved, measured

ROUNDS = 9
Runs = dict[str, list[Taken]]

SLEEPS = {"package": 0.5, "build": 0.3, "push": 0.2, "deploy": 0.4}
BOUND = sum(SLEEPS.values())


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    ratio: Ratio
    unit: str = "s"

    def cells(self) -> tuple[str, ...]:
        """As text."""
        it = self.ratio
        numbers = [f"{value:.3g} {self.unit}" for value in (it.ours, it.theirs)]
        return (
            self.what,
            *numbers,
            self.against,
            f"{it.median:.2f} [{it.low:.2f}, {it.high:.2f}]",
            "" if it.goal is None else f"≤ {it.goal:g}",
            it.verdict,
        )


def seconds(runs: Sequence[Taken]) -> list[float]:
    return [taken.seconds for taken in runs]


def peaks(runs: Sequence[Taken]) -> list[float]:
    return [taken.peak for taken in runs]


def run(graph: Graph, names: Sequence[str], rounds: int = ROUNDS) -> Runs:
    """What some programs take for a graph, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        ways = programs(graph, Path(folder))
        taken = interleaved(rounds, *(ways[name] for name in names))
    return dict(zip(names, taken, strict=True))


def together(rounds: int, *graphs: tuple[Graph, str]) -> list[list[float]]:
    """Seconds of programs for different graphs, in turn."""
    with tempfile.TemporaryDirectory() as place:
        ways = []
        for number, (graph, name) in enumerate(graphs):
            folder = Path(place, str(number))
            folder.mkdir()
            ways.append(programs(graph, folder)[name])
        return [seconds(taken) for taken in interleaved(rounds, *ways)]


# -- the rows --------------------------------------------------------------------------------------


def one() -> Iterator[Row]:
    runs = run(wide(1), ("pipe", "doit"), 15)
    yield Row(
        "W1 one stage, whole process, nothing cached", "doit", Ratio.of(seconds(runs["pipe"]), seconds(runs["doit"]), 3)
    )


def hollow() -> Iterator[Row]:
    """The example's back end, its graph untouched and every leaf's work gone."""
    text = (Path(__file__).parent.parent / "examples" / "backend.yaml").read_text()
    text = re.sub(r"^secrets:.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{env: \w+(, )?", r"{default: x\1", text)
    work = r"^    uses: \w+\n    with:(?: .*\n|\n(?:      .*\n)+)"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "hollow.yaml")
        file.write_text(re.sub(work, '    run: "true"\n', text, flags=re.MULTILINE))
        took = [measured([BIN / "pipe", "run", file, "-o", "plain"], cwd=file.parent).seconds for _ in range(ROUNDS)]
    yield Row("the example's 33 leaves, each `true`", "1.5 s", Ratio.of(took, [1.5] * len(took), 1))


def in_a_row() -> Iterator[Row]:
    size = 200
    long, strict, make, short, one = together(
        ROUNDS,
        (chain(size), "pipe"),
        (chain(size), "strict"),
        (chain(size), "make"),
        (chain(1), "pipe"),
        (chain(1), "make"),
    )
    yield Row(f"W2 chain of {size}", "make", Ratio.of(long, make, 1.8))
    slope = [(a - b) / (size - 1) * 1000 for a, b in zip(long, short, strict=True)]
    theirs = [(a - b) / (size - 1) * 1000 for a, b in zip(make, one, strict=True)]
    yield Row("W2 each further stage", "make", Ratio.of(slope, theirs, 1.5), "ms")
    yield Row("W2 with `--durability strict`", "the default", Ratio.of(strict, long, None))


def at_once() -> Iterator[Row]:
    runs = run(wide(500), ("pipe", "make", "doit"))
    yield Row("W3 500 at once", "make", Ratio.of(seconds(runs["pipe"]), seconds(runs["make"]), 1.8))
    yield Row("W3 500 at once", "doit", Ratio.of(seconds(runs["pipe"]), seconds(runs["doit"]), 0.7))


def in_layers() -> Iterator[Row]:
    sparse, make, full = together(
        7, (layered(20, 48, 3), "pipe"), (layered(20, 48, 3), "make"), (layered(20, 48, 48), "pipe")
    )
    yield Row("W4 20 layers of 48, three needs each", "make", Ratio.of(sparse, make, 1.5))
    yield Row("W4 20 layers of 48, all to all", "three needs each", Ratio.of(full, sparse, 1.2))


def large() -> Iterator[Row]:
    size = 5000
    runs = run(diamond(size), ("pipe", "make", "doit"), 5)
    ours = seconds(runs["pipe"])
    yield Row(f"W5 diamond of {size:,}", "make", Ratio.of(ours, seconds(runs["make"]), 1.3))
    yield Row(f"W5 diamond of {size:,}, memory", "doit", Ratio.of(peaks(runs["pipe"]), peaks(runs["doit"]), 1.1), "MiB")
    small = seconds(run(diamond(500), ("pipe",), 5)["pipe"])
    each = [took / size * 1000 for took in ours], [took / 500 * 1000 for took in small]
    yield Row("W5 each stage", "each of 500", Ratio.of(*each, 1.2), "ms")


def critical_path() -> Iterator[Row]:
    """Ten services, a checkout before them, each `package → build → push → deploy`; waiting costs no slot."""
    services = range(10)
    steps = list(SLEEPS)
    graph: Graph = {"checkout": []} | {
        f"{step}_{n}": [f"{steps[i - 1]}_{n}" if i else "checkout"] for n in services for i, step in enumerate(steps)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def command(stage: str) -> str:
            return f"sleep {SLEEPS.get(stage.partition('_')[0], 0)}"

        programs(graph, folder, command)
        took, waits = [], []
        for number in range(1, 6):
            argv: list[str | Path] = [BIN / "pipe", "run", "pipeline.yaml", "-o", "plain", "-j", "20"]
            took.append(measured(argv, cwd=folder).seconds)
            waits += starts(graph, folder / f".pipe/bench/{number}/events.1.jsonl")
    yield Row("W6 critical path of 1.4 s", "the bound", Ratio.of(took, [BOUND] * len(took), 1.08))
    yield Row("W6 from a need's end to the start", "2 ms", Ratio.of(waits, [2.0] * len(waits), 1), "ms")


def starts(graph: Graph, events: Path) -> list[float]:
    """Milliseconds from the end of the last need to the start, of each stage that needs one."""
    started, ended = {}, {}
    for record in map(json.loads, events.read_text().splitlines()):
        if record["type"] == "stage.started":
            started[record["stage"]] = record["time"]
        elif record["type"] == "stage.finished":
            ended[record["stage"]] = record["time"]
    return [
        round((started[name] - max(ended[need] for need in needs)) * 1000) for name, needs in graph.items() if needs
    ]


def start_up() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "long.yaml")
        stages = "".join(f"  s{n}:\n    run: echo {n}\n    env: {{A: b}}\n    timeout: 5m\n" for n in range(500))
        file.write_text(f"name: long\nstages:\n{stages}")
        python = [sys.executable, "-c", "pass"]
        ways: list[Callable[[], Taken]] = [
            lambda: measured([BIN / "pipe", "--help"]),
            lambda: measured([BIN / "pipe", "check", file]),
            lambda: measured(python),
        ]
        shown, checked, nothing = (seconds(taken) for taken in interleaved(15, *ways))
    yield Row("`pipe --help`", "`python -c pass`", Ratio.of(shown, nothing, 5))
    yield Row("`pipe check` of 2,000 lines", "`python -c pass`", Ratio.of(checked, nothing, 20))


# -- the table -------------------------------------------------------------------------------------

HEAD = ("what", "pipe", "beside", "which is", "ratio (95 %)", "goal", "")


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(HEAD)} |"
    yield "| --- " * len(HEAD) + "|"
    for row in rows:
        yield f"| {' | '.join(row.cells())} |"


def main() -> None:
    rows: list[Row] = []
    for part in (one, hollow, in_a_row, at_once, in_layers, large, critical_path, start_up):
        for row in part():
            print("  ".join(row.cells()), flush=True)
            rows.append(row)
    if len(sys.argv) > 1:
        page = Path(sys.argv[1])
        head, _, _ = page.read_text().partition("<!-- measured -->\n")
        where = f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, Python {platform.python_version()}."
        page.write_text(head + "<!-- measured -->\n" + where + "\n\n" + "\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()
