"""What the tests against a real cluster share."""

import secrets
from collections.abc import Iterator
from contextlib import nullcontext

import docker
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

import sandbox
from pipeline.stage import Login
from tests.stages.kubernetes.support import World, forget


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """As for all kinds, but a kubeconfig is read in a thread that has an event loop of its own."""
    real = request.node.get_closest_marker("sandbox")
    with nullcontext(BlockBuster()) if real else blockbuster_ctx("stages") as guard:
        for function in guard.functions.values():
            function.can_block_in("stages/clients/kubernetes/access.py", {"_load"})
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    given = sandbox.ensure()
    engine = docker.APIClient(base_url=given.docker_host)
    engine.tag("busybox:1", f"{given.registry}/lib/busybox", "1")
    auth = {"username": given.registry_user, "password": given.registry_password}
    for line in engine.push(f"{given.registry}/lib/busybox", "1", auth_config=auth, stream=True, decode=True):
        assert "error" not in line, line
    engine.close()
    login = Login(given.registry_user, given.registry_password)
    return World(f"{given.registry}/lib/busybox:1", login, given.kubeconfig, tmp_path_factory.mktemp("deploys"))


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    name = f"pipe-test-{secrets.token_hex(4)}"
    yield name
    forget(world, name)
