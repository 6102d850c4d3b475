"""Requests to one cluster through the official client, each bounded in time and with errors that say who failed.

Only the client's transport, credentials and TLS are used; its typed models (0.8 s to import, 7 times the
work a watch event) are never loaded.
"""

import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from pipeline.stage import CauseKind, StageErrored, StageFailed
from stages.clients.kubernetes.clock import Clock
from stages.clients.kubernetes.objects import Object

__all__ = ["ApiError", "Request", "Transport", "Unreachable", "cut", "transport_errors"]

_CONNECT = 5.0
_PAUSES = (0.3, 1.0)
_RENEWED_EVERY = 10.0
_BUSY = frozenset({429, 502, 503, 504})
# How an API server answers for a group that nobody has defined; there is no `Status` object then.
_NO_SUCH_PATH = "HTTP 404 404 page not found"


class Unreachable(StageErrored):
    """The cluster did not answer: refused, no route, no such name, no answer in time, cut."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"the cluster {server} cannot be reached: {reason}")


class ApiError(Exception):
    """The cluster answered no. `status` is HTTP's, `reason` and `causes` are of the `Status` object."""

    def __init__(self, status: int, answer: Mapping[str, Any], action: str) -> None:
        self.status = status
        self.reason = str(answer.get("reason") or "")
        self.message = str(answer.get("message") or f"HTTP {status}")
        self.causes: list[dict[str, str]] = (answer.get("details") or {}).get("causes") or []
        self.action = action
        super().__init__(f"{action}: {self.message}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `action` is what a refusal says was not allowed, `seconds` limits all of it."""

    method: str
    path: str
    action: str
    query: tuple[tuple[str, str], ...] = ()
    body: Object | None = None
    content: str = "application/json"
    accept: str = "application/json, */*"
    seconds: float = 10.0
    stream: bool = False


@dataclass(slots=True, eq=False)
class Transport:
    """A client for one server; `credentials` is what messages call its kubeconfig."""

    client: Any
    """Replaced when its credentials are not accepted any more."""
    server: str
    credentials: str
    account: str = ""
    """Who asks: the same for all clients of one kubeconfig and context."""
    context: str = ""
    """The kubeconfig's context that was chosen, also if nobody named one; empty: the pod that we run in."""
    clock: Clock = field(default_factory=Clock)
    """What its answers say the time is."""
    again: Callable[[], Awaitable[Any]] | None = None
    """Makes a client with the credentials as they are now: tokens of plug-ins and of files live for minutes."""
    _renewing: anyio.Lock = field(default_factory=anyio.Lock)
    _renewed: float = -math.inf
    _former: list[Any] = field(default_factory=list)
    """Clients whose watches go on."""

    async def close(self) -> None:
        """End all lines."""
        for client in (*self._former, self.client):
            await client.close()

    async def send(self, request: Request) -> Any:
        """Send, again while the cluster is busy or cuts the line (twice); the answer is read unless `stream`.

        When the credentials are not accepted they are looked up anew, at most every ten seconds.

        Raises:
            Unreachable: no answer.
            ApiError: the cluster says no.
            StageFailed: (config) what answers is no cluster, or its certificate is not the expected one.
        """
        asked = self.client
        try:
            return await self._sent(request)
        except ApiError as error:
            if error.status != 401 or not await self._renew(asked):
                raise
        return await self._sent(request)

    async def _renew(self, refused: Any) -> bool:
        """Take the place of a client whose credentials were refused; False if there is none to take."""
        async with self._renewing:
            if self.client is not refused:
                return True
            if self.again is None or time.monotonic() - self._renewed < _RENEWED_EVERY:
                return False
            self._renewed = time.monotonic()
            try:
                client = await self.again()
            except StageFailed:  # the refusal says more
                return False
            self._former.append(self.client)
            self.client = client
            return True

    async def _sent(self, request: Request) -> Any:
        for pause in _PAUSES:
            try:
                return await self._once(request)
            except _RetryError:
                await anyio.sleep(pause)
        try:
            return await self._once(request)
        except _RetryError as last:
            raise last.error from last

    async def _once(self, request: Request) -> Any:
        try:
            answer = await self._call(request)
        except transport_errors() as error:
            broken = self.broken(error)
            if isinstance(broken, Unreachable) and not isinstance(error, TimeoutError):
                raise _RetryError(broken) from error
            raise broken from error
        if answer.status < 400:
            return answer
        refused = self._refused(answer.status, answer.data, request.action)
        raise _RetryError(refused) if answer.status in _BUSY else refused

    async def _call(self, request: Request) -> Any:
        import aiohttp

        client = self.client
        method, url, headers, body, _ = await client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params={"Content-Type": request.content, "Accept": request.accept},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        limit = aiohttp.ClientTimeout(total=request.seconds, sock_connect=_CONNECT)
        asked = time.monotonic()
        answer = await client.call_api(method, url, headers, body, _request_timeout=limit)
        self.clock.hear(answer.headers.get("Date"), asked)
        if answer.status >= 400 or not request.stream:
            # Read here, where a cut line is still an error of this request.
            await answer.read()
        return answer

    def broken(self, error: BaseException) -> StageErrored | StageFailed:
        """What an error of the line means."""
        import aiohttp

        if isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL):
            reason = f"no trusted connection to {self.server} by {self.credentials}: {error}"
            return StageFailed(reason, kind=CauseKind.CONFIG)
        if isinstance(error, TimeoutError):
            return Unreachable(self.server, "no answer in time")
        return Unreachable(self.server, str(error) or type(error).__name__)

    def _refused(self, status: int, raw: bytes, action: str) -> Exception:
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and answer.get("kind") == "Status":
            return ApiError(status, answer, action)
        text = f"HTTP {status} {' '.join(raw[:200].decode(errors='replace').split())}"
        if text == _NO_SUCH_PATH:
            return ApiError(status, {"message": text}, action)
        if status >= 500:
            return Unreachable(self.server, text)
        return StageFailed(f"{self.server} answers, but not as Kubernetes does: {text}", kind=CauseKind.CONFIG)


class _RetryError(Exception):
    """An error that may be gone in a moment."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def cut(response: Any) -> None:
    """End a stream that goes on. A polite end of TLS waits for the other side, and may outlive the client."""
    if response.connection and response.connection.transport:
        response.connection.transport.abort()
    response.close()


def transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises when the line fails, instead of an answer."""
    import aiohttp

    return (aiohttp.ClientError, TimeoutError, OSError)
