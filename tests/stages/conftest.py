"""What the tests of all kinds share."""

import contextlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from blockbuster import blockbuster_ctx

import sandbox
from pipeline.stage import Login, PreflightContext, StageContext
from sandbox import Sandbox
from tests.support.context import FakeContext


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when a kind or a client blocks the event loop; what a test itself does is its own affair."""
    with nullcontext() if request.node.get_closest_marker("sandbox") else blockbuster_ctx("stages"):
        yield


@pytest.fixture
def ctx(tmp_path: Path) -> FakeContext:
    return FakeContext(tmp_path)


def _satisfies(ctx: FakeContext) -> StageContext:
    """Only mypy reads this: the fake is what the contract says."""
    return ctx


def _looks_ahead(ctx: FakeContext) -> PreflightContext:
    """And for a look ahead."""
    return ctx


# -- the real world --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world() -> Sandbox:
    return sandbox.ensure()


@pytest.fixture
def docker(world: Sandbox) -> Iterator[Any]:
    """A client of the sandbox's engine."""
    from docker import APIClient

    client = APIClient(base_url=world.docker_host, version="auto")
    yield client
    client.close()


@pytest.fixture
def real(tmp_path: Path, world: Sandbox, docker: Any) -> Iterator[FakeContext]:
    """A context in the sandbox, with logins to its registry and git host; leaves no image behind."""
    ctx = FakeContext(tmp_path)
    unique = uuid4().hex[:20].upper()
    ctx.run = replace(ctx.run, id=f"01J{unique}", pipeline=f"test-{unique.lower()}")
    ctx.env["DOCKER_HOST"] = world.docker_host
    ctx.secrets = {
        "registry": Login(world.registry_user, world.registry_password),
        "wrong": Login(world.registry_user, "not-the-password"),
        "git": Login(world.git_user, world.git_password),
    }
    yield ctx
    for image in docker.images(filters={"label": f"pipe.pipeline={ctx.run.pipeline}"}):
        with contextlib.suppress(Exception):
            docker.remove_image(image["Id"], force=True)
