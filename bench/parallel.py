"""What building ten images in parallel gains: from the first start to the last end, `--jobs N` against `--jobs 1`."""

import itertools
import json
import re
import sys
import tempfile
from pathlib import Path

import sandbox
from bench.measure import interleaved, timed, verdict
from sandbox.release import environment

ROOT = Path(__file__).parent.parent
PIPE = Path(sys.executable).with_name("pipe")
GOAL = 0.75
NUMBERS = itertools.count(8001)


def images_only(text: str) -> str:
    """The back end's image stage alone, in a folder where everything is compiled already."""
    stages = re.sub(r"^  (?:checkout|compile|push|deploy):\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
    stages = stages.partition("finally:")[0].replace("    needs: compile\n", "")
    return re.sub(r"^secrets:.*\n", "", stages, flags=re.MULTILINE).replace("{env: BACKEND_GIT_URL", "{default: x")


def span(journal: Path) -> float:
    """Seconds from the first start of a leaf to the last end."""
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    starts = [event["time"] for event in events if event["type"] == "stage.started"]
    ends = [event["time"] for event in events if event["type"] == "stage.finished"]
    return float(max(ends) - min(starts))


def main(rounds: int) -> None:
    """Print both medians and their ratio. Needs compiled sources: `mvn package` is run first."""
    env = environment(sandbox.ensure().env)
    tree = ROOT / "examples" / "sources" / "yygh-parent"
    timed(["mvn", "-q", "-B", "clean", "package", "-Dmaven.test.skip=true"], cwd=tree)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.yaml"
        file.write_text(images_only((ROOT / "examples" / "backend.yaml").read_text()))

        def build(jobs: int) -> float:
            number = next(NUMBERS)
            given = {"JENKINS_URL": "bench", "BUILD_NUMBER": str(number), "PIPE_STORE": f"{folder}/store"}
            timed([PIPE, "run", file, "-o", "plain", "-j", str(jobs)], {**env, **given}, tree)
            return span(Path(folder) / "store" / "backend" / str(number) / "events.1.jsonl")

        ten, one = interleaved(rounds, lambda: build(10), lambda: build(1))
    print(verdict("ten images with --jobs 10 against --jobs 1", ten, one, GOAL))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
