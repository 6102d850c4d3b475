"""Asking another server of the same database for a client: what is on that one's disk, it alone can tell."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import httpx2
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from runner.server.database import Database
from runner.server.fleet import member
from runner.server.problems import refusal

__all__ = ["Elsewhere", "Peers"]

ANSWER_WITHIN = 10.0
SILENT_WITHIN = 60.0
"""Seconds between two pieces of an answer; a stream of events says something every 15 s."""
ASKED_BY = "x-pipe-asked-by"
_ASKED = ("authorization", "content-type", "accept", "last-event-id")
_ASKED_BY_BROWSERS = ("cookie", "host", "origin", "sec-fetch-site", "x-csrf-token")
"""A session is one of the host that the browser sees."""
_ANSWERED = (
    *("content-type", "content-length", "content-disposition", "cache-control"),
    *("content-security-policy", "x-content-type-options", "retry-after"),
)


class Elsewhere(Exception):
    """What is asked for lies on the disk of another server."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.server = server


class _Silent(Exception):
    """The other server cannot be asked; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The other servers, as the one with the id `mine` asks them."""

    database: Database
    mine: str

    async def pass_on(self, request: Request, elsewhere: Exception) -> Response:
        """The answer of the server that has it, as it comes; 503 with that one's name while it cannot be asked."""
        assert isinstance(elsewhere, Elsewhere)  # noqa: S101 - it is registered for no other
        stack = AsyncExitStack()
        try:
            answer = await self._asked(stack, request, elsewhere.server)
        except _Silent as silent:
            await stack.aclose()
            return refusal(503, str(silent), {"Retry-After": "5"})
        headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        return StreamingResponse(_pieces(answer, stack), answer.status_code, headers)

    async def _asked(self, stack: AsyncExitStack, request: Request, server: str) -> httpx2.Response:
        holder = await self.database.read(partial(member, id_=server))
        if holder is None:
            raise _Silent("a server has the run that is not known any more")
        if not holder.alive:
            raise _Silent(f"{holder} has the run, and has not been heard of for {holder.silent:.0f} s")
        if ASKED_BY in request.headers:
            raise _Silent(f"{holder} has the run, and is not the one that was asked: what is its --peer-url?")
        raw, query = request.scope["raw_path"].decode("ascii", "replace"), request.url.query
        path = f"{raw}?{query}" if query else raw
        asked = (*_ASKED, *_ASKED_BY_BROWSERS) if "cookie" in request.headers else _ASKED
        headers = {name: request.headers[name] for name in asked if name in request.headers}
        limits = httpx2.Timeout(ANSWER_WITHIN, read=SILENT_WITHIN)
        try:
            client = await stack.enter_async_context(httpx2.AsyncClient(timeout=limits, trust_env=False))
            headers[ASKED_BY] = self.mine
            url = holder.url.rstrip("/") + path
            question = client.build_request(request.method, url, headers=headers, content=await request.body())
            answer = await client.send(question, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _Silent(f"{holder} has the run, and does not answer: {type(error).__name__}: {error}") from error
        stack.push_async_callback(answer.aclose)
        return answer


async def _pieces(answer: httpx2.Response, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    """The body as it comes; what breaks off in the middle breaks off for the client too."""
    async with stack:
        async for piece in answer.aiter_raw():
            yield piece
