"""Roles, and how long somebody waits who guesses or asks too often: plain functions."""

import pytest

from pipeline.errors import PipeError
from runner.server.passwords import check
from runner.server.rights import ADMIN, MEMBER, ROLES, Grant, Verb, may, reach, within
from runner.server.throttle import MOST, Bucket, Delays, SignIns


@pytest.mark.parametrize(
    ("grants", "verb", "project", "expected"),
    [
        ([], Verb.VIEW, "shop", False),
        ([Grant(MEMBER)], Verb.RUN, "shop", True),
        ([Grant(MEMBER)], Verb.MANAGE_PROJECTS, "shop", False),
        ([Grant(MEMBER, "shop")], Verb.RUN, "shop", True),
        ([Grant(MEMBER, "shop")], Verb.RUN, "docs", False),
        ([Grant(MEMBER, "shop")], Verb.VIEW, "", False),
        ([Grant(ADMIN, "shop")], Verb.MANAGE_PEOPLE, "", False),
        ([Grant(ADMIN, "shop"), Grant(MEMBER)], Verb.REDELIVER, "docs", False),
        ([Grant("gone")], Verb.VIEW, "shop", False),
    ],
)
def test_a_role_allows_its_verbs_where_it_holds(
    grants: list[Grant], verb: Verb, project: str, *, expected: bool
) -> None:
    assert may(grants, verb, project) is expected


def test_an_administrator_may_do_everything_everywhere() -> None:
    assert all(may([Grant(ADMIN)], verb, project) for verb in Verb for project in ("", "shop"))


def test_what_somebody_reaches_is_some_projects_or_all() -> None:
    assert reach([Grant(MEMBER, "shop"), Grant(ADMIN, "docs")], Verb.VIEW) == frozenset({"shop", "docs"})
    assert reach([Grant(MEMBER, "shop"), Grant(ADMIN, "docs")], Verb.REDELIVER) == frozenset({"docs"})
    assert reach([Grant(MEMBER, "shop"), Grant(MEMBER)], Verb.VIEW) is None
    assert reach([], Verb.VIEW) == frozenset()


def test_nobody_gives_more_than_they_have() -> None:
    assert within(Grant(MEMBER, "shop"), [Grant(ADMIN)])
    assert within(Grant(MEMBER, "shop"), [Grant(MEMBER)])
    assert not within(Grant(MEMBER), [Grant(ADMIN, "shop")])
    assert not within(Grant(ADMIN, "shop"), [Grant(MEMBER)])


def test_a_role_is_read_as_it_is_written() -> None:
    assert [Grant.read(words) for words in ("admin", "member@shop")] == [Grant("admin"), Grant("member", "shop")]
    assert [str(Grant(role, "x")) for role in ROLES] == ["admin@x", "member@x"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    bucket = Bucket(3, 2, clock)
    assert [bucket.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take("b") == 0
    clock.now = 0.5
    assert [bucket.take("a") for _ in range(2)] == [0, 0.5]
    clock.now = 100
    assert [bucket.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_wrong_passwords_wait_longer_and_longer_until_there_was_an_hour_of_peace() -> None:
    clock = Clock()
    delays = Delays(2, 10, clock)
    waits = []
    for _ in range(8):
        waits.append(delays.wait("a"))
        delays.failed("a")
    assert waits == [0, 0, 1, 2, 4, 8, 10, 10]
    clock.now = 3601
    delays.failed("a")
    assert delays.wait("a") == 0


def test_a_stranger_who_guesses_does_not_keep_the_person_out() -> None:
    clock = Clock()
    signs = SignIns(clock)
    for _ in range(1000):
        signs.trying("ann", "10.0.0.6")
    assert signs.wait("ann", "10.0.0.6") == 900
    assert signs.wait("bob", "10.0.0.6") == 900, "the address waits, whatever name it tries"
    assert signs.wait("ann", "10.0.0.7") == 15, "others wait a little"
    signs.passed("ann", "10.0.0.7")
    assert signs.wait("ann", "10.0.0.7") == 0


def test_no_stranger_fills_the_memory() -> None:
    bucket, delays = Bucket(1, 1), Delays(1, 10)
    for number in range(MOST + 500):
        bucket.take(str(number))
        delays.failed(str(number))
    assert len(bucket._left) == len(delays._tries) == MOST
    assert delays.wait(str(MOST + 499)) > 0
    assert delays.wait("0") == 0


@pytest.mark.parametrize("password", ["", "short", "a" * 40, "abababababababab", "annannannann", "x" * 300])
def test_a_password_that_is_guessed_is_none(password: str) -> None:
    with pytest.raises(PipeError, match="the password is"):
        check(password, "ann")
