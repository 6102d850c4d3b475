"""What a Nacos server knows of services: asked by its HTTP API of version 1, which servers of 1 and 2 have.

https://nacos.io/en-us/docs/open-api.html
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio.to_thread

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed

if TYPE_CHECKING:  # importing it takes longer than a start of pipe may
    from aiohttp import ClientSession

__all__ = ["Instance", "Nacos", "read_instances", "read_services", "server_url"]

T = TypeVar("T")

PORT = 8848
CONTEXT = "/nacos"
ANSWER_LIMIT = 5.0
CONNECT_LIMIT = 3.0
LARGEST = 4 * 1024 * 1024
SERVICES = 500
"""Names of services that are asked for, to tell which there are."""

_INSTANCES = "/v1/ns/instance/list"
_SERVICES = "/v1/ns/service/list"
_LOGIN = "/v1/auth/login"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Instance:
    """One address under which a service is registered. `healthy`: callers are led to it."""

    ip: str
    port: int
    healthy: bool
    enabled: bool = True

    @property
    def serves(self) -> bool:
        """Whether callers are led to it."""
        return self.healthy and self.enabled

    @property
    def state(self) -> str:
        """In one word, as the console says it."""
        return "healthy" if self.serves else "unhealthy" if self.enabled else "disabled"

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{self.port} ({self.state})"


def server_url(text: str) -> str:
    """The URL below which a server's API is: `host:port` and URLs with and without a context path are taken.

    Raises:
        ValueError: it is no address of one server; the message says why.
    """
    if "," in text:
        raise ValueError(f"'{text}': name one server, each of a cluster knows all")
    scheme = _SCHEME.match(text)
    url = urlsplit(text if scheme else f"http://{text}")
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme not in ("http", "https") or not host or url.query or url.fragment or " " in text:
        raise ValueError(f"'{text}' is no address of a server: write HOST:PORT, or http://HOST:PORT/nacos")
    if url.username is not None:
        raise ValueError("no login in an address: declare a secret and name it in `secret:`")
    name = f"[{host}]" if ":" in host else host
    address = f"{name}:{port}" if port else name if scheme else f"{name}:{PORT}"
    return f"{url.scheme}://{address}{url.path.rstrip('/') or CONTEXT}"


def read_instances(body: bytes) -> list[Instance]:
    """The instances in an answer of `/v1/ns/instance/list`; none for a service that nobody knows.

    While fewer of a service are healthy than its protection threshold says, a server calls all of them healthy, so
    then none is believed.

    Raises:
        ValueError: it is no such answer.
    """
    found = json.loads(body)
    hosts = found.get("hosts") if isinstance(found, dict) else None
    if not isinstance(hosts, list) or not all(isinstance(host, dict) for host in hosts):
        raise ValueError("it has no list `hosts`")
    protected = found.get("reachProtectionThreshold") is True or found.get("reachProtectThreshold") is True
    return [_instance(host, protected=protected) for host in hosts]


def _instance(host: Mapping[str, Any], *, protected: bool) -> Instance:
    healthy = host.get("healthy", host.get("valid")) is True and not protected
    return Instance(str(host.get("ip", "")), int(host.get("port") or 0), healthy, host.get("enabled") is not False)


def read_services(body: bytes) -> list[str]:
    """The names in an answer of `/v1/ns/service/list`.

    Raises:
        ValueError: it is no such answer.
    """
    found = json.loads(body)
    names = found.get("doms") if isinstance(found, dict) else None
    if isinstance(names, list):
        return [str(name) for name in names]
    raise ValueError("it has no list `doms`")


@dataclass(slots=True)
class Nacos:
    """One namespace and group of one server, asked with one login or none."""

    url: str
    namespace: str = ""
    group: str = "DEFAULT_GROUP"
    login: Login | None = None
    secret: str = ""
    """What messages call the login."""
    _token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"Nacos {self.url} (namespace {self.namespace or 'public'}, group {self.group})"

    async def instances(self, services: Sequence[str]) -> dict[str, list[Instance]]:
        """Under which addresses each service is registered, healthy or not.

        Raises:
            StageErrored: the server does not answer, or says that it cannot now.
            StageFailed: (config) it refuses the login, or is no Nacos.
        """
        async with self._session() as session:
            found = {}
            for service in services:
                query = {"serviceName": service, "healthyOnly": "false"}
                found[service] = self._read(read_instances, await self._get(session, _INSTANCES, query))
            return found

    async def services(self) -> list[str]:
        """The names of services that there are, the first 500. Raises what `instances` does."""
        async with self._session() as session:
            query = {"pageNo": "1", "pageSize": str(SERVICES)}
            return self._read(read_services, await self._get(session, _SERVICES, query))

    # -- below -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["ClientSession"]:
        aiohttp = await anyio.to_thread.run_sync(_import)
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT, connect=CONNECT_LIMIT)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            try:
                yield session
            except aiohttp.ClientSSLError as error:
                raise self._wrong(f"its certificate is not trusted: {error}") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or f"nothing heard for {ANSWER_LIMIT:g} s"
                raise StageErrored(f"Nacos {self.url} does not answer: {reason}") from error

    async def _get(self, session: "ClientSession", path: str, query: Mapping[str, str]) -> bytes:
        """An answer. A token that is not taken any more is renewed once."""
        known = bool(self._token)
        if self.login and not known:
            await self._log_in(session)
        scope = {"namespaceId": self.namespace or "public", "groupName": self.group}
        status, body = await self._ask(session, "GET", path, {**query, **scope, **self._access})
        if status in (401, 403) and known:
            await self._log_in(session)
            status, body = await self._ask(session, "GET", path, {**query, **scope, **self._access})
        if status in (401, 403):
            raise self._denied(status, body)
        return self._good(status, body, path)

    @property
    def _access(self) -> dict[str, str]:
        return {"accessToken": self._token} if self._token else {}

    async def _log_in(self, session: "ClientSession") -> None:
        if self.login is None:
            return
        form = {"username": self.login.username, "password": self.login.password}
        self._token = ""
        status, body = await self._ask(session, "POST", _LOGIN, {}, form)
        if status in (401, 403):
            named = f" of the secret '{self.secret}'" if self.secret else ""
            message = f"Nacos {self.url} refused the login '{self.login.username}'{named} ({_said(status, body)})"
            raise StageFailed(message, kind=CauseKind.CONFIG)
        self._token = self._read(_read_token, self._good(status, body, _LOGIN))

    async def _ask(
        self,
        session: "ClientSession",
        method: str,
        path: str,
        query: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body; redirects are not followed, for who knows who would get the login."""
        url = self.url + path
        async with session.request(method, url, params=query, data=form, allow_redirects=False) as answer:
            body = await answer.content.read(LARGEST)
            while len(body) < LARGEST and (more := await answer.content.read(LARGEST - len(body))):
                body += more
            return answer.status, body

    def _good(self, status: int, body: bytes, path: str) -> bytes:
        if status == 429 or status >= 500:
            raise StageErrored(f"Nacos {self.url} cannot answer now ({_said(status, body)})")
        if status != 200:
            raise self._wrong(f"{_said(status, body)} for {path}")
        return body

    def _read(self, read: Callable[[bytes], T], body: bytes) -> T:
        try:
            return read(body)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._wrong(str(error)) from None

    def _wrong(self, why: str) -> StageFailed:
        hint = "see that the address and the context path (`http://HOST:PORT/nacos`) are those of a Nacos server"
        return StageFailed(f"{self.url} does not answer as Nacos does: {why}", kind=CauseKind.CONFIG, hint=hint)

    def _denied(self, status: int, body: bytes) -> StageFailed:
        said = _said(status, body)
        if self.login is None:
            message = f"Nacos {self.url} wants a login ({said})"
            hint = "declare one and name it: `registered_in: {nacos: {secret: NAME}}`"
            return StageFailed(message, kind=CauseKind.CONFIG, hint=hint)
        named = f" of the secret '{self.secret}'" if self.secret else ""
        message = f"the login '{self.login.username}'{named} may not read the services of {self} ({said})"
        return StageFailed(message, kind=CauseKind.CONFIG)


def _import() -> Any:
    import aiohttp  # the first import takes 200 ms, here it is in a thread

    return aiohttp


def _read_token(body: bytes) -> str:
    token = json.loads(body).get("accessToken")
    if not isinstance(token, str) or not token:
        raise ValueError("its login gives no `accessToken`")
    return token


def _said(status: int, body: bytes) -> str:
    """The status with the reason that a server gives: in JSON, or as text."""
    try:
        found = json.loads(body)
    except ValueError:
        found = body[:400].decode(errors="replace")
    text = found.get("message") or found.get("data") if isinstance(found, dict) else found
    words = " ".join(str(text or "").split())
    short = words if len(words) <= 160 else f"{words[:159]}…"
    return f"{status}: {short}" if short and not short.startswith("<") else str(status)
