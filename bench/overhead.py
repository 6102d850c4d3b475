"""What the engine itself costs: the back end's plan with every leaf replaced by `true`, against a plain shell."""

import re
import statistics
import sys
import tempfile
from pathlib import Path

from bench.measure import interleaved, timed

ROOT = Path(__file__).parent.parent
PIPE = Path(sys.executable).with_name("pipe")
GOAL = 1.5


def hollow(text: str) -> str:
    """The same pipeline, its graph untouched and its work gone."""
    text = re.sub(r"^secrets:.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{env: \w+(, )?", r"{default: x\1", text)
    return re.sub(
        r"^    uses: \w+\n    with:(?: .*\n|\n(?:      .*\n)+)", '    run: "true"\n', text, flags=re.MULTILINE
    )


def main() -> None:
    """Print the engine's wall time and that of thirty-three `sh -c true` in a loop."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hollow.yaml"
        file.write_text(hollow((ROOT / "examples" / "backend.yaml").read_text()))
        loop = "i=0; while [ $i -lt 33 ]; do sh -c true; i=$((i+1)); done"
        ours, floor = interleaved(
            15,
            lambda: timed([PIPE, "run", file, "-o", "plain"], cwd=Path(folder)),
            lambda: timed(["sh", "-c", loop]),
        )
    middle = statistics.median(ours)
    print(f"33 leaves of `true`: {middle:.2f} s ({min(ours):.2f} to {max(ours):.2f}), goal {GOAL} s")
    print(f"the same as a shell loop: {statistics.median(floor):.2f} s")


if __name__ == "__main__":
    main()
