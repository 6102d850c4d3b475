"""What people see and do in a browser: the same truth as by the API, and nothing that a stranger wrote does anything."""

import re
import subprocess
import urllib.parse

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
    lacks_script(log)
    first = ann.get(f"/runs/{run['id']}/logs/bad?attempt=1").text
    assert "the &lt;b&gt;reason&lt;/b&gt;" in first
    assert ann.get(f"/runs/{run['id']}/logs/nothing").status == 404
    raw = re.search(r'href="(/api/v1/runs/[^"]+)"', log)
    assert raw
    whole = ann.get(raw[1])
    assert (whole.text, whole.headers["Content-Type"]) == ("<script>alert(1)</script> a\n", "text/plain; charset=utf-8")
    assert "sandbox" in whole.headers["Content-Security-Policy"]


def test_what_still_changes_says_so_and_can_be_cancelled(server: Server, repository: Repository, ann: Browser) -> None:
    server.push(repository.commit("slow", pipeline_yaml=SLOW))
    until(lambda: server.runs() and server.runs()[0]["state"] == "running")
    (run,) = server.runs()
    until(lambda: "begun" in ann.get(f"/runs/{run['id']}/logs/s").text)
    assert 'data-live="1"' in ann.get(f"/runs/{run['id']}/logs/s").text
    assert 'data-live="1"' in ann.get(f"/runs/{run['id']}").text
    assert ann.send(f"/runs/{run['id']}/cancel", {}).to == f"/runs/{run['id']}"
    server.settled(1)
    ended = ann.get(f"/runs/{run['id']}").text
    assert "cancelled" in ended
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
    assert bob.send(path, {}).status == 403
    assert ann.send(path, {}).status == 303
    until(lambda: "#1 runs it already" in ann.get("/deliveries").text)


def test_nobody_sees_a_page_without_signing_in_and_nobody_acts_from_elsewhere(server: Server, ann: Browser) -> None:
    stranger = Browser(server.port)
    for path in ("/", "/runs", "/runs/x", "/runs/x/logs/y", "/projects", "/projects/shop", "/deliveries"):
        assert stranger.get(path).to.startswith("/login?to="), path
    for path in ("/runs/x/cancel", "/projects/shop/runs", "/deliveries/x/redeliver"):
        assert stranger.send(path, {}).status == 401, path
        assert ann.send(path, {}, Sec_Fetch_Site="cross-site").status == 403, path
        assert ann.send(path, {"csrf": "x"}).status == 403, path
