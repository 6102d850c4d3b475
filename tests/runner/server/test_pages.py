"""What people see and do in a browser: the same truth as by the API, and nothing that a stranger wrote does anything."""

import html
import json
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from tests.runner.server.browser import Browser
from tests.runner.server.conftest import Repository, Server
from tests.support.program import PIPE, host, pipe
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]

FILE = """name: demo
triggers: {push: {branches: ["**"]}}
params:
  who: {default: you, description: whom to greet}
  loud: {type: bool, default: false}
  size: {default: small, choices: [small, large]}
stages:
  greet: {run: "echo hello $WHO $LOUD $SIZE", env: {WHO: "${params.who}", LOUD: "${params.loud}", SIZE: "${params.size}"}}
  all: {needs: greet, each: [a, b], run: "echo \\"<script>alert(1)</script> $KEY\\"", env: {KEY: "${each.name}"}}
  bad: {needs: {all: all}, run: "echo 'the <b>reason</b>'; exit 3", retry: {times: 1, on: [user], wait: 0s}}
"""
SLOW = "name: demo\ntriggers: {push: {}}\nstages:\n  s: {run: 'echo begun; sleep 60'}\n"


PASSWORD = "correct horse battery"


def signed_in(server: Server, name: str, role: str) -> Browser:
    assert pipe(server.folder, "people", "add", name, "--role", role).returncode == 0
    argv = [str(PIPE), "people", "password", name]
    subprocess.run(argv, cwd=server.folder, env=host(), input=f"{PASSWORD}\n", text=True, check=True, timeout=20)
    browser = Browser(server.port)
    browser.sign_in(name, PASSWORD)
    return browser


@pytest.fixture
def ann(server: Server) -> Browser:
    return signed_in(server, "ann", "admin")


@pytest.fixture
def bob(server: Server) -> Browser:
    return signed_in(server, "bob", "member")


def lacks_script(text: str) -> None:
    assert "<script>alert" not in text
    assert "<b>" not in text


def test_what_is_left_of_a_removed_project_leads_to_no_page_of_it_and_offers_nothing(
    server: Server, repository: Repository, ann: Browser
) -> None:
    answer = server.push(repository.commit("go", pipeline_yaml=FILE))[1]
    (run,) = server.settled(1)
    offers = {f"/runs/{run['id']}": "Start another", "/deliveries": "Work again"}
    offers[f"/deliveries/{answer['delivery']}"] = "Work again"

    def offered(name: str) -> list[tuple[bool, bool]]:
        """Whether each page leads to the project, and offers what it does while there is one."""
        shown = {path: ann.get(path).text for path in offers}
        assert all(f">{name}<" in text or f"{name} /" in text for text in shown.values())
        return [(f'href="/projects/{name}"' in text, offers[path] in text) for path, text in shown.items()]

    assert offered("shop") == [(True, True)] * 3
    assert pipe(server.folder, "projects", "remove", "shop", env=server.env).returncode == 0
    assert offered("shop~1") == [(False, False)] * 3
    assert 'href="/projects/shop' not in ann.get("/deliveries?project=shop~2").text
    assert ann.get("/projects/shop~1/runs/demo/1").to == f"/runs/{run['id']}"


def test_a_run_is_shown_with_its_stages_reasons_attempts_and_logs(
    server: Server, repository: Repository, ann: Browser
) -> None:
    server.push(repository.commit("<script>alert(2)</script>", pipeline_yaml=FILE))
    (run,) = server.settled(1)
    assert f'href="/runs/{run["id"]}">shop / demo#1<' in ann.get("/runs").text
    shown = ann.get(f"/runs/{run['id']}").text
    for words in ("failed", "bad", "attempt 1", "exit", repository.git("rev-parse", "HEAD")[:10], ">a<", "2/2"):
        assert words in shown, words
    assert "data-live" not in shown, "it has ended"
    lacks_script(shown)
    logs = [urllib.parse.unquote(path) for path in re.findall(r'href="(/runs/[^"]+/logs/[^"]+)"', shown)]
    assert {path.rpartition("/logs/")[2].partition("?")[0] for path in logs} == {"greet", "all[a]", "all[b]", "bad"}
    log = ann.get(f"/runs/{run['id']}/logs/{urllib.parse.quote('all[a]')}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a" in log
    assert '<span class="state good">succeeded</span></h1>' in log
    lacks_script(log)
    first = ann.get(f"/runs/{run['id']}/logs/bad?attempt=1").text
    assert re.search(r'Attempt <strong aria-current="page">1</strong> <a href="[^"]+attempt=2">2</a>', first)
    assert "the &lt;b&gt;reason&lt;/b&gt;" in first
    assert ann.get(f"/runs/{run['id']}/logs/nothing").status == 404
    raw = re.search(r'href="(/api/v1/runs/[^"]+)"', log)
    assert raw
    whole = ann.get(raw[1])
    assert (whole.text, whole.headers["Content-Type"]) == ("<script>alert(1)</script> a\n", "text/plain; charset=utf-8")
    assert "sandbox" in whole.headers["Content-Security-Policy"]


def test_the_page_of_a_red_run_begins_with_why_and_leads_to_another_start(
    server: Server, repository: Repository, ann: Browser
) -> None:
    repository.commit("x", pipeline_yaml=FILE)
    fields = {"pipeline": "demo", "ref": "main", "param.who": "Bo & Co"}
    started = ann.send("/projects/shop/runs", fields)
    server.settled(1)
    shown = ann.get(started.to).text
    words = ("bad</a> failed", "the &lt;b&gt;reason&lt;/b&gt;", "What to do", "<h2>Stages", "<h2>About this run")
    places = [shown.index(word) for word in words]
    assert places == sorted(places)
    forms = re.findall(r'href="(/projects/shop\?[^"]+)#start">([^<]+)<', shown)
    commit = repository.git("rev-parse", "HEAD")
    for (path, words), (wanted, ref) in zip(
        forms, ((f"Again at {commit[:10]}", f"main@{commit}"), ("Start another", "main")), strict=True
    ):
        form = ann.get(path.replace("&amp;", "&")).text
        assert (words, f'value="{ref}"' in form, 'value="Bo &amp; Co"' in form) == (wanted, True, True)
    lacks_script(shown)


def test_what_still_changes_says_so_and_can_be_cancelled(server: Server, repository: Repository, ann: Browser) -> None:
    server.push(repository.commit("slow", pipeline_yaml=SLOW))
    until(lambda: server.runs() and server.runs()[0]["state"] == "running")
    (run,) = server.runs()
    until(lambda: "begun" in ann.get(f"/runs/{run['id']}/logs/s").text)
    assert 'data-live="1"' in ann.get(f"/runs/{run['id']}/logs/s").text
    assert 'data-live="1"' in ann.get(f"/runs/{run['id']}").text
    assert 'as-is">begun</div>' in ann.get(f"/runs/{run['id']}").text, "what it said last"
    assert ann.send(f"/runs/{run['id']}/cancel", {}).to == f"/runs/{run['id']}"
    server.settled(1)
    ended = ann.get(f"/runs/{run['id']}").text
    assert ">cancelled by ann</p>" in ended, "that is of the run and of no stage"
    assert "demo#1" in ann.get("/runs?how=cancelled&project=shop").text
    assert "None of that kind" in ann.get("/runs?how=failed").text
    assert "/cancel" not in ended


def test_a_run_is_started_with_parameters_and_what_is_wrong_is_said_on_the_same_page(
    server: Server, repository: Repository, ann: Browser
) -> None:
    repository.commit("params", pipeline_yaml=FILE)
    form = ann.get("/projects/shop").text
    for words in ("whom to greet", 'name="param.who"', 'placeholder="you"', "<option>large</option>", "Start demo"):
        assert words in form, words
    fields = {"pipeline": "demo", "ref": "", "param.who": "Bo & Co", "param.size": "large", "param.loud": ""}
    started = ann.send("/projects/shop/runs", fields)
    assert (started.status, started.to[:6]) == (303, "/runs/")
    assert "demo#1" in ann.get("/audit").text
    server.settled(1)
    assert "hello Bo &amp; Co false large" in ann.get(f"{started.to}/logs/greet").text
    wrong = ann.send("/projects/shop/runs", {**fields, "param.size": "huge"})
    assert wrong.status == 422
    assert "huge" in wrong.text
    assert 'value="Bo &amp; Co"' in wrong.text, "what was written is still there"
    assert "no branch, tag or commit &#39;nowhere&#39;" in ann.get("/projects/shop?ref=nowhere").text


def test_deliveries_are_shown_and_one_is_worked_again_by_those_who_may(
    server: Server, repository: Repository, ann: Browser, bob: Browser
) -> None:
    _, told = server.push(repository.commit("x", src__a="x"))
    server.settled(1)
    shown = ann.get("/deliveries").text
    assert told["delivery"] in shown
    assert "#1 started" in shown
    path = f"/deliveries/{told['delivery']}/redeliver"
    assert path in shown
    assert path not in bob.get("/deliveries").text
    assert path in ann.get(f"/deliveries/{told['delivery']}").text
    assert ann.get("/deliveries/01AAAAAAAAAAAAAAAAAAAAAAAA").status == 404
    (run,) = server.runs()
    assert f'href="/deliveries/{told["delivery"]}"' in ann.get(f"/runs/{run['id']}").text
    assert 'href="/projects/shop/runs/demo/1"' in shown
    assert ann.get("/projects/shop/runs/demo/1").to == f"/runs/{run['id']}"
    assert ann.get("/projects/shop/runs/demo/2").status == 404
    assert bob.send(path, {}).status == 403
    assert ann.send(path, {}).status == 303
    until(lambda: "#1 runs it already" in ann.get("/deliveries").text)


def test_a_projects_page_tells_its_administrators_how_it_is_set_up(server: Server, ann: Browser, bob: Browser) -> None:
    new = ann.get("/projects/shop").text
    for words in (f"http://127.0.0.1:{server.port}/hooks/shop", "Nothing has come there yet", "pipe secrets set shop"):
        assert words in new
    server.push("f" * 40, secret="guessed")
    heard = ann.get("/projects/shop").text
    assert re.search(r'heard last <time.*<a href="/deliveries/\w+">refused</a>', heard)
    assert "Set-up" not in bob.get("/projects/shop").text
    assert "pipe projects add" in ann.get("/projects").text
    assert "pipe projects add" not in bob.get("/projects").text


def test_a_page_that_is_not_there_says_so_in_words(ann: Browser) -> None:
    assert "There is no page at this address." in ann.get("/nowhere").text
    assert "there is no such thing, or not for you" in ann.get("/runs/nothing").text


def test_nobody_sees_a_page_without_signing_in_and_nobody_acts_from_elsewhere(server: Server, ann: Browser) -> None:
    stranger = Browser(server.port)
    for path in ("/", "/runs", "/runs/x", "/runs/x/logs/y", "/projects", "/projects/shop", "/deliveries"):
        assert stranger.get(path).to.startswith("/login?to="), path
    for path in ("/runs/x/cancel", "/projects/shop/runs", "/deliveries/x/redeliver"):
        assert stranger.send(path, {}).status == 401, path
        assert ann.send(path, {}, Sec_Fetch_Site="cross-site").status == 403, path
        assert ann.send(path, {"csrf": "x"}).status == 403, path


# -- people and the audit log ----------------------------------------------------------------------


def test_an_administrator_adds_people_gives_roles_and_removes_them(server: Server, ann: Browser) -> None:
    added = ann.send("/people", {"name": "cleo", "roles": "member@shop"})
    link = re.search(r"<code>(http://[^<]+/password#[\w-]+)</code>", added.text)
    assert link, added.text
    assert "not yet" in added.text
    assert link[1] not in ann.get("/people").text, "it is shown once"
    assert ann.send("/people/cleo/roles", {"roles": "member, admin@shop"}).status == 303
    assert 'value="admin@shop, member"' in ann.get("/people").text
    again = ann.send("/people/cleo/link", {})
    assert "/password#" in again.text
    assert ann.send("/people/cleo/remove", {}).status == 303
    assert "cleo" not in ann.get("/people").text
    log = ann.get("/audit").text
    assert "cleo" in log
    assert "127.0.0.1" in log
    assert "Nothing of that kind" in ann.get("/audit?who=nobody").text


def test_what_is_wrong_with_a_form_about_people_is_said_above_it(server: Server, ann: Browser) -> None:
    for path, fields, status, words in (
        ("/people", {"name": "No Name", "roles": "member"}, 422, "is no name of a person"),
        ("/people", {"name": "cleo", "roles": "boss"}, 422, "there is no role &#39;boss&#39;"),
        ("/people/ann/roles", {"roles": "member"}, 422, "is the last administrator"),
        ("/people/ann/remove", {}, 422, "is the last administrator"),
        ("/people/nobody/link", {}, 422, "there is no person &#39;nobody&#39;"),
    ):
        answer = ann.send(path, fields)
        assert (answer.status, words in answer.text) == (status, True), (path, answer.text)
        assert "<h1>People</h1>" in answer.text
    assert ann.ask("POST", "/people", "name=x", Content_Type="application/x-www-form-urlencoded").status == 403


def test_pages_about_people_are_for_those_who_manage_them_everywhere(
    server: Server, ann: Browser, bob: Browser
) -> None:
    local = signed_in(server, "dora", "admin@shop")
    for browser in (bob, local):
        for path in ("/people", "/audit"):
            assert browser.get(path).status == 403
            assert f'href="{path}"' not in browser.get("/runs").text
        assert browser.send("/people", {"name": "eve", "roles": "admin"}).status == 403
        assert browser.send("/people/ann/remove", {}).status == 403
    assert all(f'href="{path}"' in ann.get("/runs").text for path in ("/people", "/audit"))
    assert "eve" not in ann.get("/people").text


def test_the_audit_log_goes_back_page_by_page(server: Server, ann: Browser) -> None:
    for n in range(51):
        ann.send("/people/ann/roles", {"roles": "admin" if n % 2 else "admin, member"})
    first = ann.get("/audit?who=ann").text
    older = re.search(r'href="(/audit\?who=ann[^"]+)">Older ones', first)
    assert older
    assert first.count("<tr>") == 51
    assert ann.get(older[1].replace("&amp;", "&")).text.count("<tr>") >= 2


def test_whom_a_project_tells_and_who_sees_its_badge_stand_in_the_audit_log(server: Server, ann: Browser) -> None:
    assert pipe(server.folder, "projects", "badge", "shop", "--public").returncode == 0
    url = host(PIPE_NOTIFY_URL="json://127.0.0.1:9/hidden-word")
    assert pipe(server.folder, "notify", "add", "shop", "team", "--on", "failed", env=url).returncode == 0
    assert pipe(server.folder, "notify", "remove", "shop", "team").returncode == 0
    log = ann.get("/audit?project=shop").text
    for words in ("public badge: yes", "add target", "remove target"):
        assert words in log
    assert "hidden-word" not in log


# -- on a telephone --------------------------------------------------------------------------------

_MEASURED = """<!doctype html><pre id="widths"></pre>
{frames}
<script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  const widths = frames.map(each => Math.max(...[...each.contentDocument.querySelectorAll("html, .wide")].map(
    one => one.scrollWidth - one.clientWidth)));
  document.getElementById("widths").textContent = JSON.stringify(widths);
}});
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here")
def test_nothing_lies_beyond_the_edge_of_a_telephone(
    server: Server, repository: Repository, ann: Browser, tmp_path: Path
) -> None:
    server.push(repository.commit("a title that is not short, as those of real commits seldom are", pipeline_yaml=FILE))
    (run,) = server.settled(1)
    paths = ["/runs", f"/runs/{run['id']}", f"/runs/{run['id']}/logs/bad", "/projects", "/projects/shop", "/deliveries"]
    paths += ["/people", "/audit", "/account", "/nowhere"]
    style = f"<style>{ann.get('/static/pipe.css').text}</style></head>"
    frame = '<iframe width="390" height="800" srcdoc="{}"></iframe>'
    frames = [frame.format(html.escape(ann.get(path).text.replace("</head>", style))) for path in paths]
    (tmp_path / "pages.html").write_text(_MEASURED.format(frames="\n".join(frames)))
    argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    argv += ["--dump-dom", (tmp_path / "pages.html").as_uri()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    widths = re.search(r'<pre id="widths">(.*?)</pre>', done.stdout)
    assert widths
    beyond = dict(zip(paths, json.loads(widths[1]), strict=True))
    assert {path: pixels for path, pixels in beyond.items() if pixels > 0} == {}
