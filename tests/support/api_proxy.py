"""An HTTP proxy on loopback before a cluster: it notes what is asked, and spoils what a test wants spoiled."""

import asyncio
import base64
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import anyio
import yaml
from aiohttp import web
from yarl import URL

__all__ = ["ApiProxy", "Asked", "api_proxy"]

_NOT_PASSED_ON = {"connection", "host", "transfer-encoding", "content-length", "keep-alive"}
_REASONS = {401: "Unauthorized", 410: "Expired", 429: "TooManyRequests", 503: "ServiceUnavailable"}


@dataclass(slots=True)
class Asked:
    """One request; the times are of this machine's steady clock, and one that is not answered yet has no end."""

    time: float
    method: str
    path: str
    query: dict[str, str]
    ended: float = math.inf

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        return self.method not in ("GET", "HEAD") and "dryRun" not in self.query


@dataclass
class ApiProxy:
    """What has passed.

    `spoil` says what becomes of a request: `reset`; `silence`; a status as `503`; `ERROR 410`, an event within a
    stream; `cut 100`, after so many bytes of the real answer; `late 2`, after so many seconds; or nothing.
    """

    kubeconfig: Path
    """By which programs reach the cluster through it."""
    spoil: Callable[[Asked], str] = lambda _: ""
    held: bool = False
    """While it is true nothing passes in either direction: lines are half open."""
    asked: list[Asked] = field(default_factory=list)
    lines: set[asyncio.Transport] = field(default_factory=set)
    """On which something is being answered."""
    ended: anyio.Event = field(default_factory=anyio.Event)

    def cut_all(self) -> None:
        """Cut every line on which something is being answered: all watches."""
        for line in self.lines:
            line.abort()

    async def let_pass(self) -> None:
        while self.held:
            await anyio.sleep(0.05)


@asynccontextmanager
async def api_proxy(kubeconfig: Path) -> AsyncIterator[ApiProxy]:
    """A proxy before the cluster of a kubeconfig that has everything embedded, with its login."""
    config = yaml.safe_load(kubeconfig.read_text())
    with TemporaryDirectory() as folder:
        proxy = ApiProxy(Path(folder) / "kubeconfig")
        async with aiohttp.ClientSession(
            config["clusters"][0]["cluster"]["server"],
            connector=aiohttp.TCPConnector(ssl=_trust(config, Path(folder)), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        ) as session:
            runner = web.AppRunner(
                _application(proxy, session), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                proxy.kubeconfig.write_text(_leading_to(runner.addresses[0][1], config))
                yield proxy
            finally:
                proxy.ended.set()
                await runner.cleanup()


def _application(proxy: ApiProxy, session: aiohttp.ClientSession) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        asked = Asked(time.monotonic(), request.method, request.path, dict(request.query))
        proxy.asked.append(asked)
        line = request.transport
        assert line is not None
        proxy.lines.add(line)
        try:
            return await _handle(proxy, session, request, proxy.spoil(asked))
        finally:
            proxy.lines.discard(line)
            asked.ended = time.monotonic()

    application = web.Application(client_max_size=1 << 28)
    application.router.add_route("*", "/{path:.*}", handle)
    return application


def _trust(config: Any, folder: Path) -> ssl.SSLContext:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    pair = folder / "client.pem"
    pair.touch(0o600)
    pair.write_bytes(b"".join(base64.b64decode(user[f"client-{name}-data"]) for name in ("certificate", "key")))
    context.load_cert_chain(pair)
    return context


def _leading_to(port: int, config: Any) -> str:
    cluster = {**config["clusters"][0], "cluster": {"server": f"http://127.0.0.1:{port}"}}
    return yaml.safe_dump({**config, "clusters": [cluster], "users": [{**config["users"][0], "user": {}}]})


async def _handle(
    proxy: ApiProxy, session: aiohttp.ClientSession, request: web.Request, said: str
) -> web.StreamResponse:
    fault, _, amount = said.partition(" ")
    if fault.isdigit():
        return _refusal(int(fault))
    if fault == "ERROR" and "watch" in request.query:
        return await _error_event(request, int(amount))
    if fault == "silence":
        await proxy.ended.wait()
    if fault == "late":
        await anyio.sleep(float(amount))
    if fault in ("reset", "silence"):
        return _cut(request)
    try:
        return await _passed_on(proxy, session, request, int(amount) if fault == "cut" else 1 << 60)
    except aiohttp.ClientError:
        return _cut(request)


def _status(code: int) -> dict[str, Any]:
    reason = _REASONS.get(code, "Unknown")
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
    }


def _refusal(code: int) -> web.Response:
    return web.json_response(_status(code), status=code, headers={"Retry-After": "1"} if code == 429 else {})


async def _error_event(request: web.Request, code: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(web.json_response({"type": "ERROR", "object": _status(code)}).body + b"\n")  # type: ignore[operator]
    return response


def _cut(request: web.Request) -> web.Response:
    """The line is gone; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _passed_on(
    proxy: ApiProxy, session: aiohttp.ClientSession, request: web.Request, left: int
) -> web.StreamResponse:
    await proxy.let_pass()
    url, body = URL(request.raw_path, encoded=True), await request.read()
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
    async with session.request(request.method, url, headers=headers, data=body) as answer:
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
        response = web.StreamResponse(status=answer.status, headers=passed)
        await response.prepare(request)
        async for block in answer.content.iter_any():
            await proxy.let_pass()
            await response.write(block[:left])
            left -= len(block)
            if left <= 0:
                return _cut(request)
        return response
