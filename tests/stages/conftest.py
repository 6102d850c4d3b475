"""What the tests of all kinds share."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from pipeline.stage import StageContext
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
