"""Badges tell how the newest run is, to eyes and to screen readers, and nothing in a name becomes markup."""

from xml.etree import ElementTree as ET

import pytest

from runner.server.badges import badge_of, picture, word_of
from tests.runner.server.office import Office

MAIN = "refs/heads/main"


def word(office: Office, ref: str = MAIN) -> str:
    return office.database.read_now(lambda c: word_of(c, "shop", "backend", ref))


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("succeeded", "passing"),
        ("failed", "failing"),
        ("errored", "failing"),
        ("timed-out", "failing"),
        ("cancelled", "cancelled"),
    ],
)
def test_the_newest_run_decides(office: Office, outcome: str, shown: str) -> None:
    office.ended("failed" if shown == "passing" else "succeeded")
    office.ended(outcome)
    assert word(office) == shown


def test_a_run_under_way_is_shown_as_one_and_none_as_unknown(office: Office) -> None:
    assert word(office) == "unknown"
    office.begun()
    assert word(office) == "running"


def test_without_a_branch_only_branches_count(office: Office) -> None:
    office.ended("succeeded", ref="refs/heads/a")
    office.ended("failed", ref="refs/pull/1/head")
    office.ended("failed", ref="refs/tags/v1")
    assert word(office, "") == "passing"
    assert word(office, "refs/heads/b") == "unknown"


def test_a_name_is_never_markup_and_is_read_aloud() -> None:
    svg = ET.fromstring(picture('<a&b"> 后端\x01', "failing"))  # noqa: S314
    assert svg.get("aria-label") == '<a&b"> 后端 : failing'
    title = svg.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == svg.get("aria-label")
    assert len(picture("x" * 10_000, "unknown")) < 1500


def test_the_same_picture_has_the_same_tag_and_another_one_another(office: Office) -> None:
    def tag(pipeline: str) -> str:
        return office.database.read_now(lambda c: badge_of(c, "shop", pipeline, MAIN)).tag

    office.ended("failed")
    assert tag("backend") == tag("backend")
    assert tag("backend") != tag("other")
