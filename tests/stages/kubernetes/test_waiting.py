"""How much time waits may take, whatever is done between them."""

import anyio
import pytest

from stages.clients.kubernetes.waiting import Allowance


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, until a test says otherwise."""
    now = [100.0]
    monkeypatch.setattr(anyio, "current_time", lambda: now[0])
    return now


def test_a_limit_is_for_all_waits_together_and_not_for_what_is_done_between_them(clock: list[float]) -> None:
    allowance = Allowance(10)
    clock[0] += 60
    with allowance.spending() as first:
        clock[0] += 4
    clock[0] += 60
    with allowance.spending() as second:
        assert (first, second) == (10, 6)


def test_when_all_is_spent_there_is_time_for_one_more_look(clock: list[float]) -> None:
    allowance = Allowance(10)
    with allowance.spending():
        clock[0] += 30
    with allowance.spending() as left:
        assert left == 1


def test_a_wait_that_fails_has_cost_its_time_too(clock: list[float]) -> None:
    allowance = Allowance(10)

    def fail() -> None:
        with allowance.spending():
            clock[0] += 3
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - whatever it is
        fail()
    with allowance.spending() as left:
        assert left == 7
