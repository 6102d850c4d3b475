"""What logs cost: much output of one stage and of eight, a stage that never stops talking, and the masker alone."""

import os
import re
import secrets
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.graphs import BIN
from bench.measure import Ratio, Taken, interleaved, measured
from runner.mask import Masker

ROUNDS = 9
LINES = 2_000_000
EACH = 200_000
TALKS_FOR = 30.0
LINE = "line %d of the log with some words in it to fill"
NEEDS = {"PIPE_SECRET_TOKEN": "correct-horse-battery-staple"}


def pipeline(names: Mapping[str, str]) -> str:
    """A stage for each name, with the secret that is masked in all of them."""
    stages = "".join(f"  {name}: {{run: '{command}', secrets: {{T: token}}}}\n" for name, command in names.items())
    return f"name: bench\nsecrets: {{token: text}}\nstages:\n{stages}"


def ninja(names: Mapping[str, str]) -> str:
    """The same for ninja."""
    rules = "".join(f"rule {name}\n  command = {command}\nbuild x{name}: {name}\n" for name, command in names.items())
    return f"{rules}build all: phony {' '.join(f'x{name}' for name in names)}\ndefault all\n"


def runs(folder: Path, names: Mapping[str, str], rounds: int) -> tuple[list[Taken], list[Taken]]:
    """What pipe and ninja take for the same commands, in turn."""
    (folder / "pipeline.yaml").write_text(pipeline(names))
    (folder / "build.ninja").write_text(ninja(names))

    def ours() -> Taken:
        subprocess.run(["rm", "-rf", folder / ".pipe"], check=True)
        return measured([BIN / "pipe", "run", "pipeline.yaml", "-o", "plain", "-j", "8"], NEEDS, folder)

    mine, other = interleaved(rounds, ours, lambda: measured([BIN / "ninja", "-j", "8"], cwd=folder))
    return mine, other


def lines(file: Path, many: int, first: str = "") -> None:
    """Write so many lines; a piece at a time, as what this process holds counts as memory of what it starts."""
    with file.open("w") as out:
        for n in range(many):
            out.write(f"{first}{LINE % n}\n")


def row(what: str, ratio: Ratio, unit: str) -> str:
    goal = f"≤ {ratio.goal:g}" if ratio.goal else ""
    numbers = f"{ratio.ours:.3g} {unit} | {ratio.theirs:.3g} {unit}"
    return f"| {what} | {numbers} | {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] | {goal} | {ratio.verdict} |"


def one(folder: Path) -> Iterator[str]:
    text = folder / "text"
    lines(text, LINES)
    ours, theirs = runs(folder, {"s": f"cat {text}"}, ROUNDS)
    quiet, _ = runs(folder, {"s": "echo one"}, 3)
    size = text.stat().st_size / 1e6
    took = Ratio.of([run.seconds for run in ours], [run.seconds for run in theirs], 1.5)
    yield row(f"a log of {size:.0f} MB, prefixed, masked and stored, beside ninja", took, "s")
    least = statistics.median(run.peak for run in quiet)
    yield row(
        "peak memory, beside a run of one line", Ratio.of([r.peak for r in ours], [least] * len(ours), 1.3), "MiB"
    )


def eight(folder: Path) -> Iterator[str]:
    names = {f"s{n}": f"cat {folder}/text{n}" for n in range(8)}
    for n in range(8):
        lines(folder / f"text{n}", EACH, f"{n} ")
    ours, theirs = runs(folder, names, ROUNDS)
    took = Ratio.of([run.seconds for run in ours], [run.seconds for run in theirs], 1.5)
    yield row(f"8 × {EACH:,} lines at once, beside ninja", took, "s")
    yield f"| lines torn, lost or out of order in those | {_torn(folder, names)} | | | 0 | |"


def _torn(folder: Path, names: Mapping[str, str]) -> int:
    """Lines of a console that are not the next ones of their stage."""
    command = [str(BIN / "pipe"), "run", "pipeline.yaml", "-o", "plain", "-j", "8"]
    shown = subprocess.run(command, cwd=folder, env={**os.environ, **NEEDS}, capture_output=True, check=True).stdout
    seen: Counter[str] = Counter()
    wrong = 0
    for line in shown.decode().splitlines():
        found = re.fullmatch(r"\[(s\d)\] (\d line (\d+) of the log with some words in it to fill)", line)
        if found is None:
            wrong += "of the log" in line
            continue
        wrong += int(found[3]) != seen[found[1]]
        seen[found[1]] += 1
    return wrong + sum(EACH - seen[name] for name in names)


def talkative(folder: Path) -> Iterator[str]:
    (folder / "pipeline.yaml").write_text(pipeline({"s": "yes"}))
    run = subprocess.Popen(
        [BIN / "pipe", "run", "pipeline.yaml", "-o", "plain"], cwd=folder, env={**os.environ, **NEEDS}, stdout=-3
    )
    peak, end = 0, time.monotonic() + TALKS_FOR
    while time.monotonic() < end:
        peak = max(peak, *(_resident(pid) for pid in (run.pid, *_children(run.pid))))
        time.sleep(0.2)
    asked = time.monotonic()
    run.send_signal(signal.SIGTERM)
    while "run.cancelling" not in (folder / ".pipe/bench/1/events.1.jsonl").read_text():
        time.sleep(0.01)
    answered = time.monotonic() - asked
    run.wait(30)
    written = (folder / ".pipe/bench/1/logs/s.1.log").stat().st_size / 1e6
    what = f"`yes` for {TALKS_FOR:g} s ({written:,.0f} MB kept): the engine's memory"
    yield f"| {what} | {peak >> 10} MiB | | | 200 MiB | |"
    ended = f"answered in {answered:.2f} s, ended after {time.monotonic() - asked:.2f} s"
    yield f"| a cancel of it | {ended} | | | answered in 1 s | |"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _resident(pid: int) -> int:
    """KiB."""
    try:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    except (OSError, IndexError):
        return 0


def masking() -> Iterator[str]:
    masker = Masker()
    for _ in range(100):
        masker.add(secrets.token_urlsafe(24))
    block = "".join(f"{LINE % n}\n" for n in range(1300)).encode()
    masker.mask(block)
    began, rounds = time.perf_counter(), 300
    for _ in range(rounds):
        masker.mask(block)
    speed = rounds * len(block) / 1e6 / (time.perf_counter() - began)
    yield f"| the masker alone, 100 secrets in all their encodings | {speed:.0f} MB/s | | | 50 MB/s | |"


def main() -> None:
    print("| what | pipe | beside | ratio (95 %) | goal | |\n| --- | --- | --- | --- | --- | --- |")
    for part in (one, eight, talkative):
        with tempfile.TemporaryDirectory() as folder:
            for line in part(Path(folder)):
                print(line, flush=True)
    for line in masking():
        print(line, flush=True)


if __name__ == "__main__":
    main()
