"""A local copy of a few collections, kept true by lists and watches; all waits of a process share one copy of each."""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Mirror"]

_FIRST_PERIOD = 10.0
_LONGEST_PERIOD = 300.0
"""Seconds of a watch. A list follows each, so what got lost is made good after as long again as was waited already."""
_AFTER_ERROR = 1.0
_SETTLE = 0.1
"""Changes come in swarms; one look at all of them is enough."""
_RENEWED_WITHIN = 5.0


@dataclass(slots=True)
class _Copy:
    """All objects of one kind in one namespace, and whoever looks at some of them.

    One reader at a time, the one whose turn it is, keeps it true for all; the next goes on from the same version.
    """

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    readers: list[tuple["Mirror", Collection]] = field(default_factory=list)
    objects: dict[str, Object] | None = None
    """By uid; None before the first list."""
    version: str = ""
    """The newest that it has."""
    listed: bool = False
    """A watch can go on from the version."""
    period: float = _FIRST_PERIOD
    refused: ApiError | None = None
    silent: tuple[float, str] | None = None

    def keep(self, items: Iterable[Object], version: str) -> None:
        before, self.objects = self.objects, {item["metadata"]["uid"]: _slim(item) for item in items}
        self.version, self.listed, self.silent = version, True, None
        if before is None:
            self.tell(None)
        else:
            for uid in before.keys() | self.objects.keys():
                old, new = before.get(uid), self.objects.get(uid)
                if old is None or new is None or old["metadata"] != new["metadata"]:
                    self.tell(new or old)

    def take(self, event: Object) -> None:
        item, objects = event["object"], self.objects
        self.version = item["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK" or objects is None:
            return
        uid = item["metadata"]["uid"]
        if event["type"] == "DELETED":
            objects.pop(uid, None)
        else:
            objects[uid] = _slim(item)
        self.tell(item)

    def tell(self, thing: Object | None) -> None:
        """Let those look again whom a change concerns; without an object it concerns all."""
        for mirror, what in self.readers:
            if thing is None or what.may_hold(thing):
                mirror.changed.set()


def _slim(item: Object) -> Object:
    """Without the list of who wrote which field: half of an object, and nobody here asks for it."""
    item["metadata"].pop("managedFields", None)
    return item


def _older(version: str, other: str) -> bool:
    """Of two resource versions of one collection; what is no number cannot be compared and is taken for new enough."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


_COPIES: dict[tuple[str, str, Collection], _Copy] = {}
"""By server, account and collection; a copy is here as long as somebody follows it."""


@dataclass(slots=True)
class Mirror:
    """One wait's view of collections; run `follow` for each, in tasks that are cancelled when they are not needed."""

    cluster: Cluster
    changed: anyio.Event = field(default_factory=anyio.Event)
    _copies: dict[Collection, _Copy] = field(default_factory=dict)

    def objects(self, what: Collection, since: str = "") -> list[Object] | None:
        """What is in a collection, and maybe more of its kind; None before that is known.

        `since`: a resource version that it has to be as new as; others may have begun to look before it was made.
        """
        copy = self._copies.get(what)
        if copy is None or copy.objects is None or _older(copy.version, since):
            return None
        return [item for item in copy.objects.values() if what.may_hold(item)]

    @property
    def refused(self) -> dict[Collection, ApiError]:
        """The collections that we may not look at."""
        return {what: copy.refused for what, copy in self._copies.items() if copy.refused}

    @property
    def silent(self) -> dict[Collection, tuple[float, str]]:
        """The collections whose cluster does not answer: since when, and why."""
        return {what: copy.silent for what, copy in self._copies.items() if copy.silent}

    async def wait(self, seconds: float) -> None:
        """Return a moment after something has changed, at the latest after so many seconds."""
        with anyio.move_on_after(seconds):
            await self.changed.wait()
            await anyio.sleep(_SETTLE)
        self.changed = anyio.Event()

    async def follow(self, what: Collection) -> None:
        """Keep one collection true until cancelled, or until we are told that we may not look at it."""
        key = (self.cluster.server, self.cluster.account, what.whole)
        copy = self._copies[what] = _COPIES.setdefault(key, _Copy())
        copy.readers.append((self, what))
        self.changed.set()
        try:
            async with copy.turn:
                while copy.refused is None:
                    await self._turn(copy, what.whole)
        finally:
            copy.readers.remove((self, what))
            if not copy.readers:
                _COPIES.pop(key, None)

    async def renew(self, what: Collection) -> None:
        """Look once more at what the cluster has now, however the watch is; a cluster that does not answer is silent.

        Nothing is raised: what cannot be renewed stays as it is.
        """
        copy = self._copies.get(what)
        if copy is None:
            return
        try:
            with anyio.fail_after(_RENEWED_WITHIN):
                copy.keep(*await self.cluster.items(what.whole))
        except ApiError:
            return
        except (StageErrored, StageFailed, TimeoutError) as error:
            copy.silent = copy.silent or (float("-inf"), str(error) or f"no answer within {_RENEWED_WITHIN:g} s")

    async def _turn(self, copy: _Copy, whole: Collection) -> None:
        """List, watch from there, and again: the rule for 410, and the repair of whatever else a watch may miss.

        https://kubernetes.io/docs/reference/using-api/api-concepts/
        """
        try:
            await self._list_and_watch(copy, whole)
        except ApiError as error:
            copy.listed = False
            if error.status in (401, 403):
                copy.refused = error
                copy.tell(None)
            elif error.status != 410:
                await anyio.sleep(_AFTER_ERROR)
        except (StageErrored, StageFailed) as error:
            # Whatever answers now is not the cluster that took the apply; it may come back.
            copy.listed = False
            copy.silent = copy.silent or (anyio.current_time(), str(error))
            await anyio.sleep(_AFTER_ERROR)

    async def _list_and_watch(self, copy: _Copy, whole: Collection) -> None:
        if not copy.listed:
            copy.keep(*await self.cluster.items(whole))
        async with aclosing(self.cluster.watch(whole, copy.version, int(copy.period))) as events:
            async for event in events:
                copy.take(event)
        copy.listed = False
        copy.period = min(_LONGEST_PERIOD, copy.period * 2)
