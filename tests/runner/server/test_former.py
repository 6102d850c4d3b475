"""A project that was removed leaves nothing to another one that gets its name: neither what it knew nor what it did."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from sqlalchemy import insert, select

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.server import inbox, projects
from runner.server.badges import word_of
from runner.server.database import deliveries, refs, runs
from runner.server.dispatcher import Dispatcher, _Watched
from runner.server.ends import Ended
from runner.server.projects import Project, Removed
from tests.runner.server.conftest import TEXT, Repository, Server, on_both
from tests.runner.server.office import Office
from tests.support.program import host, pipe
from tests.support.wait import until

SHOP = Project("shop", "https://git.example/shop.git")
LEAVING = """name: demo
triggers: {push: {branches: [main]}}
stages:
  s: {run: "echo old words; echo old > left; touch BEGAN; until test -e GO; do sleep 0.1; done", artifacts: [left]}
"""


def again(office: Office) -> Project:
    """The project is removed, and another one gets its name."""
    office.database.write_now(partial(projects.remove, name="shop"))
    return office.database.write_now(partial(projects.add, seal=office.seal, project=SHOP))


def names(office: Office) -> list[tuple[str, str]]:
    return [tuple(row) for row in office.database.read_now(lambda c: c.execute(select(runs.c.project, runs.c.place)))]


def test_each_project_of_a_name_has_a_place_of_its_own(office: Office) -> None:
    assert [again(office).place for _ in range(3)] == ["shop~2", "shop~3", "shop~4"]
    found = office.database.read_now(partial(projects.find, seal=office.seal, name="shop"))
    assert found is not None
    assert found.place == "shop~4"


def test_runs_of_a_former_project_have_a_name_that_no_project_can_have_and_stay_where_they_are(office: Office) -> None:
    office.ended("succeeded")
    again(office)
    assert names(office) == [("shop~1", "shop")]
    assert office.database.read_now(lambda c: word_of(c, "shop", "backend", "refs/heads/main")) == "unknown"
    with pytest.raises(PipeError, match="is no name"):
        office.database.write_now(partial(projects.add, seal=office.seal, project=Project("shop~1", SHOP.url)))


def test_what_is_kept_for_a_project_while_it_is_removed_is_not_for_the_next_one(office: Office) -> None:
    office.database.write_now(partial(projects.remove, name="shop"))
    office.begun()
    office.database.write_now(lambda c: c.execute(insert(refs).values(project="shop", ref="r", commit="c", moves=1)))
    office.database.write_now(partial(projects.add, seal=office.seal, project=SHOP))
    assert names(office) == [("shop~1", "shop")]
    assert office.database.read_now(lambda c: c.execute(select(refs)).all()) == []


def test_a_delivery_of_a_former_project_is_not_worked_again(office: Office) -> None:
    row = {"id": "d", "project": "shop", "forge": "gitea", "key": "k", "received": 1.0, "headers": "{}"}
    rest = {"body": b"{}", "size": 2, "state": "done"}
    office.database.write_now(lambda c: c.execute(insert(deliveries).values(**row, **rest)))
    again(office)
    assert office.database.write_now(partial(inbox.again, id_="d")) == "its project was removed"
    office.database.write_now(lambda c: c.execute(insert(deliveries).values(**{**row, "id": "e"}, **rest)))


def test_a_delivery_that_was_sent_again_after_the_removal_is_no_hindrance(office: Office) -> None:
    row = {"project": "shop", "forge": "gitea", "key": "k", "received": 1.0, "headers": "{}", "body": b"{}", "size": 2}
    keep = partial(insert, deliveries)
    office.database.write_now(lambda c: c.execute(keep().values(id="d", state="done", **row)))
    office.database.write_now(partial(projects.remove, name="shop"))
    for id_, state in (("e", "done"), ("f", "refused")):
        office.database.write_now(lambda c, i=id_, s=state: c.execute(keep().values(id=i, state=s, **row)))  # type: ignore[misc]
    office.database.write_now(partial(projects.add, seal=office.seal, project=SHOP))
    left = select(deliveries.c.id, deliveries.c.project).order_by(deliveries.c.id)
    assert office.database.read_now(lambda c: c.execute(left).all()) == [("d", "shop~1"), ("f", "shop~1")]


def test_what_a_former_project_might_follow_the_next_one_may_not(office: Office) -> None:
    office.project("base")
    office.database.write_now(partial(projects.change, name="base", followers=["other", "shop"]))
    again(office)
    base = office.database.read_now(partial(projects.find, seal=office.seal, name="base"))
    assert base is not None
    assert base.followers == ("other",)


class Leaving:
    """Children that can begin nothing, as their project has just been removed."""

    async def begin(self, *_: object) -> int:
        raise Removed("shop")

    go_on = begin


def test_a_project_that_is_removed_while_a_run_of_it_is_started_or_gone_on_with_is_said_in_plain_words(
    office: Office,
) -> None:
    ids = [office.begun(), office.begun()]
    rows = office.database.read_now(lambda c: c.execute(select(runs).order_by(runs.c.id)).all())
    dispatcher = Dispatcher(office.registry(), cast("Any", Leaving()), slots=1)

    async def both() -> tuple[Any, Any]:
        watched = _Watched(rows[1], RunFolder(office.folder), 0, 0)
        return await dispatcher._started(rows[0]), await dispatcher._revive(watched)

    started, revived = anyio.run(both)
    assert (started.id, started.outcome, started.note) == (ids[0], "cancelled", "its project was removed")
    assert revived == Ended("errored", "its engine died, and its project is not known any more")


def asked(server: Server, path: str, token: str) -> tuple[int, Any]:
    return server.ask(path, authorization=f"Bearer {token}")


@on_both
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_members_of_a_new_project_see_nothing_of_a_former_one_of_its_name(
    server: Server, repository: Repository
) -> None:
    text = LEAVING.replace("BEGAN", f"{server.folder}/began").replace("GO", f"{server.folder}/go")
    server.push(repository.commit("two", pipeline_yaml=text))
    until((server.folder / "began").exists)
    (old,) = server.runs()
    assert pipe(server.folder, "projects", "remove", "shop", env=server.env).returncode == 0
    server.add()
    (server.folder / "go").touch()
    guardian = f"/proc/{old['pid']}/task/{old['pid']}/children"
    os.kill(int(Path(guardian).read_text().split()[0]), signal.SIGKILL)
    (old,) = server.settled(1)
    assert (old["project"], old["note"]) == ("shop~1", "its engine died, and its project is not known any more")

    member = pipe(server.folder, "token", "m", "--role", "member@shop", env=server.env).stdout.strip()
    below = ("", "/leaves", "/plan", "/events?follow=false", "/logs/s", "/artifacts", "/artifacts/junit.xml")
    for path in (f"/api/v1/runs/{old['id']}{end}" for end in below):
        assert (path, asked(server, path, member)[0]) == (path, 404)
    for path in ("/api/v1/runs", "/api/v1/runs?project=shop", "/api/v1/runs?project=shop~1", "/api/v1/deliveries"):
        assert (path, asked(server, path, member)) == (path, (200, []))
    env = host(PIPE_TOKEN=member, PIPE_SERVER=f"http://127.0.0.1:{server.port}")
    for words in (("logs", "shop/demo#1"), ("show", "shop/demo#1"), ("show", "shop~1/demo#1"), ("show", old["id"])):
        done = pipe(server.folder, *words, env=env)
        assert (words, done.returncode, "old words" in done.stdout) == (words, 2, False)
    log = server.folder / ".pipe-server/projects/shop/runs/demo/1/logs/s.1.log"
    assert log.read_text() == "old words\n", "it stays where it was, for administrators"

    until(lambda: server.push(repository.commit("three", pipeline_yaml=TEXT))[0] == 202)
    old, new = server.settled(2)
    assert (new["project"], new["number"], new["outcome"]) == ("shop", 1, "succeeded")
    assert (server.folder / ".pipe-server/projects/shop~2/runs/demo/1/plan.json").exists()
    found = asked(server, "/api/v1/runs", member)[1]
    assert [run["id"] for run in found] == [new["id"]]
