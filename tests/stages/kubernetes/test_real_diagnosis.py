"""Faults on a real cluster: the first line is the cause, the evidence holds the proof, and there is a way out."""

import anyio
import pytest

from pipeline.stage import StageFailed
from tests.stages.kubernetes.faults import FAULTS, Fault
from tests.stages.kubernetes.faulty import Told, make
from tests.stages.kubernetes.support import World

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture(scope="module")
def told(world: World) -> dict[str, Told]:
    """Every fault, all of them at once."""
    return anyio.run(make, world, FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_cause_is_in_the_first_line_and_proven(told: dict[str, Told], fault: Fault) -> None:
    one = told[fault.name]
    assert isinstance(one.result.error, StageFailed), one.result.ctx.text
    assert one.said in one.result.message
    assert "\n" not in one.result.message
    assert fault.holds in one.result.evidence
    assert fault.hint in one.result.error.cause.hint
