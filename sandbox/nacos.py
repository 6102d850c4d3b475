"""A registry in which services find each other: rnacos, which speaks Nacos' own API, compiled out of its crate."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.cache import bound_to_us
from sandbox.layout import SandboxError
from sandbox.rust_program import RustProgram

__all__ = ["RNACOS", "RunningNacos", "nacos"]

READY_WITHIN = 60.0
USER, PASSWORD = "pipe", "password-of-the-sandbox"

RNACOS = RustProgram(name="rnacos", version="0.8.8", crates=440, minutes=5)


@dataclass(frozen=True)
class RunningNacos:
    """A server with one user. Without a login its API is open, unless it was started `guarded`."""

    url: str
    username: str = USER
    password: str = PASSWORD

    def call(self, method: str, path: str, **fields: str) -> Any:
        """One call of its API below `/nacos/v1`, with these fields; what it answers, as JSON or as text."""
        query = urllib.parse.urlencode(fields)
        login = path.startswith("/auth/")
        url = f"{self.url}/v1{path}" + ("" if login else f"?{query}")
        request = urllib.request.Request(url, query.encode() if login else None, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def register(self, ip: str, port: int, service: str, **more: str) -> None:
        """Register an address, as its own client does; ephemeral unless said."""
        self.call("POST", "/ns/instance", ip=ip, port=str(port), serviceName=service, **more)

    def deregister(self, ip: str, port: int, service: str, **more: str) -> None:
        """Take an address away again."""
        self.call("DELETE", "/ns/instance", ip=ip, port=str(port), serviceName=service, **more)


@contextmanager
def nacos(folder: Path, host: str = "127.0.0.1", *, guarded: bool = False) -> Iterator[RunningNacos]:
    """A server that runs until the end of the block, on a free port of `host`.

    Args:
        folder: where its data and its log go.
        host: the address that it listens at.
        guarded: it wants a login.

    Raises:
        SandboxError: it cannot be built, or does not answer in time.
    """
    program = RNACOS.ensure()
    port, grpc = _free(host), _free(host)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RNACOS_SDK_HOST": host,
        "RNACOS_HTTP_PORT": str(port),
        "RNACOS_GRPC_PORT": str(grpc),
        "RNACOS_RAFT_NODE_ADDR": f"{host}:{grpc}",
        "RNACOS_HTTP_CONSOLE_PORT": "0",
        "RNACOS_DATA_DIR": str(folder / "data"),
        "RNACOS_ENABLE_OPEN_API_AUTH": str(guarded).lower(),
        "RNACOS_INIT_ADMIN_USERNAME": USER,
        "RNACOS_INIT_ADMIN_PASSWORD": PASSWORD,
    }
    log = folder / "rnacos.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            bound_to_us([str(program)]), stdout=output, stderr=subprocess.STDOUT, env=env, cwd=folder
        )
    try:
        running = RunningNacos(f"http://{host}:{port}/nacos")
        _wait(running, server, log)
        yield running
    finally:
        server.kill()
        server.wait(10)


def _free(host: str) -> int:
    with socket.create_server((host, 0)) as free:
        return int(free.getsockname()[1])


def _wait(running: RunningNacos, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until it takes a login: then its store is there too."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        try:
            running.call("POST", "/auth/login", username=USER, password=PASSWORD)
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.2)
        else:
            return
    raise SandboxError(f"rnacos does not answer:\n{log.read_text()[-2000:]}")
