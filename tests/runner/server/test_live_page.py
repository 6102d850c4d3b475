"""A page that renews itself, in a real browser: it takes nothing away from who looks at it, and says when it is stale."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.server.pages import rendering

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here"),
]

SCRIPT = Path(rendering.__file__).parent / "static" / "live.js"
PAGE = """<!doctype html><title>look {n}</title><script src="/live.js" defer></script>
<p id="told"></p><p id="stale" hidden></p><pre id="seen"></pre>
<div id="live" data-live="1"><a href="/a">a</a> <a href="/b">b</a>
<details open><summary>first</summary>x</details><details><summary>second</summary>y</details>
<time datetime="2026-11-28T18:43:05Z">2026-11-28 18:43:05 UTC</time> {n}</div>
<script>
addEventListener("load", () => {{
  const [first, second] = document.querySelectorAll("details");
  first.open = false;
  second.open = true;
  document.querySelector("[href='/b']").focus();
  setInterval(() => document.getElementById("seen").textContent = JSON.stringify({{
    focus: document.activeElement.textContent,
    open: [...document.querySelectorAll("details")].map(each => each.open),
    title: document.title,
    told: document.getElementById("told").textContent,
    stale: document.getElementById("stale").hidden ? "" : document.getElementById("stale").textContent,
    time: document.querySelector("time").textContent,
  }}), 100);
}});
</script>"""


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[Any]:
    """What a browser shows of a page after some seconds, of which the server answered so many looks."""
    answers: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script = self.path == "/live.js"
            answers.append(self.path == "/")
            alive = script or sum(answers) <= Handler.looks
            text = SCRIPT.read_text() if script else PAGE.format(n=sum(answers))
            self.send_response(200 if alive else Handler.then)
            self.send_header("Content-Type", "text/javascript" if script else "text/html")
            self.end_headers()
            self.wfile.write(text.encode() if alive else b"")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

        looks, then = 0, 503

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def look(looks: int, then: int = 503) -> Any:
        Handler.looks, Handler.then = looks, then
        argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
        argv += ["--virtual-time-budget=4500", "--dump-dom", f"http://127.0.0.1:{server.server_port}/"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True)
        seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
        assert seen, done.stdout
        return json.loads(seen[1])

    yield look
    server.shutdown()
    server.server_close()


def test_a_page_that_renews_itself_keeps_the_focus_and_what_was_opened(looked_at: Any) -> None:
    seen = looked_at(100)
    assert seen["title"] != "look 1", "it has renewed itself"
    assert seen["told"] == seen["title"], "and that is read aloud"
    assert (seen["focus"], seen["open"], seen["stale"]) == ("b", [False, True], "")
    assert re.search(r"(UTC|GMT|[A-Z]{3,})\S*$", seen["time"]), "a time has its zone"


@pytest.mark.parametrize(
    ("status", "told"),
    [(503, "The server does not answer."), (404, "This is not there any more."), (429, "Too much was asked at once.")],
)
def test_a_page_that_is_not_renewed_says_why_and_since_when(looked_at: Any, status: int, told: str) -> None:
    seen = looked_at(2, status)
    assert seen["title"] == "look 2"
    assert seen["stale"].startswith(f"{told} This is how it was at ")
