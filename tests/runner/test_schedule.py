"""Needs, word by word: when a leaf may start, when it never will, and what is said then."""

from datetime import timedelta

import pytest

from pipeline.plan import Leaf, Need, NeedWord
from pipeline.stage import Cause, CauseKind, Outcome
from runner.schedule import End, Schedule

GREEN = End(Outcome.SUCCEEDED)
RED = End(Outcome.FAILED, Cause(CauseKind.USER, "no"))
ALLOWED = End(Outcome.FAILED, Cause(CauseKind.USER, "no"), allowed=True)
CONDITION = End(Outcome.SKIPPED, Cause(CauseKind.CONDITION, "when: false", ("a",)))
DEPENDENCY = End(Outcome.SKIPPED, Cause(CauseKind.DEPENDENCY, "needs z: z failed", ("z", "failed")))


def leaf(name: str, *needs: Need) -> Leaf:
    return Leaf(name=name, stage=name.partition("[")[0], uses="probe", timeout=timedelta(hours=1), needs=needs)


def need(*leaves: str, word: str = "ok", group: bool = False) -> Need:
    return Need(on=leaves[0].partition("[")[0], leaves=leaves, word=NeedWord(word), group=group)


def decisions(schedule: Schedule) -> dict[str, Cause | None]:
    return {ready.name: cause for ready, cause in schedule.ready()}


def test_what_needs_nothing_starts_at_once_in_the_order_of_the_file() -> None:
    assert list(decisions(Schedule([leaf("b"), leaf("a")]))) == ["b", "a"]


def test_a_leaf_is_handed_out_once() -> None:
    schedule = Schedule([leaf("a")])
    assert decisions(schedule) == {"a": None}
    assert decisions(schedule) == {}


def test_a_leaf_starts_the_moment_its_own_need_is_met_whatever_its_siblings_do() -> None:
    schedule = Schedule([leaf("x"), leaf("y"), leaf("after_x", need("x")), leaf("after_y", need("y"))])
    decisions(schedule)
    schedule.ended("x", GREEN)
    assert decisions(schedule) == {"after_x": None}


@pytest.mark.parametrize(
    ("word", "end", "starts"),
    [
        ("ok", GREEN, True),
        ("ok", ALLOWED, True),
        ("ok", RED, False),
        ("ok", CONDITION, False),
        ("ok", DEPENDENCY, False),
        ("optional", GREEN, True),
        ("optional", CONDITION, True),
        ("optional", RED, False),
        ("optional", DEPENDENCY, False),
        ("ended", RED, True),
        ("ended", CONDITION, True),
        ("ended", DEPENDENCY, True),
        ("ended", End(Outcome.CANCELLED), True),
    ],
)
def test_each_word_of_a_need_asks_for_its_own_ends(word: str, end: End, *, starts: bool) -> None:
    schedule = Schedule([leaf("a"), leaf("b", need("a", word=word))])
    decisions(schedule)
    schedule.ended("a", end)
    assert (decisions(schedule)["b"] is None) is starts


@pytest.mark.parametrize(
    ("ends", "starts"),
    [
        ([GREEN, GREEN], True),
        ([GREEN, CONDITION], True),
        ([CONDITION, CONDITION], False),
        ([GREEN, RED], False),
        ([GREEN, DEPENDENCY], False),
        ([ALLOWED, CONDITION], True),
    ],
)
def test_a_fan_out_is_met_when_every_leaf_is_skipped_ones_not_counted_one_at_least(
    ends: list[End], *, starts: bool
) -> None:
    schedule = Schedule([leaf("a[1]"), leaf("a[2]"), leaf("b", need("a[1]", "a[2]", group=True))])
    decisions(schedule)
    for name, end in zip(("a[1]", "a[2]"), ends, strict=True):
        schedule.ended(name, end)
    assert (decisions(schedule)["b"] is None) is starts


def test_a_fan_out_with_a_failed_leaf_is_not_waited_for() -> None:
    schedule = Schedule([leaf("a[1]"), leaf("a[2]"), leaf("b", need("a[1]", "a[2]", group=True))])
    decisions(schedule)
    schedule.ended("a[1]", RED)
    cause = decisions(schedule)["b"]
    assert cause == Cause(CauseKind.DEPENDENCY, "needs a: a[1] failed", ("a[1]", "failed"))


def test_a_skip_names_the_root_however_far_up_it_is() -> None:
    schedule = Schedule([leaf("a"), leaf("b", need("a")), leaf("c", need("b")), leaf("d", need("c"))])
    decisions(schedule)
    schedule.ended("a", RED)
    last = None
    for ready, cause in schedule.ready():
        schedule.ended(ready.name, End(Outcome.SKIPPED, cause))
        last = cause
    assert last == Cause(CauseKind.DEPENDENCY, "needs c: a failed", ("a", "failed"))


def test_what_a_condition_skipped_skips_its_dependants_by_the_same_condition() -> None:
    schedule = Schedule([leaf("a"), leaf("b", need("a"))])
    decisions(schedule)
    schedule.ended("a", CONDITION)
    assert decisions(schedule)["b"] == Cause(CauseKind.CONDITION, "needs a, skipped by a", ("a",))


def test_a_chain_of_five_thousand_is_decided_without_recursion() -> None:
    chain = [leaf("s0"), *(leaf(f"s{i}", need(f"s{i - 1}")) for i in range(1, 5000))]
    schedule = Schedule(chain)
    for ready, _ in schedule.ready():
        schedule.ended(ready.name, GREEN)
    assert schedule.waiting == ()
