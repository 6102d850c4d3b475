"""What `release:` costs: ten deploys of a ConfigMap each as one release against the same ten without, interleaved.

Nothing is rolled out, so that nothing hides the cost: the seconds from the first deploy to the end of the run, as its
journal has them. The ticket is left out, which a real run draws while it compiles.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import sandbox
from bench.measure import interleaved, measured

PIPE = Path(sys.executable).with_name("pipe")
GOAL = 0.3
"""Seconds that a release of ten services may cost."""
SERVICES = [f"s{number}" for number in range(10)]
PIPELINE = """
name: NAME
secrets: {{kubeconfig: file}}
{release}
stages:
  deploy:
    each: [{services}]
    uses: deploy
    with: {{manifests: ["${{each.name}}.yml"], namespace: {namespace}, secret: kubeconfig}}
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n"


def main(rounds: int) -> None:
    """Print both medians and the median of their differences."""
    env = {"PIPE_SECRET_KUBECONFIG_FILE": str(sandbox.ensure().kubeconfig)}
    with tempfile.TemporaryDirectory() as folder:
        both = [_prepared(Path(folder) / name, release) for name, release in (("with", "release: {}"), ("without", ""))]

        def seconds(place: Path) -> float:
            measured([PIPE, "run", "pipeline.yaml", "-o", "plain"], env, place)
            return _from_first_deploy(place)

        ours, theirs = interleaved(rounds, lambda: seconds(both[0]), lambda: seconds(both[1]))
    cost = statistics.median(our - their for our, their in zip(ours, theirs, strict=True))
    met = "met" if cost <= GOAL else "not met"
    print(f"release of ten services: {statistics.median(ours):.2f} s, without {statistics.median(theirs):.2f} s")
    print(f"  costs {cost:.2f} s, median of {rounds} pairs; goal {GOAL} s: {met}")


def _prepared(place: Path, release: str) -> Path:
    place.mkdir()
    text = PIPELINE.format(release=release, services=", ".join(SERVICES), namespace=f"bench-{uuid4().hex[:8]}")
    (place / "pipeline.yaml").write_text(text.replace("NAME", "fence"))
    for name in SERVICES:
        (place / f"{name}.yml").write_text(CONFIG.format(name=name))
    return place


def _from_first_deploy(place: Path) -> float:
    newest = max((place / ".pipe" / "fence").iterdir(), key=lambda path: int(path.name))
    events = [json.loads(line) for line in (newest / "events.1.jsonl").read_text().splitlines()]
    first = next(each["time"] for each in events if each["type"] == "stage.started" and each["stage"] != "ticket")
    return float(events[-1]["time"] - first)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
