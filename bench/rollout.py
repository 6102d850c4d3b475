"""Ten services rolled out at once, beside `kubectl rollout status`, in turn; and what waiting asks of the API server.

Both ways apply the same ten Deployments, whose new pods are ready after three to nine seconds, to namespaces of their
own. pipe's time is that from the start of the first deploy to the end of the last one, by the run's journal; kubectl's
from the start of `kubectl apply` of all ten to the end of the slowest of ten `kubectl rollout status` at once.
"""

import itertools
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from bench.engine import Row
from bench.measure import Ratio, interleaved, measured
from tests.stages.kubernetes.support import World, real_world
from tests.support.api_proxy import Asked, api_proxy

PIPE = Path(sys.executable).with_name("pipe")
SERVICES = tuple(f"s{number}" for number in range(10))
GOAL = 1.1
SHORT, LONG = 5, 65
"""Seconds that all ten take to be ready, for what more of them costs in requests."""

PIPELINE = """name: rollout
secrets: {{kubeconfig: file, registry: login}}
stages:
  deploy:
    each: [{services}]
    uses: deploy
    with:
      manifests: ["manifests/${{each.name}}.json"]
      images: ["{image}"]
      namespace: {namespace}
      secret: kubeconfig
      pull_secret: registry
"""


@dataclass
class Place:
    """A namespace with the ten services, and the files that say what they are to be."""

    world: World
    folder: Path
    namespace: str
    numbers: Iterator[int]

    def write(self, delays: Sequence[float]) -> None:
        """New pods for each of them, ready after so many seconds."""
        (self.folder / "manifests").mkdir(exist_ok=True)
        number = next(self.numbers)
        for name, delay in zip(SERVICES, delays, strict=True):
            thing = deployment(name, self.namespace, self.world.image, number, delay)
            (self.folder / "manifests" / f"{name}.json").write_text(json.dumps(thing))
        text = PIPELINE.format(services=", ".join(SERVICES), image=self.world.image, namespace=self.namespace)
        (self.folder / "pipeline.yaml").write_text(text)

    def kubectl(self, *words: str) -> list[str]:
        """A call of kubectl in this namespace."""
        return ["kubectl", f"--kubeconfig={self.world.kubeconfig}", "-n", self.namespace, *words]

    def env(self, kubeconfig: Path | None = None) -> Mapping[str, str]:
        """What pipe is called with."""
        login = self.world.login
        return {
            "PIPE_SECRET_KUBECONFIG_FILE": str(kubeconfig or self.world.kubeconfig),
            "PIPE_SECRET_REGISTRY_USERNAME": login.username,
            "PIPE_SECRET_REGISTRY_PASSWORD": login.password,
        }

    def by_pipe(self, kubeconfig: Path | None = None) -> tuple[float, float]:
        """Seconds from the first deploy's start to the last one's end, and of the whole process."""
        argv: list[str | Path] = [PIPE, "run", "pipeline.yaml", "--no-preflight", "-o", "plain"]
        whole = measured(argv, self.env(kubeconfig), self.folder).seconds
        newest = max((self.folder / ".pipe" / "rollout").iterdir(), key=lambda path: int(path.name))
        events = [json.loads(line) for line in (newest / "events.1.jsonl").read_text().splitlines()]
        began = min(each["time"] for each in events if each["type"] == "stage.started")
        return max(each["time"] for each in events if each["type"] == "stage.finished") - began, whole

    def by_kubectl(self) -> tuple[float, float]:
        """Seconds from the start of the apply to the end of the slowest rollout; the same twice."""
        began = time.perf_counter()
        apply = self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "manifests")
        subprocess.run(apply, cwd=self.folder, check=True, capture_output=True, timeout=300)
        waits = [
            subprocess.Popen(self.kubectl("rollout", "status", f"deployment/{name}"), stdout=subprocess.DEVNULL)
            for name in SERVICES
        ]
        if codes := [wait.wait(300) for wait in waits if wait.wait(300)]:
            raise RuntimeError(f"kubectl rollout status ended with {codes}")
        took = time.perf_counter() - began
        return took, took


def deployment(name: str, namespace: str, image: str, number: int, delay: float) -> dict[str, object]:
    """One replica that is ready after so many seconds; each number makes new pods."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10}  # an exec costs more than a rollout
    container = {
        "name": "app",
        "image": image,
        "command": ["sh", "-c", f"sleep {delay}; exec httpd -f -p 8080"],
        "env": [{"name": "NUMBER", "value": str(number)}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "2m", "memory": "4Mi"}},
    }
    pod = {"terminationGracePeriodSeconds": 0, "imagePullSecrets": [{"name": "pull"}], "containers": [container]}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


# -- what is asked ---------------------------------------------------------------------------------


def counted(place: Place, delay: int) -> list[Asked]:
    """Everything that is asked while ten services are rolled out that are ready after so many seconds."""
    place.write([delay] * len(SERVICES))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(api_proxy(place.world.kubeconfig)) as it:
        place.by_pipe(it.kubeconfig)
        return list(it.asked)


def at_once(watches: Sequence[Asked]) -> dict[str, int]:
    """How many watches of each collection were open at the same time, at most."""
    by_path: dict[str, list[Asked]] = defaultdict(list)
    for each in watches:
        by_path[each.path].append(each)
    return {
        path: max(sum(other.time <= each.time < other.ended for other in some) for each in some)
        for path, some in by_path.items()
    }


def requests(place: Place) -> Iterator[str]:
    """Lines on the watches and the requests of waits."""
    short, long = (counted(place, delay) for delay in (SHORT, LONG))
    for path, most in at_once([each for each in long if each.is_watch]).items():
        yield f"watches of {path.rpartition('/')[2]} open at once: {most} for {len(SERVICES)} services"
    yield f"requests in all, ready after {SHORT} s: {len(short)}; after {LONG} s: {len(long)}"
    waiting = len(long) - len(short)
    yield f"  {LONG - SHORT} s more of waiting ask {waiting} times, {waiting / len(SERVICES):.1f} a service"


# -- all of it -------------------------------------------------------------------------------------


def main(rounds: int) -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory() as name:
        world = real_world(Path(name))
        numbers, mark = itertools.count(1), secrets.token_hex(3)
        ours, theirs = (Place(world, Path(name) / who, f"{who}-{mark}", numbers) for who in ("pipe", "kubectl"))
        for place in (ours, theirs):
            place.folder.mkdir()
            place.write([0.0] * len(SERVICES))
            place.by_pipe()  # it makes the namespace and the pull secret
        try:
            for line in requests(ours):
                print(line, flush=True)
            for row in rolled_out(rounds, ours, theirs):
                print("  ".join(row.cells()), flush=True)
        finally:
            for place in (ours, theirs):
                subprocess.run(place.kubectl("delete", "namespace", place.namespace, "--wait=false"), check=False)


def rolled_out(rounds: int, ours: Place, theirs: Place) -> Iterator[Row]:
    """The rows of times."""
    delays = [3 + 6 * at / (len(SERVICES) - 1) for at in range(len(SERVICES))]

    def anew(place: Place, way: Callable[[], tuple[float, float]]) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            place.write(delays)
            return way()

        return run

    mine, others = interleaved(rounds, anew(ours, ours.by_pipe), anew(theirs, theirs.by_kubectl))
    for at, what in enumerate(("ten services, first deploy to last end", "ten services, the whole process")):
        ratio = Ratio.of([each[at] for each in mine], [each[at] for each in others], None if at else GOAL)
        yield Row(what, "`kubectl rollout status`, the slowest", ratio)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
