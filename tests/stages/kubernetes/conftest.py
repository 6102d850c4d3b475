"""What the tests against a real cluster share."""

import secrets
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.stages.kubernetes.support import World, forget, real_world


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
    return real_world(tmp_path_factory.mktemp("deploys"))


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    name = f"pipe-test-{secrets.token_hex(4)}"
    yield name
    forget(world, name)
