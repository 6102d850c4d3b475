"""Checkouts of their own for tests: a developer's running sandbox is never touched."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from sandbox import cgroups, network, probes, world
from sandbox.layout import CHECKOUT, Layout
from sandbox.lifecycle import read_env

BRINGING_OWN = ("DOCKER_HOST", "PIPE_KUBECONFIG", "PIPE_REGISTRY", "PIPE_REGISTRY_USER", "PIPE_REGISTRY_PASSWORD")


@dataclass(frozen=True)
class Copy:
    """A checkout that holds nothing but `sandbox/`."""

    layout: Layout

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sandbox", *arguments]

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, limit: float = 900
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.layout.checkout,
            env={**clean(), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )

    def up(self) -> None:
        done = self.run("up")
        assert done.returncode == 0, done.stderr

    @property
    def env(self) -> dict[str, str]:
        return read_env(self.layout)

    @property
    def cluster(self) -> probes.Cluster:
        return probes.Cluster(self.env["PIPE_NODE"], self.layout.state / "pki")


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in BRINGING_OWN}


def copy_into(folder: Path) -> Copy:
    checkout = folder / "checkout"
    shutil.copytree(CHECKOUT / "sandbox", checkout / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    return Copy(Layout(checkout))


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    made = copy_into(tmp_path)
    yield made
    made.run("down")


@pytest.fixture(scope="module")
def world_copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A real sandbox for the tests of a module, in a checkout whose path is longer than a socket's may be."""
    made = copy_into(tmp_path_factory.mktemp("a-path-that-is-rather-long-" + "x" * 90))
    made.up()
    yield made
    made.run("down")


def within(limit: float, condition: object) -> bool:
    """Whether `condition()` becomes true in time."""
    assert callable(condition)
    deadline = monotonic() + limit
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.1)
    return True


def leftovers(layout: Layout, pid_namespace: str = "-") -> list[str]:
    """Everything of a sandbox that is still on this machine, but for its state folder."""
    links = [path.name for path in Path("/sys/class/net").iterdir() if path.name == layout.mark]
    rules = [rule for table in ("nat", "filter") for rule in network.marked_rules(layout, table)]
    groups = [str(root / layout.mark) for root, _ in cgroups.hierarchies() if (root / layout.mark).exists()]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(layout.checkout) in line]
    sockets = [str(layout.sockets)] if layout.sockets.exists() else []
    return links + rules + groups + mounts + sockets + _processes(layout, pid_namespace)


def _processes(layout: Layout, pid_namespace: str) -> list[str]:
    at_home = [pid for pid in _pids() if _link(pid, "cwd").is_relative_to(layout.checkout)]
    return [f"process {pid}" for pid in {*pids_inside(pid_namespace), *at_home} if world.birth(pid)]


def pids_inside(pid_namespace: str) -> list[int]:
    return [pid for pid in _pids() if str(_link(pid, "ns/pid")) == pid_namespace]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _link(pid: int, name: str) -> Path:
    try:
        return Path(f"/proc/{pid}/{name}").readlink()
    except OSError:
        return Path()


def pid_namespace(layout: Layout) -> str:
    return str(Path(f"/proc/{world.record(layout)['pid']}/ns/pid").readlink())
