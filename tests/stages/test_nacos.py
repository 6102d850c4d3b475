"""What a Nacos server is asked and believed: real answers of one, and a server on loopback with every fault."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed
from stages.clients import nacos as module
from stages.clients.nacos import Instance, Nacos, read_instances, read_services, server_url

FOLDER = Path(__file__).parent / "nacos"
LOGIN = Login("pipe", "Pa55word")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("his-nacos.his", "http://his-nacos.his:8848/nacos"),
        ("10.0.0.1:30848", "http://10.0.0.1:30848/nacos"),
        ("http://nacos.example", "http://nacos.example/nacos"),
        ("https://nacos.example/", "https://nacos.example/nacos"),
        ("http://nacos.example:8848/registry/", "http://nacos.example:8848/registry"),
        ("[::1]:8848", "http://[::1]:8848/nacos"),
    ],
)
def test_an_address_is_taken_as_people_write_it(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:8848,b:8848", "name one server"),
        ("ftp://a", "is no address of a server"),
        ("http://", "is no address of a server"),
        ("http://a:port", "is no address of a server"),
        ("http://a/nacos?x=1", "is no address of a server"),
        ("http://u:p@a", "no login in an address"),
    ],
)
def test_what_is_no_address_is_refused_with_how_to_write_one(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        server_url(text)


def answer(*hosts: dict[str, object], **more: object) -> bytes:
    return json.dumps({"name": "DEFAULT_GROUP@@web", "hosts": hosts, **more}).encode()


HOST = {"ip": "10.0.0.1", "port": 80, "healthy": True, "enabled": True}


def test_an_instance_serves_only_if_it_is_healthy_and_nobody_has_disabled_it() -> None:
    given = answer(HOST, {**HOST, "healthy": False}, {**HOST, "enabled": False}, {"ip": "10.0.0.2", "port": 80})
    assert [str(each) for each in read_instances(given)] == [
        "10.0.0.1:80 (healthy)",
        "10.0.0.1:80 (unhealthy)",
        "10.0.0.1:80 (disabled)",
        "10.0.0.2:80 (unhealthy)",
    ]


def test_while_a_server_protects_a_service_it_is_not_believed_that_all_are_healthy() -> None:
    assert [each.serves for each in read_instances(answer(HOST, reachProtectionThreshold=True))] == [False]
    assert [each.serves for each in read_instances(answer(HOST, reachProtectionThreshold=False))] == [True]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"hosts": {}}', b'{"hosts": [1]}', b'{"code": 0, "data": []}'])
def test_what_is_no_list_of_instances_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON says it in its own words
        read_instances(body)


def test_the_services_are_read_by_name() -> None:
    assert read_services(b'{"count": 2, "doms": ["a", "b"]}') == ["a", "b"]
    with pytest.raises(ValueError, match="no list `doms`"):
        read_services(b'{"count": 2}')


# -- what a real one said, see tests/stages/nacos_answers.py -----------------------------------------


def recorded(name: str) -> bytes:
    (path,) = FOLDER.glob(f"{name}.*")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("unknown", []),
        ("other-group", []),
        ("old", ["10.244.0.4:9200 (healthy)"]),
        ("old-unhealthy", ["10.244.0.4:9200 (unhealthy)", "10.244.0.9:9200 (healthy)"]),
        ("new", ["10.244.0.9:9200 (healthy)"]),
        ("new-disabled", []),
    ],
)
def test_the_instances_of_a_real_server_are_read_in_every_state(name: str, found: list[str]) -> None:
    assert sorted(map(str, read_instances(recorded(name)))) == found


def test_the_services_of_a_real_server_are_read() -> None:
    assert read_services(recorded("services")) == ["web"]
    assert read_services(recorded("services-none")) == []


# -- a server --------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """A server on loopback; what it was asked is in `asked`, each as method, path and query."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)

    def nacos(self, login: Login | None = None) -> Nacos:
        return Nacos(self.url, "prod", "HIS", login, "nacos" if login else "")


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Server]:
    server = Server()

    async def take(request: web.Request) -> web.StreamResponse:
        server.asked.append((request.method, request.path, dict(request.query)))
        if request.method == "POST":
            server.forms.append({key: str(value) for key, value in (await request.post()).items()})
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/nacos"
    try:
        yield server
    finally:
        await runner.cleanup()


def saying(status: int, text: str, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return handler


@pytest.mark.network
async def test_instances_are_asked_for_with_their_unhealthy_ones_in_namespace_and_group() -> None:
    async with serving(saying(200, answer(HOST).decode())) as server:
        found = await server.nacos().instances(["web", "api"])
    assert found == {name: [Instance("10.0.0.1", 80, healthy=True)] for name in ("web", "api")}
    query = {"serviceName": "web", "healthyOnly": "false", "namespaceId": "prod", "groupName": "HIS"}
    assert server.asked[0] == ("GET", "/nacos/v1/ns/instance/list", query)


@pytest.mark.network
@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (500, "caused: no leader", r"cannot answer now \(500: caused: no leader\)"),
        (503, "<html>gateway</html>", r"cannot answer now \(503\)"),
        (429, "", r"cannot answer now \(429\)"),
    ],
)
async def test_what_may_pass_is_errored(status: int, text: str, message: str) -> None:
    async with serving(saying(status, text)) as server:
        with pytest.raises(StageErrored, match=message):
            await server.nacos().instances(["web"])


@pytest.mark.network
@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (404, "not here", "does not answer as Nacos does: 404: not here for /v1/ns/instance/list"),
        (302, "", "does not answer as Nacos does: 302 for"),
        (410, '{"message": "this API is gone"}', "410: this API is gone"),
        (200, "<html>a console</html>", "does not answer as Nacos does: Expecting value"),
        (200, '{"hosts": "none"}', "it has no list `hosts`"),
        (403, '{"message": "unknown user!"}', r"wants a login \(403: unknown user!\)$"),
    ],
)
async def test_what_is_no_nacos_or_wants_a_login_is_the_files_mistake(status: int, text: str, message: str) -> None:
    async with serving(saying(status, text)) as server:
        with pytest.raises(StageFailed, match=message) as error:
            await server.nacos().instances(["web"])
    assert error.value.cause.kind is CauseKind.CONFIG
    assert server.url in str(error.value)


@pytest.mark.network
async def test_a_server_that_says_nothing_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await anyio.sleep(30)
        return web.Response()

    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.2)
    async with serving(hang) as server:
        with anyio.fail_after(5), pytest.raises(StageErrored, match="does not answer: "):
            await server.nacos().instances(["web"])


@pytest.mark.network
async def test_nobody_at_the_address_is_errored_and_named() -> None:
    async with serving(saying(200, "")) as server:
        pass
    with pytest.raises(StageErrored, match=f"Nacos {server.url} does not answer: .*refused|Connect call failed"):
        await server.nacos().instances(["web"])


@pytest.mark.network
async def test_an_answer_without_end_is_cut() -> None:
    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * 65536)
        await response.write(answer(HOST))
        return response

    async with serving(pour) as server:
        with pytest.raises(StageFailed, match="does not answer as Nacos does"):
            await server.nacos().instances(["web"])


# -- logins ----------------------------------------------------------------------------------------


def guarded(valid: list[str], right: bool = True) -> Handler:  # noqa: FBT001, FBT002
    """Gives the last of `valid` as token to LOGIN, and takes all of them."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/login"):
            form = await request.post()
            if form.get("password") != LOGIN.password:
                return web.Response(status=403, text="unknown user!")
            return web.json_response({"accessToken": valid[-1], "tokenTtl": 18000})
        if request.query.get("accessToken") not in valid or not right:
            return web.json_response({"message": "authorization failed!"}, status=403)
        return web.Response(body=answer(HOST))

    return handler


@pytest.mark.network
async def test_a_login_is_made_once_and_again_when_its_token_is_taken_no_more() -> None:
    valid = ["first"]
    async with serving(guarded(valid)) as server:
        nacos = server.nacos(LOGIN)
        for _ in range(2):
            assert await nacos.instances(["web"])
        valid[:] = ["second"]
        assert await nacos.instances(["web"])
    assert server.forms == [{"username": "pipe", "password": "Pa55word"}] * 2
    assert all("password" not in query for _, _, query in server.asked)


@pytest.mark.network
async def test_a_real_servers_logins_and_refusals_are_understood() -> None:
    """In its words: a token is asked for, taken, and missed."""
    token = json.loads(recorded("login"))["accessToken"]

    async def real(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/login"):
            right = (await request.post()).get("password") == LOGIN.password
            return web.Response(body=recorded("login" if right else "wrong-login"), status=200 if right else 403)
        known = request.query.get("accessToken") == token
        return web.Response(body=recorded("new" if known else "no-login"), status=200 if known else 403)

    async with serving(real) as server:
        assert await server.nacos(LOGIN).instances(["web"])
        with pytest.raises(StageFailed, match=r"refused the login .* \(403: unknown user!\)"):
            await server.nacos(Login("pipe", "wrong")).instances(["web"])
        with pytest.raises(StageFailed, match=r"wants a login \(403: unknown user!\)"):
            await server.nacos().instances(["web"])


@pytest.mark.network
async def test_a_wrong_login_names_its_secret_and_never_itself() -> None:
    async with serving(guarded(["t"])) as server:
        with pytest.raises(
            StageFailed, match=r"refused the login 'pipe' of the secret 'nacos' \(403: unknown"
        ) as error:
            await server.nacos(Login("pipe", "wrong")).instances(["web"])
    assert "wrong" not in str(error.value)


@pytest.mark.network
async def test_a_login_without_the_right_says_what_it_may_not_read() -> None:
    async with serving(guarded(["secret-token"], right=False)) as server:
        with pytest.raises(
            StageFailed, match=r"may not read the services of .*namespace prod, group HIS.*403: auth"
        ) as error:
            await server.nacos(LOGIN).instances(["web"])
    assert "secret-token" not in str(error.value)
    assert "secret-token" not in repr(server.nacos(LOGIN))


@pytest.mark.network
async def test_no_login_follows_a_redirect() -> None:
    async with (
        serving(saying(200, '{"accessToken": "t"}')) as other,
        serving(saying(302, "", Location=other.url + "/v1/auth/login")) as server,
    ):
        with pytest.raises(StageFailed, match="302"):
            await server.nacos(LOGIN).instances(["web"])
    assert other.asked == []
