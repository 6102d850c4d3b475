"""The program against the real world of the sandbox."""

import json
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from docker import APIClient

import sandbox
from sandbox import Sandbox
from sandbox.release import environment
from tests.support.program import host


@dataclass(frozen=True)
class World:
    """The sandbox, and how tests look at it without our own clients."""

    sandbox: Sandbox

    def env(self, **more: str) -> dict[str, str]:
        """What a user of the sandbox has in the environment."""
        return host(**{**environment(self.sandbox.env), **more})

    def kubectl(self, *words: str) -> str:
        argv = ["kubectl", f"--kubeconfig={self.sandbox.kubeconfig}", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    def objects(self, namespace: str, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("-n", namespace, "get", kind, "-o", "json"))["items"]
        return items

    def registry(self, path: str) -> dict[str, Any]:
        """What the registry's own API says."""
        login = b64encode(f"{self.sandbox.registry_user}:{self.sandbox.registry_password}".encode()).decode()
        url = f"http://{self.sandbox.registry}/v2/{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            found: dict[str, Any] = json.loads(response.read())
        return found

    def get(self, port: int, path: str = "/", timeout: float = 10) -> str:
        """A page at a NodePort."""
        url = f"http://{self.sandbox.node}:{port}{path}"
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return str(response.read().decode())

    def answers(self, port: int) -> bool:
        """Whether anybody listens at a NodePort."""
        try:
            self.get(port)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def mails(self) -> list[str]:
        return [path.read_text() for path in sorted(self.sandbox.mail_dir.glob("*.eml"))]


@pytest.fixture(scope="session")
def world() -> World:
    return World(sandbox.ensure())


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    """A namespace of the test's own, removed afterwards."""
    name = f"pipe-test-{uuid4().hex[:8]}"
    yield name
    world.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder for sources that a test makes up."""
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def busybox(world: World) -> str:
    """A busybox in the registry."""
    given = world.sandbox
    engine = APIClient(base_url=given.docker_host)
    engine.tag("busybox:1", f"{given.registry}/lib/busybox", "1")
    login = {"username": given.registry_user, "password": given.registry_password}
    for line in engine.push(f"{given.registry}/lib/busybox", "1", auth_config=login, stream=True, decode=True):
        assert "error" not in line, line
    engine.close()
    return f"{given.registry}/lib/busybox:1"
