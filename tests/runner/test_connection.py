"""When a server cannot be reached, or is none, the user is told what to do about it."""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.errors import PipeError
from runner.remote.connection import Lost, Server, connect, server_url
from runner.remote.runs import ServerRuns
from tests.support.certificate import self_signed

pytestmark = pytest.mark.network

PROBLEM = "application/problem+json"
KNOWN = "t"


@contextmanager
def answering(
    answers: Mapping[str, tuple[int, str, str]], certificate: Path | None = None, **headers: str
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An HTTP server with these answers (status, type and text) by path, its URL, and the headers that it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            status, kind, text = answers.get(self.path.partition("?")[0], answers["*"])
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(text.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


@contextmanager
def connected(url: str, token: str = KNOWN) -> Iterator[Server]:
    made = Server(url, token)
    try:
        yield made
    finally:
        made.close()


def said(answer: tuple[int, str, str], token: str = KNOWN, *, streams: bool = True, **headers: str) -> str:
    healthy = (200, "application/json", '{"status": "ok", "version": "9.9"}')
    with answering({"/healthz": healthy, "*": answer}, None, **headers) as (url, _), connected(url, token) as server:
        with pytest.raises(PipeError) as caught:
            server.get("runs")
        if streams:
            with pytest.raises(type(caught.value)), server.stream("runs"):
                pass
        return str(caught.value).replace(url, "URL")


def problem(status: int, detail: str) -> tuple[int, str, str]:
    return status, PROBLEM, json.dumps({"detail": detail})


def test_every_refusal_says_what_to_do() -> None:
    assert said(problem(401, "x")) == "URL does not know this token: `pipe login URL`, or set PIPE_TOKEN"
    assert said(problem(401, "x"), token="") == "URL wants a token: `pipe login URL`, or set PIPE_TOKEN"
    assert said(problem(403, "members may not cancel")) == "URL: members may not cancel"
    older = f"URL does not know this call: the server is pipe 9.9, this is pipe {__version__}"
    assert said(problem(404, "Not Found")) == older
    assert said((200, "text/html", "<h1>Log in</h1>")).startswith(
        "what answers at URL is no pipe server: 200 with text/html"
    )
    assert said((407, "text/html", "<h1>Proxy</h1>")).startswith(
        "what answers at URL is no pipe server: 407 with text/html"
    )
    assert said((301, "text/html", ""), location="https://x") == "URL sends elsewhere: use https://x instead"
    assert said((502, "text/html", "")) == "URL is not there now (502)"


def test_an_answer_that_is_no_json_is_no_server_of_ours() -> None:
    assert "is no pipe server" in said((200, "application/json", "{"), streams=False)


def test_a_server_that_is_not_there_may_be_there_in_a_moment() -> None:
    with (
        connected("http://127.0.0.1:1") as server,
        pytest.raises(Lost, match="there is no server at http"),
    ):
        server.get("runs")
    assert said(problem(503, "just starting")) == "just starting"


@pytest.mark.parametrize("words", ["ci.example.com", "ftp://x", "https://", "", "https://name:secret@ci.example.com"])
def test_what_is_no_url_of_a_server_is_refused(words: str) -> None:
    with pytest.raises(PipeError, match="URL of a server"):
        server_url(words)


def test_a_server_has_one_name_however_it_is_written() -> None:
    assert {server_url(each) for each in ("https://CI.example.com/", " https://ci.example.com")} == {
        "https://ci.example.com"
    }


def test_a_token_goes_to_the_server_that_it_is_for_alone(tmp_path: Path) -> None:
    with answering({"*": (200, "application/json", "[]")}) as (url, asked):
        (tmp_path / "pipe-ci").mkdir()
        file = tmp_path / "pipe-ci/tokens.json"
        file.write_text(json.dumps({url: "mine"}))
        file.chmod(0o600)
        for place, environ in ((url, {}), (url + "/other", {}), (url, {"PIPE_TOKEN": "given"})):
            server = connect(place, {"XDG_CONFIG_HOME": str(tmp_path), **environ})
            ServerRuns(server).newest("", 5)
            server.close()
    assert [each.get("authorization") for each in asked] == ["Bearer mine", None, "Bearer given"]
    file.write_text("{")
    with pytest.raises(PipeError, match=r"tokens\.json is spoiled"):
        connect(url, {"XDG_CONFIG_HOME": str(tmp_path)})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_a_certificate_that_cannot_be_trusted_is_told_with_the_way_to_trust_it(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering({"*": (200, "application/json", "[]")}, certificate) as (url, asked):
        with connected(url) as server, pytest.raises(PipeError, match=r"cannot be trusted: .* SSL_CERT_FILE"):
            server.get("runs")
        assert asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with connected(url) as server:
            assert server.get("runs") == []
