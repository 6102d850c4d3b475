"""A local copy of a few collections, kept true by lists and watches; all waits of a process share one copy of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.following import Followed
from stages.clients.kubernetes.objects import Object
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Mirror"]

_FIRST_PERIOD = 10.0
_LONGEST_PERIOD = 300.0
"""Seconds of a watch. A list follows each, so what got lost is made good after as long again as was waited already."""
_SETTLE = 0.1
"""Changes come in swarms; one look at all of them is enough."""
_RENEWED_WITHIN = 5.0


@dataclass(slots=True)
class _Copy(Followed):
    """All objects of one kind in one namespace, and whoever looks at some of them."""

    readers: list["Mirror"] = field(default_factory=list)
    objects: dict[str, Object] | None = None
    """By uid; None before the first list."""
    seconds: float = _FIRST_PERIOD

    @property
    def period(self) -> float:
        """Seconds of the next watch."""
        return self.seconds

    async def begin(self, cluster: Cluster, what: Collection) -> None:
        """List."""
        self.keep(*await cluster.items(what))

    def ended(self, *, lived: bool) -> None:
        """A list follows each watch, and repairs what it may have missed."""
        self.begun = False
        self.seconds = min(_LONGEST_PERIOD, self.seconds * 2) if lived else self.seconds

    def tell_refused(self) -> None:
        """It concerns all."""
        self.tell(None)

    def keep(self, items: Iterable[Object], version: str) -> None:
        """Take a list for what there is."""
        before, self.objects = self.objects, {item["metadata"]["uid"]: _slim(item) for item in items}
        self.version, self.silent, self.answered = version, None, anyio.current_time()
        if before is None:
            self.tell(None)
        else:
            for uid in before.keys() | self.objects.keys():
                old, new = before.get(uid), self.objects.get(uid)
                if old is None or new is None or old["metadata"] != new["metadata"]:
                    self.tell(new or old)

    def take(self, event: Object) -> None:
        """Take in what has changed."""
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
        for mirror in self.readers:
            if thing is None or mirror.concerns(thing):
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
    concerns: Callable[[Object], bool] = lambda _: True
    """Whether a change of an object is a reason to look again."""
    changed: anyio.Event = field(default_factory=anyio.Event)
    _copies: dict[Collection, _Copy] = field(default_factory=dict)
    _unheard: dict[Collection, tuple[float, str]] = field(default_factory=dict)
    """What could not be renewed, as the cluster does not answer."""

    def objects(self, what: Collection, since: str = "") -> list[Object] | None:
        """What is in a collection; None before that is known.

        `since`: a resource version that it has to be as new as; others may have begun to look before it was made.
        """
        copy = self._copies.get(what)
        if copy is None or copy.objects is None or _older(copy.version, since):
            return None
        return list(copy.objects.values())

    @property
    def refused(self) -> dict[Collection, ApiError]:
        """The collections that we may not look at."""
        return {what: copy.refused for what, copy in self._copies.items() if copy.refused}

    @property
    def silent(self) -> dict[Collection, tuple[float, str]]:
        """The collections whose cluster does not answer: since when, and why."""
        return self._unheard | {what: copy.silent for what, copy in self._copies.items() if copy.silent}

    async def wait(self, seconds: float) -> None:
        """Return a moment after something has changed, at the latest after so many seconds."""
        with anyio.move_on_after(seconds):
            await self.changed.wait()
            await anyio.sleep(_SETTLE)
        self.changed = anyio.Event()

    async def follow(self, what: Collection) -> None:
        """Keep one collection true until cancelled, or until it is sure that we may not look at it."""
        key = (self.cluster.server, self.cluster.account, what)
        copy = self._copies[what] = _COPIES.setdefault(key, _Copy())
        copy.readers.append(self)
        self.changed.set()
        try:
            await copy.follow(self.cluster, what)
        finally:
            copy.readers.remove(self)
            if not copy.readers:
                _COPIES.pop(key, None)

    def heard(self, what: Collection) -> float:
        """When anything was told of a collection last, by the loop's clock."""
        copy = self._copies.get(what)
        return copy.answered if copy else float("-inf")

    async def renew(self, what: Collection) -> bool:
        """Look once more at what the cluster has now, however the watch is; whether the cluster answers.

        A refusal is an answer, too: what we may not look at stays as it is. A cluster that does not answer at all is
        silent since it last said something; one that only takes its time with a long list is not.
        """
        copy = self._copies.get(what)
        if copy is None:
            return True
        self._unheard.pop(what, None)
        try:
            with anyio.fail_after(_RENEWED_WITHIN):
                copy.keep(*await self.cluster.items(what))
        except ApiError as error:
            return error.status in (401, 403)
        except (StageErrored, StageFailed, TimeoutError) as error:
            if not await self._answers(what):
                self._unheard[what] = (copy.answered, str(error) or f"no answer within {_RENEWED_WITHIN:g} s")
                return False
        return True

    async def _answers(self, what: Collection) -> bool:
        try:
            with anyio.fail_after(_RENEWED_WITHIN):
                await self.cluster.version(what)
        except ApiError:
            return True
        except (StageErrored, StageFailed, TimeoutError):
            return False
        return True
