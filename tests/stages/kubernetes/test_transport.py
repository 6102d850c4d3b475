"""Requests over a real line to a server that misbehaves."""

import base64
import gc
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import yaml

from pipeline.stage import CauseKind, SecretFile, StageFailed
from stages.clients.kubernetes import api, removal, transport
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.inventory import Entry
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.transport import ApiError, Unreachable
from tests.support.certificate import self_signed
from tests.support.context import FakeContext

pytestmark = pytest.mark.network

POD = Ref("v1", "Pod", "his", "web")
KINDS = {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True}, {"name": "pods/log", "kind": "Pod"}]}


def answer(status: int, body: object, kind: str = "application/json") -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return (head + text).encode()


def status(code: int, message: str) -> bytes:
    return answer(code, {"kind": "Status", "message": message, "reason": "X"})


def write_kubeconfig(ctx: FakeContext, cluster: dict[str, str], user: dict[str, Any] | None = None) -> None:
    """The secret `k`."""
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u" if user else ""}}],
        "users": [{"name": "u", "user": user}] if user else [],
    }
    path = Path(ctx.folder / "kubeconfig")
    path.write_text(yaml.safe_dump(config))
    ctx.secrets = {"k": SecretFile(path)}


@asynccontextmanager
async def server(
    ctx: FakeContext,
    *answers: bytes,
    first: bool = True,
    user: dict[str, Any] | None = None,
    tokens: list[str] | None = None,
) -> AsyncIterator[tuple[Cluster, list[str]]]:
    """A cluster on loopback that gives these answers one after the other, then cuts every line.

    It says `first` which kinds it knows; `user` is that of the kubeconfig; `tokens` gets what each request bears.
    """
    left, asked = [*([answer(200, KINDS)] if first else []), *answers], list[str]()

    async def handle(stream: Any) -> None:
        async with stream:
            first, *headers = (await stream.receive()).decode().splitlines()
            asked.append(first)
            if tokens is not None:
                tokens.extend(line.split()[-1] for line in headers if line.lower().startswith("authorization: "))
            if left:
                await stream.send(left.pop(0))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    write_kubeconfig(ctx, {"server": f"http://127.0.0.1:{port}"}, user)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        async with await connect(ctx, "k", "") as cluster:
            yield cluster, asked
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def fresh_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    api._DISCOVERED.clear()
    monkeypatch.setattr(transport, "_PAUSES", (0.01, 0.01))


async def test_a_busy_cluster_is_asked_again(ctx: FakeContext) -> None:
    async with server(ctx, status(503, "busy"), status(429, "busy"), answer(200, {"a": 1})) as (cluster, asked):
        assert await cluster.get(POD) == {"a": 1}
    assert asked[1:] == ["GET /api/v1/namespaces/his/pods/web HTTP/1.1"] * 3


async def test_a_refusal_is_not_repeated_and_a_missing_object_is_none(ctx: FakeContext) -> None:
    async with server(ctx, status(404, "gone"), status(403, "no")) as (cluster, asked):
        assert await cluster.get(POD) is None
        with pytest.raises(ApiError, match="get Pod his/web: no"):
            await cluster.get(POD)
    assert len(asked) == 3


async def test_a_line_that_is_always_cut_is_unreachable_with_its_address(ctx: FakeContext) -> None:
    async with server(ctx) as (cluster, asked):
        with pytest.raises(Unreachable, match=r"the cluster http://127\.0\.0\.1:\d+ cannot be reached"):
            await cluster.get(POD)
    assert len(asked) >= 4


@pytest.mark.parametrize(
    "odd", [answer(200, "<html>", "text/html"), answer(400, "Client sent an HTTP request to an HTTPS server.")]
)
async def test_what_is_no_cluster_is_called_so(ctx: FakeContext, odd: bytes) -> None:
    async with server(ctx, odd) as (cluster, _):
        with pytest.raises(StageFailed, match="answers, but not as Kubernetes does"):
            await cluster.get(POD)


async def test_a_410_inside_the_stream_is_an_error_of_the_same_form(ctx: FakeContext) -> None:
    lines = [
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}},
    ]
    async with server(ctx, answer(200, "\n".join(map(json.dumps, lines)))) as (cluster, asked):
        events = cluster.watch(Collection("v1", "Pod", "his", labels="app=web"), "7", 5)
        assert (await anext(events))["type"] == "ADDED"
        with pytest.raises(ApiError) as caught:
            await anext(events)
    assert caught.value.status == 410
    assert "labelSelector=app%3Dweb" in asked[1]
    assert "timeoutSeconds=5" in asked[1]


async def test_half_a_line_of_a_watch_is_a_cut(ctx: FakeContext) -> None:
    async with server(ctx, answer(200, '{"type": "ADD')) as (cluster, _):
        events = cluster.watch(Collection("v1", "Pod", "his"), "7", 5)
        with pytest.raises(Unreachable, match="cut"):
            await anext(events)


@contextmanager
def deaf_after(certificate: Path, *answers: bytes) -> Iterator[int]:
    """A port with TLS that gives these answers on one line, and then neither reads nor closes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as held:

        def serve() -> None:
            line = held.enter_context(context.wrap_socket(listener.accept()[0], server_side=True))
            for each in answers:
                line.recv(1 << 16)
                line.sendall(each.replace(b"Connection: close\r\n", b""))

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listener.getsockname()[1]
        server.join(5)


def test_a_watch_that_is_left_leaves_no_line_behind_though_the_other_side_does_not_say_goodbye(tmp_path: Path) -> None:
    certificate, ctx = self_signed(tmp_path), FakeContext(tmp_path)
    event = answer(200, json.dumps({"type": "ADDED", "object": {}}) + "\n" + "." * 99)
    gc.collect()  # what others left is not this one's
    with deaf_after(certificate, answer(200, KINDS), event[:-99]) as port:
        authority = base64.b64encode(certificate.read_bytes()).decode()
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": authority}
        write_kubeconfig(ctx, cluster, {"token": "t"})

        async def look_once() -> None:
            async with await connect(ctx, "k", "") as there:
                watch = there.watch(Collection("v1", "Pod", "his"), "7", 5)
                assert (await anext(watch))["type"] == "ADDED"
                await watch.aclose()

        anyio.run(look_once)
        gc.collect()


# -- logs ------------------------------------------------------------------------------------------


async def test_of_a_log_with_long_lines_fewer_are_read_and_its_end_is_never_lost(ctx: FakeContext) -> None:
    """`limitBytes` cuts what comes after `tailLines`: the newest lines, where the reason stands."""
    cut = answer(200, "x" * 262_144, "text/plain")
    last = answer(200, f"{'y' * 5_000}\nno database\n", "text/plain")
    async with server(ctx, cut, cut, last) as (cluster, asked):
        found = await cluster.log(POD, "app", previous=False, lines=400)
    assert [line.partition("tailLines=")[2].partition("&")[0] for line in asked[1:]] == ["400", "200", "100"]
    assert all("limitBytes=262144" in line for line in asked[1:])
    assert found == ["y" * 2_000 + "…", "no database"]


async def test_one_line_that_is_longer_than_what_is_read_is_shown_by_its_beginning(ctx: FakeContext) -> None:
    async with server(ctx, answer(200, "z" * 262_144, "text/plain")) as (cluster, _):
        assert await cluster.log(POD, "app", previous=True, lines=1) == ["z" * 2_000 + "…"]


# -- the clock -------------------------------------------------------------------------------------


async def test_the_clusters_clock_is_read_from_its_answers_also_from_refusals(ctx: FakeContext) -> None:
    dated = status(403, "no").replace(b"\r\n", b"\r\nDate: Wed, 01 May 2024 12:00:00 GMT\r\n", 1)
    async with server(ctx, dated) as (cluster, _):
        assert cluster.now.year > 2024
        with pytest.raises(ApiError):
            await cluster.get(POD)
        assert f"{cluster.now:%F %H:%M}" == "2024-05-01 12:00"


# -- credentials that expire -----------------------------------------------------------------------

PLUGIN = """#!/bin/sh
echo x >> calls
cat <<END
{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
 "status": {"token": "token-$(wc -l < calls | tr -d ' ')"}}
END
"""


def plugin(ctx: FakeContext) -> dict[str, Any]:
    """A user whose token a plug-in gives: `token-1`, then `token-2`, …"""
    path = ctx.folder / "plugin"
    path.write_text(PLUGIN.replace("calls", str(ctx.folder / "calls")))
    path.chmod(0o700)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(path), "interactiveMode": "Never"}}


async def test_a_token_that_has_expired_is_looked_up_anew_and_the_request_repeated(ctx: FakeContext) -> None:
    tokens: list[str] = []
    answers = (status(401, "Unauthorized"), answer(200, {"a": 1}))
    async with server(ctx, *answers, user=plugin(ctx), tokens=tokens) as (cluster, _):
        assert await cluster.get(POD) == {"a": 1}
    assert tokens == ["token-1", "token-1", "token-2"]


async def test_credentials_that_are_wrong_are_refused_and_a_plug_in_is_not_asked_for_each_request(
    ctx: FakeContext,
) -> None:
    tokens: list[str] = []
    async with server(ctx, *[status(401, "Unauthorized")] * 3, user=plugin(ctx), tokens=tokens) as (cluster, _):
        for _ in range(2):
            with pytest.raises(ApiError, match="Unauthorized"):
                await cluster.get(POD)
    assert tokens == ["token-1", "token-1", "token-2", "token-2"]


async def test_requests_that_are_refused_at_the_same_time_share_one_renewal(ctx: FakeContext) -> None:
    tokens: list[str] = []
    refused, fine = [status(401, "Unauthorized")] * 3, [answer(200, {"a": 1})] * 3
    async with server(ctx, *refused, *fine, user=plugin(ctx), tokens=tokens) as (cluster, _):
        await cluster.resource("v1", "Pod")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(cluster.get, POD)
    assert tokens == ["token-1"] * 4 + ["token-2"] * 3


# -- where objects are ----------------------------------------------------------------------------

BUDGET = Ref("policy/v1beta1", "PodDisruptionBudget", "his", "web")
GROUP = {"preferredVersion": {"groupVersion": "policy/v1"}, "versions": [{"groupVersion": "policy/v1"}]}
BUDGETS = {"resources": [{"name": "poddisruptionbudgets", "kind": "PodDisruptionBudget", "namespaced": True}]}
NOTHING = answer(404, "404 page not found", "text/plain")


async def test_an_object_whose_version_is_gone_is_found_by_another_one_of_its_group(ctx: FakeContext) -> None:
    found = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    answers = [NOTHING, answer(200, GROUP), answer(200, BUDGETS), answer(200, found)]
    async with server(ctx, *answers, first=False) as (cluster, asked):
        assert await removal.find(cluster, Entry(BUDGET, frozenset())) == found
    assert asked[-1].startswith("GET /apis/policy/v1/namespaces/his/poddisruptionbudgets/web ")


async def test_an_object_whose_group_is_gone_is_gone_with_it(ctx: FakeContext) -> None:
    async with server(ctx, NOTHING, NOTHING, first=False) as (cluster, _):
        assert await removal.find(cluster, Entry(BUDGET, frozenset())) is None


@pytest.mark.parametrize(
    "ref",
    [
        Ref("v1", "Pod", "a/../kube-system", "web"),
        Ref("v1", "Pod", "..", "web"),
        Ref("v1", "Pod", "His", "web"),
        Ref("v1", "Pod", "his", "../../secrets/x"),
        Ref("v1", "Pod", "his", ".."),
        Ref("v1", "Pod", "his", "%2e%2e"),
        Ref("v1/../../apis", "Pod", "his", "web"),
        Ref("../v1", "Pod", "his", "web"),
    ],
)
async def test_a_name_that_would_lead_to_another_path_is_refused_before_anything_is_asked(
    ctx: FakeContext, ref: Ref
) -> None:
    async with server(ctx, answer(200, {"a": 1})) as (cluster, asked):
        await cluster.resource("v1", "Pod")
        with pytest.raises(StageFailed, match="is no") as caught:
            await cluster.get(ref)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert len(asked) == 1


async def test_names_that_kubernetes_takes_are_quoted(ctx: FakeContext) -> None:
    roles = {"resources": [{"name": "roles", "kind": "Role", "namespaced": True}]}
    async with server(ctx, answer(200, roles), answer(200, {"a": 1}), first=False) as (cluster, asked):
        await cluster.get(Ref("rbac.authorization.k8s.io/v1", "Role", "his", "a?b#c"))
    assert asked[-1].startswith("GET /apis/rbac.authorization.k8s.io/v1/namespaces/his/roles/a%3Fb%23c ")
