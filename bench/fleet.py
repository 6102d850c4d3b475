"""Two hundred deployments at once on simulated nodes: what the engine takes, and whether each verdict is right."""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sandbox
from sandbox.simulated import LABEL, PODS, simulated_nodes

PIPE = Path(sys.executable).with_name("pipe")
MANY = 200
HOPELESS = 5
"""Of them, how many select a node that does not exist."""

FILE = """name: fleet
secrets: {{kubeconfig: file}}
limits: {{deploy: {many}}}
stages:
  deploy:
    each: [{names}]
    fail_fast: false
    uses: deploy
    with: {{manifests: ["${{each.name}}.json"], namespace: {namespace}, secret: kubeconfig, wait: 60s}}
"""


def deployment(name: str, node: str) -> dict[str, object]:
    """One replica, for the simulated nodes or for none."""
    labels = {"app": name}
    container = {"name": "app", "image": "example.invalid/app:1", "readinessProbe": {"tcpSocket": {"port": 80}}}
    pod = {
        "nodeSelector": {LABEL: node},
        "tolerations": [{"key": LABEL, "operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def engine_of(guardian: int) -> int:
    """The process that does the work."""
    while True:
        children = Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)


def taken(pid: int) -> tuple[int, float]:
    """Peak KiB and seconds of CPU of a process so far."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(peak[1]) if peak else 0, (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print what one run took, and the verdicts that were wrong."""
    given = sandbox.ensure()
    namespace = f"fleet-{secrets.token_hex(3)}"
    names = [f"s{n:03}" for n in range(MANY)]
    hopeless = set(names[:: MANY // HOPELESS])
    with tempfile.TemporaryDirectory() as place, simulated_nodes(given.kubeconfig, -(-MANY // PODS) + 1, Path(place)):
        folder = Path(place)
        for name in names:
            node = "nowhere" if name in hopeless else "true"
            (folder / f"{name}.json").write_text(json.dumps(deployment(name, node)))
        text = FILE.format(many=MANY, names=", ".join(f"{{name: {name}}}" for name in names), namespace=namespace)
        (folder / "fleet.yaml").write_text(text)
        env = {**os.environ, "PIPE_SECRET_KUBECONFIG_FILE": str(given.kubeconfig)}
        began = time.monotonic()
        run = subprocess.Popen(
            [PIPE, "run", "fleet.yaml", "--no-preflight", "-o", "plain", "-j", str(MANY)],
            cwd=folder,
            env=env,
            stdout=subprocess.DEVNULL,
        )
        engine, found = engine_of(run.pid), (0, 0.0)
        while run.poll() is None:
            try:
                found = taken(engine)
            except OSError:
                break
            time.sleep(0.2)
        run.wait()
        seconds = time.monotonic() - began
        wrong, last_green = judged(folder, hopeless)
    subprocess.run(
        ["kubectl", f"--kubeconfig={given.kubeconfig}", "delete", "namespace", namespace, "--wait=false"], check=False
    )
    print(f"{MANY} deployments at once, {HOPELESS} of them hopeless: the last good one after {last_green:.1f} s")
    print(f"the engine: {found[0] >> 10} MiB at most (goal 300), {found[1] / seconds:.2f} cores (goal 1)")
    print(f"wrong verdicts: {', '.join(wrong) or 'none'}")


def judged(folder: Path, hopeless: set[str]) -> tuple[list[str], float]:
    """Leaves whose outcome is not what it should be, and seconds from the start to the last green end."""
    wrong, first, green = [], 0.0, 0.0
    for line in (folder / ".pipe/fleet/1/events.1.jsonl").read_text().splitlines():
        event = json.loads(line)
        first = first or event["time"]
        if event["type"] == "stage.finished":
            name = event["stage"].removeprefix("deploy[").removesuffix("]")
            good = event["outcome"] == "succeeded"
            green = event["time"] if good else green
            wrong += [f"{name} {event['outcome']}"] if good == (name in hopeless) else []
    return wrong, green - first


if __name__ == "__main__":
    main()
