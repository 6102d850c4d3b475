"""Where teams keep secrets, for real: SOPS, and a HashiCorp Vault on loopback, each compiled out of its Go module."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.cache import bound_to_us
from sandbox.go_program import GoProgram
from sandbox.layout import SandboxError

__all__ = ["SOPS", "VAULT", "RunningVault", "vault"]

READY_WITHIN = 30.0
ROOT = "root-token-of-the-sandbox"

SOPS = GoProgram(
    name="sops",
    version="3.13.3",
    source=Path(__file__).parent / "sops",
    package="github.com/getsops/sops/v3/cmd/sops",
    flags=("-trimpath", "-ldflags", "-s -w"),
    packages=1030,
    minutes=2,
    toolchain="1.26.2",
)

VAULT = GoProgram(
    name="vault",
    version="1.19.0",
    source=Path(__file__).parent / "vault",
    package="github.com/hashicorp/vault",
    flags=("-tags", "minimal", "-trimpath", "-ldflags", "-s -w"),
    packages=1600,
    minutes=3,
    toolchain="1.26.2",
)


@dataclass(frozen=True)
class RunningVault:
    """A Vault that keeps everything in memory, with a key-value engine of version 2 at `secret`."""

    url: str
    token: str = ROOT

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of its API, as its first administrator."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": self.token}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")


@contextmanager
def vault(folder: Path) -> Iterator[RunningVault]:
    """A Vault that runs until the end of the block; `folder` is where its log goes.

    Raises:
        SandboxError: it cannot be built, or does not answer in time.
    """
    program = VAULT.ensure()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [str(program), "server", "-dev", f"-dev-root-token-id={ROOT}", f"-dev-listen-address={address}"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    log = folder / "vault.log"
    with log.open("wb") as output:
        server = subprocess.Popen(bound_to_us(command), stdout=output, stderr=subprocess.STDOUT, env=env, cwd=folder)
    try:
        running = RunningVault(f"http://{address}")
        _wait(running, server, log)
        yield running
    finally:
        server.kill()
        server.wait(10)


def _wait(running: RunningVault, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        try:
            running.call("GET", "sys/mounts/secret")
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
        else:
            return
    raise SandboxError(f"Vault does not answer:\n{log.read_text()[-2000:]}")
