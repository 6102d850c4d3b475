"""What each forge is asked to show beside a commit, and that no token goes where it does not belong."""

from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from runner.server.database import runs, statuses
from runner.server.feedback import RUNNING, Call, Feedback, Status, call_for, run_link
from runner.server.projects import Project
from tests.runner.server.office import Office
from tests.support.receivers import Heard, http_receiver
from tests.support.wait import until

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


@pytest.mark.parametrize(
    ("forge", "url", "key"),
    [
        ("github", SHOP.url, "target_url"),
        ("gitea", SHOP.url, "target_url"),
        ("gitee", SHOP.url, "target_url"),
        ("gitlab", SHOP.url, "target_url"),
        ("bitbucket", "https://bitbucket.org/team/shop.git", "url"),
    ],
)
def test_a_status_leads_to_the_page_of_its_run(forge: str, url: str, key: str) -> None:
    linked = call(forge, url, replace(STATUS, link=run_link("https://ci.example/", "01RUN")))
    assert linked is not None
    assert linked.body[key] == "https://ci.example/runs/01RUN"
    bare = call(forge, url, replace(STATUS, link=run_link("", "01RUN")))
    assert bare is not None
    assert bare.body.get(key, SHOP.url) in (SHOP.url, url)


def tell(office: Office, project: str, forge: Heard) -> None:
    """A run of a project on that forge, whose status is to be told."""
    office.project(project, f"http://127.0.0.1:{forge.port}/team/{project}.git", "gitea", "t0ken")
    id_ = office.begun()
    told = {"run": id_, "state": "pending", "description": RUNNING}
    office.database.write_now(
        lambda c: c.execute(runs.update().where(runs.c.id == id_).values(project=project, place=project))
    )
    office.database.write_now(lambda c: c.execute(insert(statuses).values(told)))


def untold(office: Office) -> int:
    wanted = select(statuses.c.run).where(statuses.c.told.is_(False))
    return len(office.database.read_now(lambda c: c.execute(wanted).all()))


@pytest.mark.network
def test_a_forge_that_hangs_holds_up_nobody_else(office: Office, hook: Heard) -> None:
    with http_receiver() as deaf:
        deaf.hangs.set()
        tell(office, "deaf", deaf)
        with office.working(lambda registry: Feedback(registry.database, registry, "https://ci.example")) as wake:
            until(lambda: deaf.bodies)
            tell(office, "quick", hook)
            wake()
            until(lambda: untold(office) == 1)
            assert notes(office) == {""}  # the other one is still being asked
    assert hook.paths == [f"/api/v1/repos/team/quick/statuses/{'c' * 40}"]
    assert hook.headers[0]["Authorization"] == "token t0ken"
    assert hook.json()[0]["target_url"].startswith("https://ci.example/runs/run")


@pytest.mark.network
def test_a_status_that_is_refused_is_tried_again(office: Office, hook: Heard) -> None:
    hook.answers = [500]
    tell(office, "quick", hook)
    with office.working(lambda registry: Feedback(registry.database, registry)) as wake:
        until(lambda: len(hook.bodies) == 1)
        until(lambda: any("500" in note for note in notes(office)))
        office.database.write_now(lambda c: c.execute(statuses.update().values(due=0.0)))
        wake()
        until(lambda: untold(office) == 0)
    assert "target_url" not in hook.json()[1]


def notes(office: Office) -> set[str]:
    return set(office.database.read_now(lambda c: c.execute(select(statuses.c.note)).scalars().all()))
