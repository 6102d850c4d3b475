"""The warm release of the back end by `pipe` against a careful shell script doing the same, interleaved."""

import itertools
import sys
import tempfile
from pathlib import Path

import sandbox
from bench.measure import interleaved, timed, verdict
from sandbox.publish import publish, sources
from sandbox.release import environment

ROOT = Path(__file__).parent.parent
PIPE = Path(sys.executable).with_name("pipe")
GOAL = 1.05
NUMBERS = itertools.count(9001)


def main(rounds: int) -> None:
    """Print both medians and their ratio. Each release has a number of its own, so every service is rolled."""
    for source in sources():
        publish(source)
    env = environment(sandbox.ensure().env)
    with tempfile.TemporaryDirectory() as folder:

        def by_pipe() -> float:
            number = {"JENKINS_URL": "bench", "BUILD_NUMBER": str(next(NUMBERS))}
            file = ROOT / "examples" / "backend.yaml"
            return timed([PIPE, "run", file, "-o", "plain", "-j", "10"], {**env, **number}, Path(folder))

        def by_hand() -> float:
            return timed([ROOT / "bench" / "by_hand.sh"], {**env, "BUILD_NUMBER": str(next(NUMBERS))}, Path(folder))

        ours, theirs = interleaved(rounds, by_pipe, by_hand)
    print(verdict("warm release of the back end", ours, theirs, GOAL))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
