"""Blocking functions of SDKs in threads of their own, with a way to stop them."""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio

__all__ = ["LEAVE_AFTER", "call"]

P = ParamSpec("P")
T = TypeVar("T")

LEAVE_AFTER = 2.0
"""Seconds that a cancelled function gets to return before it is left behind."""


async def call(limiter: anyio.CapacityLimiter, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread.

    On cancel the function's attribute `stop`, if it has one, is called to make it return. `limiter`
    bounds how many threads there are, apart from those of other users.
    """
    started, ended = threading.Event(), threading.Event()
    bound = functools.partial(function, *args, **kwargs)

    def body() -> T:
        started.set()
        try:
            return bound()
        finally:
            ended.set()

    try:
        return await anyio.to_thread.run_sync(body, abandon_on_cancel=True, limiter=limiter)
    except anyio.get_cancelled_exc_class():
        if started.is_set():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_stop, function, ended)
        raise


def _stop(function: object, ended: threading.Event) -> None:
    stop = getattr(function, "stop", None)
    if stop is not None and not ended.is_set():
        stop()
        ended.wait(LEAVE_AFTER)
