"""The preflight of the back end: how long it takes alone, and what it adds to a run before the first compile."""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import sandbox
from bench.measure import interleaved, timed
from sandbox.publish import publish, sources
from sandbox.release import environment

ROOT = Path(__file__).parent.parent
PIPE = Path(sys.executable).with_name("pipe")
FILE = ROOT / "examples" / "backend.yaml"
NUMBERS = itertools.count(9001)


def until_compile(env: Mapping[str, str], folder: Path, *words: str) -> float:
    """Seconds from the start of a run to that of its first computing stage; the run is ended then."""
    number = {"JENKINS_URL": "bench", "BUILD_NUMBER": str(next(NUMBERS))}
    argv = [str(PIPE), "run", str(FILE), "-o", "json", *words]
    run = subprocess.Popen(argv, env={**os.environ, **env, **number}, cwd=folder, stdout=-1, stderr=-3)
    assert run.stdout is not None
    began = 0.0
    for line in run.stdout:
        event = json.loads(line)
        began = began or event["time"]
        if event["type"] == "stage.started" and event["stage"] == "compile":
            run.send_signal(signal.SIGINT)
            run.stdout.read()
            run.wait()
            return float(event["time"] - began)
    raise RuntimeError(f"it never compiled: exit code {run.wait()}")


def main(rounds: int) -> None:
    """Print the medians."""
    for source in sources():
        publish(source)
    env = environment(sandbox.ensure().env)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone, looking, blind = interleaved(
            rounds,
            lambda: timed([PIPE, "plan", "--live", FILE], env, folder),
            lambda: until_compile(env, folder),
            lambda: until_compile(env, folder, "--no-preflight"),
        )
    added = [mine - other for mine, other in zip(looking, blind, strict=True)]
    middle, worst = statistics.median(alone), max(alone)
    print(f"`pipe plan --live` of the back end: median {middle:.2f} s, worst {worst:.2f} s (goal 10 s)")
    print(
        f"before the first compile: {statistics.median(looking):.2f} s with the preflight, "
        f"{statistics.median(blind):.2f} s without; added {statistics.median(added):.2f} s, "
        f"worst {max(added):.2f} s (goal 2 s)"
    )
    print(time.strftime("measured %Y-%m-%d"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
