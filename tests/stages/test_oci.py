"""Names of images, and what is asked of a registry and believed."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.stage import Login, StageErrored, StageFailed
from stages.clients.oci import Insecure, Registry, check_tag, parse_reference

DIGEST = "sha256:" + "a" * 64
Answer = tuple[int, dict[str, str], bytes]


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "", ""),
        ("nginx:1", "docker.io", "library/nginx", "1", ""),
        ("team/app:1", "docker.io", "team/app", "1", ""),
        ("10.0.0.1:5000/team/app", "10.0.0.1:5000", "team/app", "", ""),
        ("10.0.0.1:5000/app:v1.0_x-Y", "10.0.0.1:5000", "app", "v1.0_x-Y", ""),
        ("localhost/app", "localhost", "app", "", ""),
        (f"reg.example/a/b/c:t@{DIGEST}", "reg.example", "a/b/c", "t", DIGEST),
        (f"reg.example/a@{DIGEST}", "reg.example", "a", "", DIGEST),
        ("[::1]:5000/a:1", "[::1]:5000", "a", "1", ""),
    ],
)
def test_a_name_is_taken_apart_and_put_together(text: str, registry: str, path: str, tag: str, digest: str) -> None:
    reference = parse_reference(text)
    assert (reference.registry, reference.path, reference.tag, reference.digest) == (registry, path, tag, digest)
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no part"),
        ("Team/App", "must be in lower case"),
        ("reg.example/A", "must be in lower case"),
        ("a//b", "'' is no part"),
        ("a/-b", "'-b' is no part"),
        ("a..b/c d", "is no name of a registry|is no part"),
        ("reg_x.example:5000/a", "'reg_x.example:5000' is no name of a registry"),
        ("a:", "is no tag|is no part"),
        ("a:.x", "'.x' is no tag"),
        ("a:" + "x" * 129, "is no tag"),
        ("a@sha256:12", "64 digits"),
        ("reg.example/" + "a" * 250, "longer than 255"),
    ],
)
def test_a_name_that_docker_would_refuse_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_reference(text)


def test_a_tag_made_of_a_branch_is_told_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"'feature/x' is no tag: .* for a branch use \$\{trigger\.slug\}"):
        check_tag("feature/x")


@pytest.mark.parametrize(
    ("registry", "allowed"),
    [
        ("10.1.2.3:5000", True),
        ("10.200.0.1:5000", True),
        ("10.201.0.1:5000", False),
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("reg.example:5000", False),
        ("docker.io", False),
    ],
)
def test_plain_http_is_spoken_where_the_engine_speaks_it(registry: str, allowed: bool) -> None:  # noqa: FBT001
    insecure = Insecure(frozenset({"10.1.2.3:5000"}), ("127.0.0.0/8", "10.200.0.0/16"))
    assert insecure.allows(registry) is allowed


# -- a registry ------------------------------------------------------------------------------------


class Fake:
    """A registry on loopback that answers as its `answer` says; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], Answer] = lambda path, login: (200, {}, b"")
        self.asked: list[tuple[str, str, str]] = []
        self.bodies: list[bytes] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = self.headers.get("Authorization", "")
                fake.asked.append((self.command, self.path, login))
                status, headers, body = fake.answer(self.path, login)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_PUT(self) -> None:
                fake.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.do_GET()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_port}"

    def registry(self, login: Login | None = None) -> Registry:
        return Registry(self.name, login, insecure=True, secret="reg" if login else "")


@pytest.fixture
def fake() -> Iterator[Fake]:
    found = Fake()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def private(path: str, login: str) -> Answer:
    if login == basic("joe", "right"):
        return 200, {"Docker-Content-Digest": DIGEST}, b""
    return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""


@pytest.mark.network
async def test_a_digest_is_read_with_a_login(fake: Fake) -> None:
    fake.answer = private
    registry = fake.registry(Login("joe", "right"))
    await registry.check_login("team/app")
    assert await registry.digest("team/app", "v1") == DIGEST
    assert fake.asked[-1][:2] == ("HEAD", "/v2/team/app/manifests/v1")


@pytest.mark.network
async def test_a_wrong_login_is_told_with_its_name(fake: Fake) -> None:
    fake.answer = private
    message = rf"^the registry {fake.name} refused the login 'joe' of the secret 'reg' \(401\)$"
    with pytest.raises(StageFailed, match=message):
        await fake.registry(Login("joe", "wrong")).check_login("team/app")


@pytest.mark.network
async def test_a_missing_login_is_told(fake: Fake) -> None:
    fake.answer = private
    with pytest.raises(StageFailed, match=r"wants a login \(401\)"):
        await fake.registry().check_login("team/app")


@pytest.mark.network
async def test_what_is_not_there_has_no_digest(fake: Fake) -> None:
    fake.answer = lambda path, login: (404 if "manifests" in path else 200, {}, b"")
    assert await fake.registry().digest("team/app", "v1") is None


@pytest.mark.network
@pytest.mark.parametrize("answer", [(200, {}, b""), (200, {"Docker-Content-Digest": "x"}, b""), (503, {}, b"")])
async def test_an_answer_without_a_digest_is_none(fake: Fake, answer: Answer) -> None:
    fake.answer = lambda path, login: answer if "manifests" in path else (200, {}, b"")
    with pytest.raises(StageErrored, match=rf"answered {answer[0]} when asked for team/app:v1"):
        await fake.registry().digest("team/app", "v1")


@pytest.mark.network
async def test_a_token_is_fetched_where_the_registry_says(fake: Fake) -> None:
    def answer(path: str, login: str) -> Answer:
        if path.startswith("/token"):
            ok = login == basic("joe", "right") and "scope=repository:team/app:pull" in path
            return (200, {}, json.dumps({"token": "T0"}).encode()) if ok else (401, {}, b"")
        if login == "Bearer T0":
            return 200, {"Docker-Content-Digest": DIGEST}, b""
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{fake.name}/token",service="s",scope="x"'}, b""

    fake.answer = answer
    assert await fake.registry(Login("joe", "right")).digest("team/app", "v1") == DIGEST
    with pytest.raises(StageFailed, match="refused the login 'joe'"):
        await fake.registry(Login("joe", "wrong")).digest("team/app", "v1")


@pytest.mark.network
async def test_a_login_is_not_sent_in_clear_for_a_token(fake: Fake) -> None:
    registry = Registry("reg.example", Login("joe", "right"), insecure=False)
    registry._base = f"http://{fake.name}"
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{fake.name}/token",service="s"'}
    fake.answer = lambda path, login: (401, challenge, b"")
    with pytest.raises(StageErrored, match="which is no https address"):
        await registry.check_login("team/app")
    assert not any(login for _, _, login in fake.asked)


@pytest.mark.network
async def test_a_registry_that_must_be_secure_is_not_asked_in_clear(fake: Fake) -> None:
    registry = Registry(fake.name, Login("joe", "right"), insecure=False)
    with pytest.raises(StageErrored, match=f"the registry {fake.name} does not answer"):
        await registry.check_login("team/app")
    assert fake.asked == []


@pytest.mark.network
async def test_a_registry_that_is_down_is_told() -> None:
    registry = Registry("127.0.0.1:1", None, insecure=True)
    with pytest.raises(StageErrored, match=r"the registry 127\.0\.0\.1:1 does not answer: .*127\.0\.0\.1"):
        await registry.check_login("team/app")


# -- the right to push -----------------------------------------------------------------------------

REFUSED: Answer = (400, {}, b'{"errors": [{"code": "MANIFEST_INVALID"}]}')
UNKNOWN: Answer = (404, {}, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')


def with_tokens(fake: Fake, may: str) -> Callable[[str, str], Answer]:
    """A registry that gives everybody a token, and takes it for the rights that it names."""

    def answer(path: str, login: str) -> Answer:
        if path.startswith("/token"):
            ok = login == basic("joe", "right") and "scope=repository:team/app:pull,push" in path
            return (200, {}, json.dumps({"token": may}).encode()) if ok else (401, {}, b"")
        if login == "Bearer pull,push":
            return REFUSED
        challenge = f'Bearer realm="http://{fake.name}/token",service="s",error="insufficient_scope"'
        return 401, {"WWW-Authenticate": challenge}, b""

    return answer


def with_basic(path: str, login: str) -> Answer:
    if login == basic("joe", "right"):
        return REFUSED
    if login == basic("ann", "reader"):
        return 403, {}, b'{"errors": [{"code": "DENIED"}]}'
    return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""


@pytest.mark.network
async def test_who_may_push_is_told_by_what_is_said_to_a_manifest_that_is_none(fake: Fake) -> None:
    fake.answer = with_tokens(fake, "pull,push")
    await fake.registry(Login("joe", "right")).check_push("team/app")
    fake.answer = with_basic
    await fake.registry(Login("joe", "right")).check_push("team/app")
    writes = [path for method, path, _ in fake.asked if method not in ("GET", "HEAD")]
    assert set(writes) == {f"/v2/team/app/manifests/sha256:{'0' * 64}"}
    assert set(fake.bodies) == {b"{}"}


@pytest.mark.network
async def test_a_login_without_the_right_to_push_is_told_with_the_repository(fake: Fake) -> None:
    fake.answer = with_tokens(fake, "pull")
    message = rf"^the login 'joe' of the secret 'reg' may not push to team/app in the registry {fake.name} \(401\)$"
    with pytest.raises(StageFailed, match=message):
        await fake.registry(Login("joe", "right")).check_push("team/app")
    fake.answer = with_basic
    with pytest.raises(StageFailed, match=r"the login 'ann' .* may not push to team/app .* \(403\)"):
        await fake.registry(Login("ann", "reader")).check_push("team/app")


@pytest.mark.network
async def test_a_wrong_password_is_not_called_a_missing_right(fake: Fake) -> None:
    for answer in (with_tokens(fake, "pull,push"), with_basic):
        fake.answer = answer
        with pytest.raises(StageFailed, match="refused the login 'joe'"):
            await fake.registry(Login("joe", "wrong")).check_push("team/app")


@pytest.mark.network
@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (UNKNOWN, StageFailed, "has no repository team/app, and makes none by a push"),
        ((405, {}, b""), StageFailed, "takes no pushes: it is read-only"),
        ((503, {}, b""), StageErrored, "answered 503 when asked for the right to push to team/app"),
        ((429, {}, b""), StageErrored, "answered 429"),
    ],
)
async def test_a_registry_that_takes_no_push_is_told(
    fake: Fake, answer: Answer, error: type[Exception], said: str
) -> None:
    fake.answer = lambda path, login: answer
    with pytest.raises(error, match=said):
        await fake.registry().check_push("team/app")


@pytest.mark.network
@pytest.mark.parametrize("answer", [REFUSED, (404, {}, b"<html>"), (415, {}, b"[]"), (400, {}, b'{"errors": [1]}')])
async def test_however_a_registry_refuses_what_it_was_offered_one_may_push(fake: Fake, answer: Answer) -> None:
    fake.answer = lambda path, login: answer
    await fake.registry().check_push("team/app")
