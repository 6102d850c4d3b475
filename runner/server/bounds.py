"""No request but a delivery may have a body of more than a mebibyte, whoever sends it."""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.server.problems import refusal

__all__ = ["Bounded", "drain"]

LARGEST = 1 << 20
DRAINED = 64 << 20
"""Bytes of a refused body that are still taken, so that its sender hears why."""
DRAINED_FOR = 5.0
_REFUSAL = refusal(413, "the body is larger than 1 MiB")


class _TooLarge(Exception):
    """Somebody sends more than there may be."""


class Bounded:
    """Ends a request whose body grows too large before anything reads it as a whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting."""
        if scope["type"] != "http" or scope["path"].startswith("/hooks/"):
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdecimal() and int(told) > LARGEST:
            await _refuse(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST:
                raise _TooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLarge:
            await _refuse(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await drain(receive)
    await _REFUSAL(scope, receive, send)


async def drain(receive: Receive) -> None:
    """Take what is still being sent, and keep none of it.

    A connection that is closed with bytes unread is reset, and the sender never sees the answer (RFC 9112, 9.6).
    """
    taken = 0
    with anyio.move_on_after(DRAINED_FOR):
        while taken < DRAINED:
            message = await receive()
            if not message.get("more_body"):
                return
            taken += len(message["body"])
