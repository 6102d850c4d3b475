"""What each forge is asked to show beside a commit, and that no token goes where it does not belong."""

from dataclasses import replace

import pytest

from runner.server.feedback import RUNNING, Call, Status, call_for
from runner.server.projects import Project

STATUS = Status("backend", 7, "c" * 40, "pending", "waits for its start")
SHOP = Project("shop", "https://git.example/team/shop.git", forge="gitea", token="t0ken")


def call(forge: str, url: str = SHOP.url, status: Status = STATUS) -> Call | None:
    return call_for(replace(SHOP, forge=forge, url=url), status)


@pytest.mark.parametrize(
    ("forge", "url", "asked"),
    [
        ("gitea", SHOP.url, "https://git.example/api/v1/repos/team/shop/statuses/"),
        ("gitea", "ssh://git@git.example:2222/team/shop.git", "https://git.example/api/v1/repos/team/shop/statuses/"),
        ("gitea", "http://127.0.0.1:3000/team/shop.git", "http://127.0.0.1:3000/api/v1/repos/team/shop/statuses/"),
        ("github", "https://github.com/team/shop", "https://api.github.com/repos/team/shop/statuses/"),
        ("github", SHOP.url, "https://git.example/api/v3/repos/team/shop/statuses/"),
        ("gitlab", SHOP.url, "https://git.example/api/v4/projects/team%2Fshop/statuses/"),
        ("gitee", "https://gitee.com/team/shop.git", "https://gitee.com/api/v5/repos/team/shop/statuses/"),
        (
            "bitbucket",
            "https://bitbucket.org/team/shop.git",
            "https://api.bitbucket.org/2.0/repositories/team/shop/commit/",
        ),
    ],
)
def test_each_forge_is_asked_in_its_own_way(forge: str, url: str, asked: str) -> None:
    made = call(forge, url)
    assert made is not None
    assert made.url.startswith(asked + STATUS.commit)
    assert "t0ken" in "".join(made.headers.values())
    assert "t0ken" not in made.url + "".join(made.body.values())


def test_a_token_of_a_data_center_is_sent_to_nobody_else() -> None:
    assert call("bitbucket", "https://bb.example/scm/team/shop.git") is None


def test_nothing_is_told_without_a_token_or_to_nobody() -> None:
    assert call_for(replace(SHOP, token=""), STATUS) is None
    assert call("generic") is None


def test_gitlab_is_told_waiting_and_running_apart() -> None:
    states = [
        made.body["state"]
        for text in ("waits", RUNNING)
        if (made := call("gitlab", status=replace(STATUS, description=text)))
    ]
    assert states == ["pending", "running"]
