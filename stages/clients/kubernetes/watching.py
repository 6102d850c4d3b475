"""A local copy of a few collections, kept true by lists and watches."""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Mirror"]

_PERIOD = 10
"""Seconds of one watch. A list follows each, so an event that got lost is made good in 10 s (15 on a dead line)."""
_AFTER_ERROR = 1.0
_SETTLE = 0.1
"""Changes come in swarms; one look at all of them is enough."""


@dataclass(slots=True)
class Mirror:
    """Copies of collections; run `follow` for each, in tasks that are cancelled when they are not needed any more."""

    cluster: Cluster
    changed: anyio.Event = field(default_factory=anyio.Event)
    refused: dict[Collection, ApiError] = field(default_factory=dict)
    silent: dict[Collection, tuple[float, str]] = field(default_factory=dict)
    _copies: dict[Collection, dict[str, Object]] = field(default_factory=dict)

    def objects(self, what: Collection) -> list[Object] | None:
        """What is in a collection; None before the first list of it."""
        copy = self._copies.get(what)
        return None if copy is None else list(copy.values())

    async def wait(self, seconds: float) -> None:
        """Return a moment after something has changed, at the latest after so many seconds."""
        with anyio.move_on_after(seconds):
            await self.changed.wait()
            await anyio.sleep(_SETTLE)
        self.changed = anyio.Event()

    async def follow(self, what: Collection) -> None:
        """Keep one collection true until cancelled, or until we are told that we may not look at it.

        List, watch from there, and again: the rule for 410 (https://kubernetes.io/docs/reference/using-api/api-concepts/),
        and the repair of whatever else a watch may miss.
        """
        while True:
            try:
                await self._turn(what)
            except ApiError as error:
                if error.status in (401, 403):
                    self.refused[what] = error
                    self.changed.set()
                    return
                if error.status != 410:
                    await anyio.sleep(_AFTER_ERROR)
            except (StageErrored, StageFailed) as error:
                # Whatever answers now is not the cluster that took the apply; it may come back.
                self.silent.setdefault(what, (anyio.current_time(), str(error)))
                await anyio.sleep(_AFTER_ERROR)

    async def _turn(self, what: Collection) -> None:
        items, version = await self.cluster.items(what)
        self.silent.pop(what, None)
        self._keep(what, items)
        async with aclosing(self.cluster.watch(what, version, _PERIOD)) as events:
            async for event in events:
                self._take(what, event)

    def _keep(self, what: Collection, items: Iterable[Object]) -> None:
        before, after = self._copies.get(what), {item["metadata"]["uid"]: item for item in items}
        self._copies[what] = after
        if before is None or _versions(before) != _versions(after):
            self.changed.set()

    def _take(self, what: Collection, event: Object) -> None:
        item = event["object"]
        uid = item["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._copies[what].pop(uid, None)
        else:
            self._copies[what][uid] = item
        self.changed.set()


def _versions(copy: dict[str, Object]) -> dict[str, str]:
    return {uid: item["metadata"]["resourceVersion"] for uid, item in copy.items()}
