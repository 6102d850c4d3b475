"""The suite is hostile: no unmarked network, no blocking call on the event loop, no warning."""

import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

settings.register_profile("pipe", deadline=None)  # how long an example takes says more of the machine than of the code
settings.load_profile("pipe")

_SHORT_BY_DESIGN = (
    "runner/journal.py",
    "runner/logs.py",
    "runner/orders.py",
    "runner/ownership.py",
    "runner/process.py",
    "runner/cgroups.py",
    "runner/folder.py",
    "runner/store.py",
    "runner/stopper.py",
)
"""The engine writes its own events and logs and reads its pipes on the loop."""

_METADATA = (
    "os.stat",
    "os.mkdir",
    "os.rmdir",
    "os.unlink",
    "os.listdir",
    "os.scandir",
    "os.access",
    "os.path.",
    "os.getcwd",
    "os.readlink",
)
"""Microseconds on a local disk; threads would cost more."""


class _Any:
    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """With `--dist loadfile`, keep all files whose tests share the one sandbox with one worker."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class OneForTheSandbox(LoadFileScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "the sandbox" if _uses_the_sandbox(config.rootpath / file) else file

    return OneForTheSandbox(config, log)


@cache
def _uses_the_sandbox(file: Path) -> bool:
    return "mark.sandbox" in file.read_text()


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """A server in this process makes it strict, and files of later tests would be nobody else's."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def anyio_backend() -> str:
    """asyncio, as `kubernetes.aio` needs it."""
    return "asyncio"


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection of a test that is not marked `network` or `sandbox`."""
    if request.node.get_closest_marker("network") or request.node.get_closest_marker("sandbox"):
        return

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            pytest.fail(f"this test is not marked network or sandbox, and connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """Fail on a call that blocks the event loop."""
    if request.node.get_closest_marker("sandbox"):
        yield None
        return
    with blockbuster_ctx(["pipeline", "stages", "runner"]) as guard:
        for name, function in guard.functions.items():
            if name.startswith(_METADATA):
                function.deactivate()
            for file in _SHORT_BY_DESIGN:
                function.can_block_in(file, _Any())
        yield guard
