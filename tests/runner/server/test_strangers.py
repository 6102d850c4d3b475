"""What a stranger is told of a project that they may not see: what they would be told if it were not there."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx2
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import Connection, event, insert, select, update

from pipeline.plan import Trigger
from runner.handover import Handed
from runner.server import projects, registry, secrets, targets, tokens
from runner.server.database import deliveries, runs
from runner.server.database import tokens as kept_tokens
from runner.server.doors import Doors
from runner.server.fleet import Fleet
from runner.server.layout import Place
from runner.server.pages import deliveries as deliveries_pages
from runner.server.pages import projects as projects_pages
from runner.server.pages import runs as runs_pages
from runner.server.projects import Project
from runner.server.registry import Registry
from runner.server.rights import Grant
from runner.server.sealing import Seal
from runner.server.serve import open_folder
from runner.server.targets import Standing
from runner.server.telling import badges
from runner.server.throttle import Bucket
from runner.server.web import application

pytestmark = [pytest.mark.network, pytest.mark.slow]

THERE, NOWHERE = "hidden", "absent"
RUN, DELIVERY = "01KAHIDDENRUN0000000000000", "01KAHIDDENDE0000000000000A"
TOKEN = "01KAHIDDENTK00000000000000"
NO_ID = "01KANOTHERE000000000000000"
HASH = "c" * 40


def furnished(connection: Connection, seal: Seal) -> None:
    """A project that others do not see, with something of everything."""
    projects.add(connection, seal, Project("own", "https://git.example/own.git"))
    projects.add(connection, seal, Project(THERE, "https://git.example/hidden.git", forge="gitea"))
    secrets.put(connection, seal, THERE, "token", Handed(kind="text", value="hush"))
    targets.add(connection, seal, THERE, "json://127.0.0.1:1/x", Standing("ops", "JSON", ("failed",)))
    run = {
        "id": RUN, "project": THERE, "place": THERE, "pipeline": "demo", "number": 1, "event": "e", "found_by": "hook", "ref": "refs/heads/main",
        "commit": HASH, "file_commit": HASH, "trigger": Trigger(kind="push", commit=HASH).model_dump_json(), "params": "{}",
        "state": "ended", "outcome": "succeeded", "created": 1.0, "started": 2.0, "ended": 3.0,
    }  # fmt: skip
    connection.execute(insert(runs).values(run))
    delivery = {
        "id": DELIVERY, "project": THERE, "forge": "gitea", "key": "k", "received": 1.0, "headers": "{}", "body": b"{}", "size": 2,
        "state": "done",
    }  # fmt: skip
    connection.execute(insert(deliveries).values(delivery))
    tokens.make(connection, "theirs", grant=Grant("admin", THERE))
    connection.execute(update(kept_tokens).values(id=TOKEN))


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    layout, database, seal = open_folder(Place(tmp_path), {})
    database.write_now(partial(furnished, seal=seal))
    registry = Registry(database, seal, layout, Fleet(database, layout, ""))
    yield Doors(database, registry, layout, print, print, calls=Bucket(1e6, 1e6))
    database.close()


STANDS_FOR = {
    # the word before a part of a path: what is put there, and what there is not
    "projects": (THERE, NOWHERE),
    "hooks": (THERE, NOWHERE),
    "badges": (THERE, NOWHERE),
    "runs": (RUN, NO_ID),
    "{pipeline}": ("1", "1"),
    "deliveries": (DELIVERY, NO_ID),
    "secrets": ("token", "tokem"),
    "targets": ("ops", "opt"),
    "people": ("ann", "bob"),
    "tokens": (TOKEN, NO_ID),
    "logs": ("s", "s"),
    "artifacts": ("junit.xml", "junit.xml"),
    "files": ("plan.json", "plan.json"),
}
BODIES: dict[str, dict[str, Any]] = {
    "add_person": {"name": "x"},
    "set_roles": {"roles": [{"role": "member", "scope": THERE}]},
    "make_token": {"name": "x", "role": {"role": "member", "scope": THERE}},
    "add_project": {"name": "x", "url": "https://git.example/x.git"},
    "set_secret": {"kind": "text", "value": "x"},
    "add_target": {"name": "x", "url": "json://127.0.0.1:1/x", "events": ["failed"]},
    "start_run": {"pipeline": "demo"},
}


class Call(NamedTuple):
    """A request about something: with the names of what is there, or of what is not."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}

    def about(self, place: int) -> dict[str, Any]:
        """The request: 0 about what is there, 1 about what is not."""
        parts = self.path.split("/")
        filled = [
            part.replace("{pipeline}", "demo") if "{pipeline}" in part
            else STANDS_FOR[before][place] if part.startswith("{") else part
            for before, part in pairwise(["", *parts])
        ]  # fmt: skip
        names = {THERE: STANDS_FOR["projects"][place]}
        params = {"project": names[THERE]} if self.method == "GET" else {}
        body = None if self.body is None else json.dumps(self.body).replace(THERE, names[THERE])
        headers = {**self.headers, **({"Content-Type": "application/json"} if body else {})}
        return {
            "method": self.method, "url": "/".join(filled), "params": params, "content": body, "headers": headers,
        }  # fmt: skip


def calls(doors: Doors) -> list[Call]:
    """Everything that can be asked about something: of the API what its description has, pages, hooks and badges."""
    found = []
    for path, each in application(doors).openapi()["paths"].items():
        for method, call in each.items():
            wants, name = "requestBody" in call, call["operationId"]
            assert not wants or name in BODIES, f"BODIES lacks a sound body for {name}"
            found.append(Call(method.upper(), path, BODIES[name] if wants else None))
    shown = (badges, runs_pages.pages, projects_pages.pages, deliveries_pages.pages)
    routes = [route for router in shown for route in router.routes if isinstance(route, APIRoute)]
    named = [(route, route.path.replace(":path", "")) for route in routes if "{" in route.path]
    return [*found, *(Call(method, path) for route, path in named for method in sorted(route.methods or ()))]


class Told(NamedTuple):
    """An answer without what it is about, and what the database was asked for it."""

    status: int
    body: str
    headers: dict[str, str]
    asked: list[str]


def _alike(text: str) -> str:
    return re.sub(r"01[0-9A-Z]{24}|\b(hidden|absent|tokem?|op[st]|ann|bob)\b|(?<=3D|2F)(hidden|absent)", "…", text)


def answers(doors: Doors, named: dict[str, str], found: list[Call]) -> Iterator[tuple[Call, Told, Told]]:
    """To each call the answers about what is there and about what is not; asked twice, for some is remembered."""
    asked: list[str] = []
    event.listen(doors.database._engine, "before_cursor_execute", lambda *said: asked.append(said[2]))

    async def answer(client: httpx2.AsyncClient, request: dict[str, Any]) -> Told:
        asked.clear()
        got = await client.request(**request)
        headers = {name: _alike(value) for name, value in got.headers.items() if name != "date"}
        return Told(got.status_code, _alike(got.text), headers, list(asked))

    async def all_of_them() -> list[tuple[Call, Told, Told]]:
        transport = httpx2.ASGITransport(application(doors))
        async with httpx2.AsyncClient(transport=transport, base_url="http://pipe", headers=named) as client:
            await client.get("/api/v1/me")  # the first call of a token notes that it is used
            twice = [call for call in found for _ in range(2)]
            return [(each, await answer(client, each.about(0)), await answer(client, each.about(1))) for each in twice]

    return iter(anyio.run(all_of_them))


@pytest.mark.parametrize("who", ["nobody", "a wrong token", "a member elsewhere", "an administrator elsewhere"])
def test_of_what_one_may_not_see_one_is_told_the_same_as_of_what_is_not_there(doors: Doors, who: str) -> None:
    role = Grant("admin" if "admin" in who else "member", "own")
    token = doors.database.write_now(partial(tokens.make, name="t", grant=role)) if "elsewhere" in who else "wrong"
    named = {} if who == "nobody" else {"Authorization": f"Bearer {token}"}
    statuses = set()
    for call, about_hidden, about_nothing in answers(doors, named, calls(doors)):
        assert about_hidden == about_nothing, call
        assert about_hidden.status != 422, f"{call}: it was not even looked for"
        statuses.add(about_hidden.status)
    assert statuses <= ({200, 201, 401, 403, 404} if "elsewhere" in who else {303, 401, 404})


def test_who_may_see_it_is_told_more(doors: Doors) -> None:
    token = doors.database.write_now(partial(tokens.make, name="t", grant=Grant("member", THERE)))
    paths = ("/api/v1/runs/{id_}", "/api/v1/projects/{project}/targets", "/badges/{project}/{pipeline}.svg")
    found = [Call("GET", path) for path in (*paths, "/runs/{id_}", "/api/v1/deliveries")]
    for call, about_mine, about_nothing in answers(doors, {"Authorization": f"Bearer {token}"}, found):
        assert about_mine.status == 200, call
        assert about_mine.body != about_nothing.body, call


SENT: list[dict[str, str]] = [
    {},
    {"X-Gitea-Event": "push"},
    {"X-Gitea-Event": "push", "X-Gitea-Signature": "00"},
    {"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=00"},
    {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "guess"},
    {"X-Gitee-Event": "Push Hook", "X-Gitee-Token": "guess", "X-Gitee-Timestamp": "1"},
    {"Authorization": "Bearer guess"},
]


def test_a_hook_tells_a_stranger_neither_whether_there_is_a_project_nor_its_forge(doors: Doors) -> None:
    found = [Call("POST", "/hooks/{project}", {}, headers) for headers in SENT]
    for call, about_hidden, about_nothing in answers(doors, {}, found):
        assert about_hidden == about_nothing, call
        assert about_hidden.status == 401
        way = "an administrator sees at /deliveries what holds of delivery …"
        assert f"; or there is no such project: {way}" in about_hidden.body
    wanted = select(deliveries.c.project, deliveries.c.note).where(deliveries.c.state == "refused")
    kept = {tuple(row) for row in doors.database.read_now(lambda c: c.execute(wanted).all())}
    assert ("absent", "there is no project 'absent'") in kept, "who may see deliveries finds a hook that is misspelt"
    assert (THERE, "it comes from github, and the project's forge is gitea") in kept


def test_a_hook_with_the_secret_is_told_that_it_is_of_the_wrong_forge(doors: Doors) -> None:
    project = doors.database.read_now(partial(projects.find, seal=doors.registry.seal, name=THERE))
    assert project is not None
    call = Call("POST", "/hooks/{project}", {}, {"Authorization": f"Bearer {project.secret}"})
    (answer, *_) = [about_hidden for _, about_hidden, _ in answers(doors, {}, [call])]
    assert "it comes from generic, and the project's forge is gitea" in answer.body


def test_a_project_that_is_added_is_found_by_its_hook_soon(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KNOWN_FOR", 0.0)
    project = Project("late", "https://git.example/late.git", secret="s" * 20)
    found = [Call("POST", "/hooks/late", {}, {"Authorization": f"Bearer {project.secret}"})]
    assert {one.status for _, one, _ in answers(doors, {}, found)} == {401}
    doors.database.write_now(partial(projects.add, seal=doors.registry.seal, project=project))
    assert {one.status for _, one, _ in answers(doors, {}, found)} == {202}


def test_names_that_no_project_can_have_fill_no_memory(doors: Doors) -> None:
    for name in ("x" * 65, "x" * 60_000, "a b", ""):
        assert anyio.run(doors.registry.for_stranger, name) is None
    assert not doors.registry._missing
