"""A few things at once, where the first failure is the one that is told."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

__all__ = ["together"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def together(
    function: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT], limit: int = 6
) -> list[ResultT]:
    """Call an async function for every item, `limit` at once; the results in the items' order.

    After a failure nothing new is begun, what has begun ends, and the failure is raised as it is (not in a group).
    """
    results: dict[int, ResultT] = {}
    failures: list[Exception] = []
    limiter = anyio.CapacityLimiter(limit)

    async def one(at: int, item: ItemT) -> None:
        async with limiter:
            if failures:
                return
            try:
                results[at] = await function(item)
            except Exception as error:  # noqa: BLE001  # raised below, once all have ended
                failures.append(error)

    async with anyio.create_task_group() as tasks:
        for at, item in enumerate(items):
            tasks.start_soon(one, at, item)
    if failures:
        raise failures[0]
    return [results[at] for at in sorted(results)]
