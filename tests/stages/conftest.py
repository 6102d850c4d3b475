"""What the tests of all kinds share."""

from pathlib import Path

import pytest

from pipeline.stage import StageContext
from tests.support.context import FakeContext


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def ctx(tmp_path: Path) -> FakeContext:
    return FakeContext(tmp_path)


def _satisfies(ctx: FakeContext) -> StageContext:
    """Only mypy reads this: the fake is what the contract says."""
    return ctx
