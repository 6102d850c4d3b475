"""Nodes that are not there: KWOK plays their kubelets, so that hundreds of pods cost the machine next to nothing."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.cache import bound_to_us
from sandbox.go_program import GoProgram

__all__ = ["KWOK", "LABEL", "simulated_nodes"]

LABEL = "pipe-ci/simulated"
"""On the nodes; a pod that is to run there selects it and tolerates the taint of the same name."""
PODS = 110
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
"""KWOK's own rules for nodes and pods that do everything at once."""

KWOK = GoProgram(
    name="kwok",
    version="0.8.0",
    source=Path(__file__).parent / "kwok",
    package="sigs.k8s.io/kwok/cmd/kwok",
    flags=("-trimpath", "-ldflags", "-s -w"),
    packages=970,
    minutes=2,
    toolchain="1.26.2",
)


@contextmanager
def simulated_nodes(kubeconfig: Path | str, count: int, folder: Path) -> Iterator[None]:
    """So many nodes until the end of the block; `folder` is where KWOK's log goes."""
    program = KWOK.ensure()
    nodes = json.dumps({"apiVersion": "v1", "kind": "List", "items": [_node(n) for n in range(count)]})
    kubectl = ["kubectl", f"--kubeconfig={kubeconfig}"]
    subprocess.run([*kubectl, "apply", "-f", "-"], input=nodes, text=True, check=True, capture_output=True, timeout=60)
    stages = KWOK.module("sigs.k8s.io/kwok") / "kustomize" / "stage"
    config = [f"--config={stages / file}" for file in STAGES]
    command = [str(program), f"--kubeconfig={kubeconfig}", f"--manage-nodes-with-label-selector={LABEL}", *config]
    with (folder / "kwok.log").open("wb") as log:
        player = subprocess.Popen(bound_to_us(command), stdout=log, stderr=log, cwd=folder)
    try:
        ready = [*kubectl, "wait", "--for=condition=Ready", "nodes", "-l", LABEL, "--timeout=60s"]
        subprocess.run(ready, check=True, capture_output=True, timeout=70)
        yield
    finally:
        subprocess.run([*kubectl, "delete", "nodes", "-l", LABEL], check=True, capture_output=True, timeout=60)
        player.kill()
        player.wait(10)


def _node(number: int) -> dict[str, Any]:
    room = {"cpu": "32", "memory": "256Gi", "pods": str(PODS)}
    name = f"simulated-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {LABEL: "true", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": {"taints": [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }
