"""Signing in by an OpenID provider: a real one, and one that lies."""

import hmac
import html
import json
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from pipeline.errors import PipeError
from runner.server.openid import Attempt, Identity, Provider, Settings, settings
from runner.server.rights import Grant
from sandbox.identity import CLIENT, SECRET, answers, identity_provider
from tests.runner.server.conftest import Server, sqlite
from tests.runner.server.test_doors import PASSWORD, new_password
from tests.support.program import pipe
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]


def told(server: Server, groups: dict[str, list[str]]) -> None:
    (server.folder / "groups.json").write_text(json.dumps(groups))


@pytest.fixture
def issuer(server: Server) -> Iterator[str]:
    told(server, {})
    callback = f"http://127.0.0.1:{server.port}/login/openid/callback"
    with identity_provider(callback, server.folder / "groups.json") as found:
        until(lambda: answers(found))
        server.env |= {
            "PIPE_OIDC_ISSUER": found,
            "PIPE_OIDC_CLIENT_ID": CLIENT,
            "PIPE_OIDC_CLIENT_SECRET": SECRET,
            "PIPE_OIDC_SCOPE": "openid profile groups",
            "PIPE_OIDC_LABEL": "Acme",
        }
        server.stop()
        server.start()
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", follow_redirects=True, timeout=30) as made:
        yield made


def through(client: httpx2.Client, page: httpx2.Response, login: str) -> httpx2.Response:
    """Fill in the provider's forms, its sign-in and its consent, until it sends the browser back."""
    while "/interaction/" in str(page.url):
        prompt = re.search(r'name="prompt" value="(\w+)"', page.text)
        action = re.search(r'action="([^"]+)"', page.text)
        assert prompt, page.text
        assert action, page.text
        page = client.post(page.url.join(action[1]), data={"prompt": prompt[1], "login": login, "password": "any"})
    return page


def csrf(page: httpx2.Response) -> str:
    found = re.search(r'<meta name="csrf" content="(\w+)">', page.text)
    assert found, page.text
    return found[1]


@pytest.mark.slow
def test_whom_the_provider_knows_is_let_in_and_known_again(server: Server, issuer: str, client: httpx2.Client) -> None:
    asked = client.get("/account?a=b")
    assert "Sign in with Acme" in asked.text
    link = re.search(r'href="(/login/openid[^"]*)"', asked.text)
    assert link
    page = through(client, client.get(html.unescape(link[1])), "ann")
    assert (page.status_code, page.url.path, page.url.query) == (200, "/account", b"a=b")
    assert "<h1>ann</h1>" in page.text
    assert client.get("/api/v1/me").json() == {
        "name": "ann",
        "by": "session",
        "roles": [{"role": "member", "scope": ""}],
    }
    client.post("/logout", data={"csrf": csrf(page)})
    assert client.get("/api/v1/me").status_code == 401
    through(client, client.get("/login/openid"), "ann")
    assert client.get("/api/v1/me").json()["name"] == "ann"
    assert sqlite(server, "select name, password, identity from people") == [("ann", "", f"{issuer} ann")]
    actions = [line["action"] for line in server.get("/api/v1/audit") if line["by"] == "openid"]
    assert actions == ["sign in", "sign in", "add person"]


@pytest.mark.slow
def test_groups_of_the_provider_are_roles_here_at_every_sign_in(
    server: Server, issuer: str, client: httpx2.Client
) -> None:
    server.env["PIPE_OIDC_ROLES"] = "ops=admin; dev=member@shop; late=member@shpo"
    told(server, {"ann": ["dev", "ops"]})
    server.stop()
    server.start()
    to_come = "pipe: PIPE_OIDC_ROLES: there is no project 'shpo'; did you mean 'shop'?; what holds in it holds as soon"
    assert to_come in (server.folder / "server.err").read_text()
    page = through(client, client.get("/login/openid"), "ann")
    roles = [{"role": "admin", "scope": ""}, {"role": "member", "scope": "shop"}]
    assert client.get("/api/v1/me").json()["roles"] == roles
    pipe(server.folder, "people", "add", "root", "--role", "admin")
    new_password(server, "root")
    client.cookies.clear()
    told(server, {"ann": ["dev"]})
    through(client, client.get("/login/openid"), "ann")
    assert client.get("/api/v1/me").json()["roles"] == [{"role": "member", "scope": "shop"}]
    client.cookies.clear()
    told(server, {"ann": ["other"], "eve": ["other"]})
    for login in ("eve", "ann"):
        page = through(client, client.get("/login/openid"), login)
        assert (page.status_code, "none of the groups" in page.text) == (403, True)
        client.cookies.clear()
    assert sqlite(server, "select * from grants where person = 'ann'") == [], "her roles went with her groups"
    assert sqlite(server, "select name from people where name = 'eve'") == []


@pytest.mark.slow
def test_a_name_that_somebody_has_is_not_taken_over_but_connected_by_its_owner(
    server: Server, issuer: str, client: httpx2.Client
) -> None:
    pipe(server.folder, "people", "add", "ann", "--role", "admin")
    new_password(server, "ann")
    page = through(client, client.get("/login/openid"), "ann")
    assert (page.status_code, "signs in otherwise" in page.text) == (403, True)
    assert client.get("/api/v1/me").status_code == 401
    client.cookies.clear()
    client.post("/login", data={"name": "ann", "password": PASSWORD})
    onward = client.post("/account/openid", data={"csrf": csrf(client.get("/account"))})
    link = re.search(r'<a href="([^"]+)">On to Acme', onward.text)
    assert link
    page = through(client, client.get(html.unescape(link[1])), "ann")
    assert (page.url.path, "You can sign in with Acme" in page.text) == ("/account", True)
    client.cookies.clear()
    through(client, client.get("/login/openid"), "ann")
    assert client.get("/api/v1/me").json()["roles"] == [{"role": "admin", "scope": ""}]


@pytest.mark.slow
def test_an_account_is_connected_only_in_the_session_that_asked_for_it(
    server: Server, issuer: str, client: httpx2.Client
) -> None:
    for name in ("ann", "bob"):
        pipe(server.folder, "people", "add", name)
        new_password(server, name)
    client.post("/login", data={"name": "ann", "password": PASSWORD})
    onward = client.post("/account/openid", data={"csrf": csrf(client.get("/account"))})
    link = re.search(r'<a href="([^"]+)">On to Acme', onward.text)
    assert link
    client.post("/logout", data={"csrf": csrf(client.get("/account"))})
    client.post("/login", data={"name": "bob", "password": PASSWORD})
    page = through(client, client.get(html.unescape(link[1])), "ann")
    assert (page.status_code, "not signed in any more" in page.text) == (403, True)
    assert sqlite(server, "select identity from people") == [(None,), (None,)]


@pytest.mark.slow
def test_an_answer_is_good_for_the_browser_that_asked_and_once(
    server: Server, issuer: str, client: httpx2.Client
) -> None:
    came: list[httpx2.Response] = through(client, client.get("/login/openid"), "ann").history
    back = next(str(each.url) for each in came if each.url.path == "/login/openid/callback")
    again = client.get(back)
    assert (again.status_code, "did not begin to sign in here" in again.text) == (403, True)
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as thief:
        thief.get("/login/openid")
        stolen = thief.get(back)
        assert (stolen.status_code, "another attempt" in stolen.text) == (403, True)
        assert thief.get("/api/v1/me").status_code == 401


# -- a provider that lies --------------------------------------------------------------------------

KEY = RSAKey.generate_key(2048, {"kid": "k", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "k"})


class Liar:
    """An HTTP server with the provider's four answers, each of which a test may change."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.metadata: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/me",
            "jwks_uri": f"{self.issuer}/keys",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": self.issuer, "aud": "pipe", "sub": "1", "nonce": "n", "iat": now, "exp": now + 60,
        }  # fmt: skip
        self.me: dict[str, Any] = {"sub": "1", "preferred_username": "Ann Ü", "groups": ["dev"]}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "k"}
        self.key: Any = KEY
        self.forged = ""
        self.asked: list[bytes] = []

    def answer(self, path: str) -> Mapping[str, Any]:
        if path == "/token":
            signed = self.forged or jwt.encode(self.header, self.claims, self.key, algorithms=["RS256", "none"])
            return {"access_token": "a", "token_type": "Bearer", "id_token": signed}
        return {
            "/.well-known/openid-configuration": self.metadata,
            "/keys": KeySet([KEY]).as_dict(private=False),
            "/me": self.me,
        }[path]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, liar: Liar, *args: Any) -> None:
        self._liar = liar
        super().__init__(*args)

    def do_GET(self) -> None:
        body = json.dumps(self._liar.answer(self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self._liar.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def finish(liar: Liar, **answer: str) -> Identity:
    provider = Provider(Settings(liar.issuer, "pipe", "secret"), "http://here")
    attempt = Attempt("s", "n", "v" * 43, time.time() + 60)
    return anyio.run(provider.finish, attempt, {"state": "s", "code": "c", **answer})


def test_a_sound_answer_says_who_it_is(liar: Liar) -> None:
    assert finish(liar) == Identity(f"{liar.issuer} 1", "ann--", frozenset({"dev"}))
    assert b"code_verifier=" + b"v" * 43 in liar.asked[0]


def _symmetric(liar: Liar) -> None:
    """The public key as the secret of an HMAC, which whoever has it can make."""
    parts = [urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in ({"alg": "HS256"}, liar.claims)]
    signature = hmac.digest(KEY.as_pem(private=False), b".".join(parts), "sha256")
    liar.forged = b".".join([*parts, urlsafe_b64encode(signature).rstrip(b"=")]).decode()


LIES: dict[str, Callable[[Liar], object]] = {
    "another issuer": lambda liar: liar.claims.update(iss="http://127.0.0.1:1"),
    "another audience": lambda liar: liar.claims.update(aud="other"),
    "for another among several": lambda liar: liar.claims.update(aud=["pipe", "other"], azp="other"),
    "another nonce": lambda liar: liar.claims.update(nonce="other"),
    "no nonce": lambda liar: liar.claims.pop("nonce"),
    "expired": lambda liar: liar.claims.update(exp=int(time.time()) - 90),
    "without an end": lambda liar: liar.claims.pop("exp"),
    "from the future": lambda liar: liar.claims.update(iat=int(time.time()) + 600),
    "nobody": lambda liar: liar.claims.pop("sub"),
    "another access token": lambda liar: liar.claims.update(at_hash="AAAA"),
    "another key": lambda liar: setattr(liar, "key", OTHER),
    "a key that everybody has": _symmetric,
    "an unsigned token": lambda liar: liar.header.update(alg="none"),
    "two people": lambda liar: liar.me.update(sub="2"),
    "another one's description": lambda liar: liar.metadata.update(issuer="http://127.0.0.1:1"),
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("lie", LIES)
def test_a_provider_that_lies_is_not_believed(liar: Liar, lie: str) -> None:
    LIES[lie](liar)
    with pytest.raises(PipeError, match=r"not sound|two different people|another issuer"):
        finish(liar)


def test_an_answer_to_somebody_elses_question_is_not_taken(liar: Liar) -> None:
    liar.metadata["authorization_response_iss_parameter_supported"] = True
    for answer in ({"state": "other"}, {"state": ""}, {"iss": "http://127.0.0.1:1"}, {}):
        with pytest.raises(PipeError, match="another"):
            finish(liar, **answer)
    assert liar.asked == [], "its code was not even used"


def test_settings_are_checked_all_at_once(tmp_path: Path) -> None:
    assert settings({}) is None
    with pytest.raises(PipeError) as wrong:
        settings(
            {
                "PIPE_OIDC_ISSUER": "http://idp.example",
                "PIPE_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "none"),
                "PIPE_OIDC_ROLES": "dev=membr; ops",
            }
        )
    lines = str(wrong.value).splitlines()
    assert [line.partition(":")[0].partition(" ")[0] for line in lines] == [
        "PIPE_OIDC_ROLES",
        "PIPE_OIDC_ROLES",
        "PIPE_OIDC_ISSUER",
        "PIPE_OIDC_CLIENT_ID",
        "PIPE_OIDC_CLIENT_SECRET_FILE",
    ]
    (tmp_path / "secret").write_text("s3cret\n")
    found = settings(
        {
            "PIPE_OIDC_ISSUER": "https://idp.example/realms/acme",
            "PIPE_OIDC_CLIENT_ID": "pipe",
            "PIPE_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "PIPE_OIDC_ROLES": "cn=dev,ou=x=member@shop; ops=admin",
        }
    )
    assert found
    assert (found.secret, found.roles) == ("s3cret", {"cn=dev,ou=x": Grant("member", "shop"), "ops": Grant("admin")})
    assert found.granted(frozenset({"ops", "other"})) == (Grant("admin"),)
    assert found.granted(frozenset({"other"})) == ()
