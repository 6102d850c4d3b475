"""How long after the cluster itself knew it a deploy is red: the faults of docs/diagnosis.md that never pass."""

import tempfile
from pathlib import Path
from statistics import median

import anyio

from tests.stages.kubernetes.faults import FAULTS
from tests.stages.kubernetes.faulty import make
from tests.stages.kubernetes.support import real_world

GOAL = 30.0


def main() -> None:
    """Print a line for each fault, the slowest first, and the median."""
    lasting = [fault for fault in FAULTS if fault.lasting]
    with tempfile.TemporaryDirectory() as folder:
        told = anyio.run(make, real_world(Path(folder)), lasting)
    for fault in sorted(lasting, key=lambda fault: told[fault.name].late, reverse=True):
        one = told[fault.name]
        right = one.result.error is not None and one.said in one.result.message
        met = "met" if one.late < GOAL else "missed"
        verdict = "right" if right else f"WRONG: {one.result.message}"
        print(f"| {fault.what} | {one.late:.1f} s | {met} | {verdict} |")
    print(f"median {median(told[fault.name].late for fault in lasting):.1f} s of {len(lasting)}")


if __name__ == "__main__":
    main()
