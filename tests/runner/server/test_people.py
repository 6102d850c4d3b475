"""What administrators change by the API, pages and commands, who else may, and what the audit log says of it."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import anyio
import httpx2
import pytest

from pipeline.errors import PipeError
from runner.server import administration, people, projects, tokens
from runner.server.audit import Actor
from runner.server.doors import Doors
from runner.server.fleet import Fleet
from runner.server.layout import Place
from runner.server.passwords import Passwords
from runner.server.projects import Project
from runner.server.registry import Registry
from runner.server.rights import Grant
from runner.server.serve import open_folder
from runner.server.throttle import Bucket, SignIns
from runner.server.web import application
from tests.runner.server.browser import Answer, Browser
from tests.runner.server.conftest import Repository, Server, sqlite
from tests.runner.server.test_doors import PASSWORD, code_of, new_password, signed_in
from tests.support.program import pipe

__all__ = ["signed_in"]

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]


def call(browser: Browser, method: str, path: str, **body: Any) -> Answer:
    said = json.dumps(body) if body else None
    return browser.ask(method, f"/api/v1{path}", said, Content_Type="application/json", X_CSRF_Token=browser.csrf)


CALLS: list[tuple[str, str, dict[str, Any], list[int]]] = [
    # method, path, body, and the answers to an administrator, a member, a member of another project, and nobody's role
    ("GET", "/me", {}, [200, 200, 200, 200]),
    ("GET", "/runs", {}, [200, 200, 200, 200]),
    ("GET", "/projects", {}, [200, 200, 200, 200]),
    ("POST", "/projects/shop/runs", {"pipeline": "nothing"}, [422, 422, 404, 404]),
    ("POST", "/projects/nowhere/runs", {"pipeline": "nothing"}, [404, 404, 404, 404]),
    ("GET", "/people", {}, [200, 403, 403, 403]),
    ("POST", "/people", {"name": "new"}, [201, 403, 403, 403]),
    ("POST", "/people/new/link", {}, [201, 403, 403, 403]),
    ("PUT", "/people/new/roles", {"roles": []}, [204, 403, 403, 403]),
    ("DELETE", "/people/new", {}, [204, 403, 403, 403]),
    ("POST", "/projects", {"name": "docs", "url": "https://git.example/docs.git"}, [201, 403, 403, 403]),
    ("DELETE", "/projects/docs", {}, [204, 403, 404, 404]),
    ("GET", "/audit", {}, [200, 403, 403, 403]),
    ("POST", "/tokens", {"name": "mine"}, [201, 201, 403, 403]),
    ("POST", "/tokens", {"name": "robot", "program": True}, [201, 403, 403, 403]),
    ("POST", "/tokens", {"name": "mine", "role": {"role": "admin"}}, [201, 403, 403, 403]),
    ("DELETE", "/tokens/nothing", {}, [404, 404, 404, 404]),
]


def test_each_call_is_for_those_whose_role_allows_it_and_for_nobody_without_one(
    server: Server, signed_in: Callable[..., Browser]
) -> None:
    pipe(server.folder, "projects", "add", "other", "https://git.example/other.git", "--no-check")
    cast = [signed_in("ann", "admin"), signed_in("bob"), signed_in("cid", "member@other"), signed_in("dan")]
    pipe(server.folder, "people", "roles", "dan")
    found = {
        (method, path, str(body)): [call(each, method, path, **body).status for each in reversed(cast)][::-1]
        for method, path, body, _ in CALLS
    }
    assert found == {(method, path, str(body)): answers for method, path, body, answers in CALLS}
    strangers = {call(Browser(server.port), method, path, **body).status for method, path, body, _ in CALLS}
    assert strangers == {401}


def test_a_person_is_added_chooses_a_password_and_is_removed(server: Server, signed_in: Callable[..., Browser]) -> None:
    ann = signed_in("ann", "admin")
    made = json.loads(call(ann, "POST", "/people", name="bob").text)
    assert made["link"].startswith(f"http://127.0.0.1:{server.port}/password#")
    assert "already" in call(ann, "POST", "/people", name="bob").text
    bob, fields = Browser(server.port), {"code": made["link"].partition("#")[2], "password": PASSWORD}
    assert bob.send("/password", {**fields, "password": "short"}).status == 422
    assert bob.send("/password", fields).status == 303
    bob.get("/account")
    assert json.loads(bob.get("/api/v1/me").text) == {
        "name": "bob",
        "by": "session",
        "roles": [{"role": "member", "scope": ""}],
    }
    assert Browser(server.port).send("/password", fields).status == 422, "the link is used up"
    assert call(ann, "DELETE", "/people/bob").status == 204
    assert bob.get("/api/v1/me").status == 401


def test_there_is_always_an_administrator(server: Server, signed_in: Callable[..., Browser]) -> None:
    ann = signed_in("ann", "admin")
    call(ann, "POST", "/people", name="bob", roles=[{"role": "admin"}])
    for answer in (call(ann, "DELETE", "/people/ann"), call(ann, "PUT", "/people/ann/roles", roles=[])):
        assert (answer.status, "the last administrator" in answer.text) == (422, True), "bob cannot sign in yet"
    assert "the last administrator" in pipe(server.folder, "people", "remove", "ann").stderr
    new_password(server, "bob")
    assert call(ann, "DELETE", "/people/ann").status == 204


def test_a_token_may_do_no_more_than_its_person_and_goes_with_its_end(
    server: Server, signed_in: Callable[..., Browser]
) -> None:
    ann, bob = signed_in("ann", "admin"), signed_in("bob", "admin")
    token = json.loads(call(bob, "POST", "/tokens", name="laptop", role={"role": "admin"}).text)["token"]
    named: dict[str, Any] = {"authorization": f"Bearer {token}"}
    assert server.ask("/api/v1/people", **named)[0] == 200
    call(ann, "PUT", "/people/bob/roles", roles=[{"role": "member"}])
    assert [server.ask(path, **named)[0] for path in ("/api/v1/people", "/api/v1/runs")] == [403, 200]
    made = server.ask("/api/v1/tokens", b'{"name": "more"}', Content_Type="application/json", **named)
    assert made[0] == 403, "a token makes no tokens"
    sqlite(server, "update tokens set expires = unixepoch() + 60 where name = 'laptop'")
    assert server.ask("/api/v1/runs", **named)[0] == 200
    sqlite(server, "update tokens set expires = unixepoch() - 1 where name = 'laptop'")
    assert server.ask("/api/v1/runs", **named)[0] == 401
    kept = b"".join(path.read_bytes() for path in (server.folder / ".pipe-server").glob("server.db*"))
    assert token.encode() not in kept


def test_tokens_are_listed_and_revoked(server: Server, signed_in: Callable[..., Browser]) -> None:
    ann, bob = signed_in("ann", "admin"), signed_in("bob")
    call(bob, "POST", "/tokens", name="bobs")
    assert [token["name"] for token in json.loads(bob.get("/api/v1/tokens").text)] == ["bobs"]
    listed = json.loads(ann.get("/api/v1/tokens").text)
    assert [(token["name"], token["person"], token["used"] > 0) for token in listed] == [
        ("bobs", "bob", False),
        ("tests", "", False),
    ]
    server.runs()
    ids = {token["name"]: token["id"] for token in json.loads(ann.get("/api/v1/tokens").text)}
    shown = pipe(server.folder, "token", "list").stdout
    assert f"{ids['bobs']}  bobs  bob  member  until it is revoked  never used" in shown
    assert f"{ids['tests']}  tests  a program  admin  until it is revoked  used 20" in shown
    assert call(bob, "DELETE", f"/tokens/{ids['tests']}").status == 404
    assert call(bob, "DELETE", f"/tokens/{ids['bobs']}").status == 204
    assert pipe(server.folder, "token", "revoke", ids["tests"]).returncode == 0
    assert server.ask("/api/v1/runs", authorization=f"Bearer {server.token}")[0] == 401
    assert pipe(server.folder, "token", "revoke", ids["tests"]).returncode == 2


def test_on_the_account_page_people_change_their_password_and_tokens(
    server: Server, signed_in: Callable[..., Browser]
) -> None:
    ann = signed_in("ann")
    other = Browser(server.port)
    other.sign_in("ann", PASSWORD)
    assert "another one" in ann.get("/account").text
    wrong = ann.send("/account/password", {"password": "wrong", "new": "another horse battery"})
    assert (wrong.status, "is another one" in wrong.text) == (403, True)
    assert ann.send("/account/password", {"password": PASSWORD, "new": "short"}).status == 422
    assert ann.send("/account/password", {"password": PASSWORD, "new": "another horse battery"}).status == 200
    assert (ann.get("/account").status, other.get("/account").status) == (200, 303)
    made = ann.send("/account/tokens", {"name": "<b>laptop</b>", "role": "member", "days": "30"}).text
    token = made.partition("<code>")[2].partition("</code>")[0]
    assert server.ask("/api/v1/runs", authorization=f"Bearer {token}")[0] == 200
    assert "&lt;b&gt;laptop" in made
    assert ann.send("/account/tokens", {"name": "x", "role": "admin"}).status == 422
    assert Browser(server.port).get("/account", Authorization=f"Bearer {token}").status == 403
    (row,) = sqlite(server, "select id from tokens where person = 'ann'")
    assert ann.send(f"/account/tokens/{row[0]}/revoke", {}).status == 303
    assert server.ask("/api/v1/runs", authorization=f"Bearer {token}")[0] == 401


def test_the_audit_log_says_who_did_what_and_is_only_added_to(
    server: Server, repository: Repository, signed_in: Callable[..., Browser]
) -> None:
    Browser(server.port).send("/setup", {"code": code_of(server), "name": "root", "password": PASSWORD})
    ann = signed_in("ann", "admin")
    Browser(server.port).send("/login", {"name": "ann", "password": "wrong"})
    Browser(server.port).send("/login", {"name": "my secret by mistake", "password": "wrong"})
    run = json.loads(call(ann, "POST", "/projects/shop/runs", pipeline="demo").text)["run"]
    server.settled(1)
    call(ann, "POST", "/people", name="bob")
    call(ann, "PUT", "/people/bob/roles", roles=[{"role": "member", "scope": "shop"}])
    pages: list[dict[str, Any]] = []
    while page := json.loads(ann.get(f"/api/v1/audit?limit=5&before={pages[-1]['id'] if pages else 0}").text):
        pages += page
    told = [(line["who"], line["by"], line["action"], line["what"], line["detail"]) for line in reversed(pages)]
    assert told[0][2:] == ("add project", "shop", server.url)
    assert ("root", "link", "set up", "root", "admin") in told
    assert (
        told[-7:]
        == [
            ("ann", "password", "sign in", "ann", ""),
            ("ann", "password", "sign-in refused", "", ""),
            ("", "password", "sign-in refused", "", ""),
            ("ann", "session", "start run", run, "demo#1"),
            ("ann", "session", "add person", "bob", "member"),
            ("ann", "session", "change roles", "bob", "member → member@shop"),
        ][-7:]
        or told
    )
    assert {line["address"] for line in pages if line["by"] in ("session", "password", "link")} == {"127.0.0.1"}
    assert "ann by session  127.0.0.1  change roles  bob  member → member@shop" in pipe(server.folder, "audit").stdout
    for words in ("delete from audit", "update audit set who = 'eve'"):
        with pytest.raises(Exception, match="only added to"):
            sqlite(server, words)


def test_refused_deliveries_beyond_a_measure_are_not_kept_and_genuine_ones_are(
    server: Server, repository: Repository
) -> None:
    statuses: list[int] = []
    while statuses[-1:] != [429]:
        assert len(statuses) < 3000
        statuses.append(server.push("x", secret="wrong")[0])
    assert statuses[:500] == [401] * 500
    kept = sqlite(server, "select count(*) from deliveries where state = 'refused'")[0][0]
    assert kept == statuses.count(401)
    assert server.push(repository.commit("two", src__a="two"))[0] == 202


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    """What an application in this process stands on; its clock stands still."""
    layout, database, seal = open_folder(Place(tmp_path), {})
    registry = Registry(database, seal, layout, Fleet(database, layout, ""))
    yield Doors(database, registry, layout, print, print, calls=Bucket(2, 0.01), sign_ins=SignIns(lambda: 0.0))
    database.close()


def asked(doors: Doors, *requests: dict[str, Any]) -> list[httpx2.Response]:
    """The answers to requests, one after the other."""
    transport = httpx2.ASGITransport(application(doors))

    async def ask() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(transport=transport, base_url="http://pipe") as client:
            return [await client.request(**request) for request in requests]

    return anyio.run(ask)


def test_whoever_makes_a_token_is_not_told_which_projects_there_are(doors: Doors) -> None:
    actor, write = Actor("ann", "session"), doors.database.write_now
    for name in ("shop", "payroll"):
        project = Project(name, f"https://git.example/{name}.git")
        write(partial(projects.add, seal=doors.registry.seal, project=project))
    write(lambda c: people.add(c, "ann", [Grant("member", "shop")]))
    said = []
    for scope in ("payroll", "payrol", "nothing"):
        make = partial(administration.make_token, actor=actor, name="t", person="ann", grant=Grant("member", scope))
        with pytest.raises(PipeError) as refused:
            write(make)
        said.append(str(refused.value).replace(scope, "X"))
    assert said == [said[0]] * 3
    assert write(lambda c: administration.make_token(c, actor, "t", "ann", Grant("member", "shop")))


def test_a_token_that_asks_without_end_is_told_to_wait(doors: Doors) -> None:
    busy, other = (doors.database.write_now(partial(tokens.make, name=name)) for name in ("busy", "other"))
    named = [{"Authorization": f"Bearer {token}"} for token in (busy, busy, busy, other)]
    answers = asked(doors, *({"method": "GET", "url": "/api/v1/me", "headers": headers} for headers in named))
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert int(answers[2].headers["Retry-After"]) > 90


def test_rights_are_given_in_projects_that_there_are(doors: Doors) -> None:
    seal, actor = doors.registry.seal, Actor("ann", "machine")
    doors.database.write_now(partial(projects.add, seal=seal, project=Project("shop", "https://git.example/shop.git")))
    doors.database.write_now(partial(people.add, name="ann", granted=[]))
    odd = [Grant("member", "shpo"), Grant("amdin"), Grant("member", "shop")]
    wrong = r"^there is no role 'amdin'; did you mean 'admin'\?\nthere is no project 'shpo'; did you mean 'shop'\?$"
    for change in (
        partial(administration.add_person, actor=actor, name="bob", granted=odd),
        partial(administration.change_roles, actor=actor, name="ann", granted=odd),
    ):
        with pytest.raises(PipeError, match=wrong):
            doors.database.write_now(change)
    make = partial(administration.make_token, actor=actor, name="t", person="")
    with pytest.raises(PipeError, match=r"^there is no project 'shpo'; did you mean 'shop'\?$"):
        doors.database.write_now(partial(make, grant=Grant("member", "shpo")))
    assert doors.database.read_now(people.known) == [people.Person("ann", created=ANY)]
    assert doors.database.read_now(tokens.known) == []


def test_who_may_something_in_a_project_may_nothing_in_another_one_that_gets_its_name(doors: Doors) -> None:
    project, actor = Project("shop", "https://git.example/shop.git"), Actor("ann", "machine")
    keep = partial(projects.add, seal=doors.registry.seal, project=project)
    doors.database.write_now(keep)
    mine = Grant("member", "shop")
    doors.database.write_now(partial(people.add, name="ann", granted=[mine, Grant("admin")]))
    token = doors.database.write_now(partial(tokens.make, name="t", grant=mine))
    doors.database.write_now(partial(administration.remove_project, actor=actor, name="shop"))
    doors.database.write_now(keep)
    assert doors.database.read_now(people.known)[0].grants == (Grant("admin"),)
    assert doors.database.read_now(partial(tokens.find, token=token)) is None


def test_who_guesses_has_to_wait_even_with_the_right_password(doors: Doors) -> None:
    kept = doors.passwords.hashed_now(PASSWORD)
    for name in ("ann", "bob"):
        doors.database.write_now(partial(people.add, name=name, granted=[], password=kept))
    tries = [("ann", "wrong")] * 5 + [("ann", PASSWORD), ("bob", PASSWORD)]
    answers = asked(
        doors, *({"method": "POST", "url": "/login", "data": {"name": n, "password": word}} for n, word in tries)
    )
    assert [answer.status_code for answer in answers] == [403] * 5 + [429, 303]
    assert answers[5].headers["Retry-After"] == "1"


def test_a_name_that_nobody_has_takes_as_long_as_a_wrong_password() -> None:
    passwords = Passwords()
    kept = passwords.hashed_now(PASSWORD)
    took: dict[str, list[float]] = {kept: [], "": []}
    for _ in range(9):
        for each, times in took.items():
            began = time.process_time()
            assert not passwords._match(each, "wrong")
            times.append(time.process_time() - began)
    ratio = statistics.median(took[kept]) / statistics.median(took[""])
    assert 0.5 < ratio < 2, "argon2 is worked in both cases"
    assert passwords._match(kept, PASSWORD)
    assert not passwords._match("", PASSWORD)
