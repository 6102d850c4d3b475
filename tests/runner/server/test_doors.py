"""Who is let in, by which door, and what they may do behind it."""

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.runner.server.browser import Browser
from tests.runner.server.conftest import Repository, Server, sqlite
from tests.support.program import PIPE, host, pipe

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]

PASSWORD = "correct horse battery"


def new_password(server: Server, name: str, password: str = PASSWORD) -> None:
    argv = [str(PIPE), "people", "password", name]
    subprocess.run(argv, cwd=server.folder, env=host(), input=f"{password}\n", text=True, check=True, timeout=20)


@pytest.fixture
def signed_in(server: Server) -> Callable[..., Browser]:
    def make(name: str, role: str = "member") -> Browser:
        assert pipe(server.folder, "people", "add", name, "--role", role).returncode == 0
        new_password(server, name)
        browser = Browser(server.port)
        assert browser.sign_in(name, PASSWORD).to == "/"
        return browser

    return make


def code_of(server: Server) -> str:
    link = (server.folder / ".pipe-server/setup-link").read_text().strip()
    assert link.startswith(f"http://127.0.0.1:{server.port}/setup#")
    return link.partition("#")[2]


def test_the_link_of_the_first_start_makes_one_administrator_and_no_second(server: Server) -> None:
    browser, fields = Browser(server.port), {"code": code_of(server), "name": "Ann", "password": PASSWORD}
    assert browser.get("/setup").status == 200
    assert "file <code>setup-link</code>" in browser.get("/login").text, "who comes by the front door is told of it"
    short = browser.send("/setup", {**fields, "password": "short"})
    assert (short.status, "12 characters" in short.text) == (422, True), "and the link is still good"
    assert "used up" in browser.send("/setup", {**fields, "code": "x" * 43}).text
    assert browser.send("/setup", fields).status == 303
    assert "<h1>ann</h1>" in browser.get("/account").text
    assert browser.ask("GET", "/api/v1/runs").status == 200
    assert "used up" in Browser(server.port).send("/setup", {**fields, "name": "eve"}).text
    assert not (server.folder / ".pipe-server/setup-link").exists()
    assert "setup-link" not in Browser(server.port).get("/login").text
    server.stop()
    server.start()
    assert not (server.folder / ".pipe-server/setup-link").exists()
    assert Browser(server.port).sign_in("ann", PASSWORD).status == 303


def test_until_there_is_an_administrator_nobody_else_is_let_near(server: Server) -> None:
    server.stop()
    done = pipe(server.folder, "serve", "--host", "0.0.0.0", "--port", "1")
    assert (done.returncode, "no administrator yet" in done.stderr) == (2, True)
    pipe(server.folder, "people", "add", "ann", "--role", "admin")
    assert pipe(server.folder, "serve", "--host", "0.0.0.0", "--port", "1").returncode == 2, "ann cannot sign in yet"
    new_password(server, "ann")
    taken = pipe(server.folder, "serve", "--host", "0.0.0.0", "--port", str(server.port), "--state", "nowhere")
    assert "no administrator yet" in taken.stderr, "another folder has none"
    server.start("--host", "0.0.0.0")


def test_a_page_that_wants_somebody_signed_in_comes_back_after_the_sign_in(server: Server) -> None:
    browser = Browser(server.port)
    assert browser.get("/account?a=b").to == "/login?to=%2Faccount%3Fa%3Db"
    pipe(server.folder, "people", "add", "ann")
    new_password(server, "ann")
    assert browser.send("/login", {"name": " ANN ", "password": PASSWORD, "to": "/account?a=b"}).to == "/account?a=b"
    assert browser.get("/login?to=/account").to == "/account"
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nb: c"):
        assert browser.send("/login", {"name": "ann", "password": PASSWORD, "to": elsewhere}).to == "/"


def test_a_session_ends_when_it_is_ended_and_leaves_nothing_to_steal(
    server: Server, signed_in: Callable[..., Browser]
) -> None:
    ann = signed_in("ann")
    other = Browser(server.port, dict(ann.cookies))
    kept = b"".join(path.read_bytes() for path in (server.folder / ".pipe-server").glob("server.db*"))
    assert ann.cookies["pipe"].encode() not in kept
    assert PASSWORD.encode() not in kept
    assert b"$argon2id$v=19$m=19456,t=2,p=1$" in kept
    assert ann.send("/logout", {}).to == "/login"
    assert ann.cookies == {}
    assert other.get("/account").status == 303, "the server has forgotten it too"


@pytest.mark.parametrize("how", ["password", "remove"])
def test_a_new_password_or_a_removal_ends_every_session(
    server: Server, signed_in: Callable[..., Browser], how: str
) -> None:
    ann = signed_in("ann")
    token = pipe(server.folder, "token", "laptop", "--person", "ann").stdout.strip()
    assert ann.get("/account").status == 200
    if how == "password":
        new_password(server, "ann", "another horse battery")
    else:
        pipe(server.folder, "people", "remove", "ann")
    assert ann.get("/account").status == 303
    assert ann.ask("GET", "/api/v1/runs").status == 401
    assert Browser(server.port).send("/login", {"name": "ann", "password": PASSWORD}).status == 403
    left = server.ask("/api/v1/runs", authorization=f"Bearer {token}")[0]
    assert left == (200 if how == "password" else 401)


def test_sessions_end_by_themselves(server: Server, signed_in: Callable[..., Browser]) -> None:
    ann = signed_in("ann")
    sqlite(server, "update sessions set seen = seen - 11 * 3600")
    assert ann.get("/account").status == 200, "and it was seen"
    sqlite(server, "update sessions set seen = seen - 11 * 3600")
    assert ann.get("/account").status == 200
    sqlite(server, "update sessions set seen = seen - 13 * 3600")
    assert ann.get("/account").status == 303
    bob = signed_in("bob")
    sqlite(server, "update sessions set created = created - 8 * 86400")
    assert bob.get("/account").status == 303


FORGED = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
    {"csrf": "0" * 64},
    {"csrf": "é"},
]


@pytest.mark.parametrize("forged", FORGED)
def test_nothing_changes_by_a_request_that_no_page_of_ours_sent(
    server: Server, signed_in: Callable[..., Browser], forged: dict[str, str]
) -> None:
    ann = signed_in("ann")
    fields = {"csrf": forged["csrf"]} if "csrf" in forged else {}
    headers = {name: value for name, value in forged.items() if name != "csrf"}
    assert ann.send("/logout", fields, **headers).status == 403
    json_headers = {"Content_Type": "application/json", "X_CSRF_Token": "wrong"}
    assert ann.ask("POST", "/api/v1/projects/shop/runs", '{"pipeline": "demo"}', **json_headers).status == 403
    assert ann.get("/account").status == 200
    if "csrf" not in forged:
        fresh = Browser(server.port).send("/login", {"name": "ann", "password": PASSWORD}, **headers)
        assert fresh.status == 403, "nobody is signed in by another site"


def test_a_browser_uses_the_api_with_the_token_of_its_page(
    server: Server, repository: Repository, signed_in: Callable[..., Browser]
) -> None:
    ann = signed_in("ann")
    named = {"Content_Type": "application/json", "X_CSRF_Token": ann.csrf}
    started = ann.ask("POST", "/api/v1/projects/shop/runs", '{"pipeline": "demo"}', **named)
    assert started.status == 201
    (run,) = server.settled(1)
    assert (run["id"], run["trigger"]["author"]) == (json.loads(started.text)["run"], "ann")


def test_members_run_and_cancel_and_administrators_do_the_rest(
    server: Server, repository: Repository, signed_in: Callable[..., Browser]
) -> None:
    server.push(repository.commit("two", src__a="two"))
    server.settled(1)
    (delivery,) = server.deliveries()
    again = f"/api/v1/deliveries/{delivery['id']}/redeliver"
    pipe(server.folder, "projects", "add", "other", "https://git.example/other.git", "--no-check")
    ann, bob, cid = signed_in("ann"), signed_in("bob", "admin"), signed_in("cid", "member@other")
    assert [each.ask("POST", again, X_CSRF_Token=each.csrf).status for each in (ann, bob, cid)] == [403, 200, 404]
    assert [len(json.loads(each.get("/api/v1/runs").text)) for each in (ann, bob, cid)] == [1, 1, 0]
    assert [len(json.loads(each.get("/api/v1/deliveries").text)) for each in (ann, bob, cid)] == [1, 1, 0]
    start = {"body": '{"pipeline": "demo"}', "Content_Type": "application/json"}
    paths = [("POST", "/api/v1/projects/shop/runs", start), ("GET", "/metrics", {})]
    found = [[each.ask(how, path, X_CSRF_Token=each.csrf, **w).status for how, path, w in paths] for each in (ann, cid)]
    assert found == [[201, 200], [404, 403]]


def test_every_answer_tells_browsers_what_they_may_do_with_it(
    server: Server, signed_in: Callable[..., Browser]
) -> None:
    ann = signed_in("ann")
    for path in ("/login", "/account", "/api/v1/runs", "/healthz", "/nowhere", "/static/pipe.css", "/hooks/x"):
        headers = ann.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"], path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert headers["Date"].endswith(" GMT"), path
        assert headers["Cache-Control"] == ("no-cache" if "static" in path else "no-store"), path
    page = ann.get("/account").text
    assert "style=" not in page
    assert "<script>" not in page


def test_a_cookie_over_https_is_for_this_host_alone(server: Server, signed_in: Callable[..., Browser]) -> None:
    signed_in("ann")
    server.stop()
    server.start("--url", "https://ci.example.com")
    said = {"Host": "ci.example.com", "Origin": "https://ci.example.com"}
    encoded = "application/x-www-form-urlencoded"
    body = f"name=ann&password={PASSWORD.replace(' ', '+')}"
    answer = Browser(server.port).ask("POST", "/login", body, Content_Type=encoded, **said)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-pipe=")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
