"""What the cluster tells of objects in events, from the moment when somebody begins to listen.

A list of events is read from the store and costs the API server more the more there are, so there is one watch a
namespace, whoever listens, and none of its lists: what is decided by an event that got lost is decided when it is told
again.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object, dig
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Hearing"]

_PERIOD = 60
_AFTER_ERROR = 2.0
_SHORTEST = 1.0
_MOST = 30
"""Events that are kept of one object."""


@dataclass(slots=True)
class _Heard:
    """What was told in one namespace. One listener at a time, the one whose turn it is, listens for all."""

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    listeners: int = 0
    version: str = ""
    """Where a watch goes on; empty: from now."""
    refused: bool = False
    events: dict[str, list[Object]] = field(default_factory=dict)

    def take(self, event: Object) -> None:
        thing = event["object"]
        self.version = thing["metadata"]["resourceVersion"]
        if event["type"] not in ("ADDED", "MODIFIED"):  # one that was deleted has only grown old
            return
        thing["metadata"].pop("managedFields", None)
        about = self.events.setdefault(str(dig(thing, "involvedObject", "uid")), [])
        about[:] = [each for each in about if each["metadata"]["uid"] != thing["metadata"]["uid"]][1 - _MOST :]
        about.append(thing)


_HEARD: dict[tuple[str, str, str], _Heard] = {}
"""By server, account and namespace; here as long as somebody listens."""


@dataclass(slots=True)
class Hearing:
    """Events by the uid of the object they are about, the newest last; run `listen` for each namespace."""

    cluster: Cluster
    _heard: list[_Heard] = field(default_factory=list)

    @property
    def events(self) -> Mapping[str, Sequence[Object]]:
        """Everything that was heard, by uid."""
        return ChainMap(*(heard.events for heard in self._heard))

    async def listen(self, namespace: str) -> None:
        """Listen until cancelled, or until we are told that we may not."""
        key = (self.cluster.server, self.cluster.account, namespace)
        heard = _HEARD.setdefault(key, _Heard())
        self._heard.append(heard)
        heard.listeners += 1
        try:
            async with heard.turn:
                while not heard.refused:
                    await self._turn(heard, Collection("v1", "Event", namespace))
        finally:
            heard.listeners -= 1
            if not heard.listeners:
                _HEARD.pop(key, None)

    async def _turn(self, heard: _Heard, what: Collection) -> None:
        try:
            await self._watch(heard, what)
        except ApiError as error:
            heard.version, heard.refused = "", error.status in (401, 403)
            if error.status != 410 and not heard.refused:
                await anyio.sleep(_AFTER_ERROR)
        except (StageErrored, StageFailed):
            heard.version = ""
            await anyio.sleep(_AFTER_ERROR)

    async def _watch(self, heard: _Heard, what: Collection) -> None:
        """One watch, from where the one before ended."""
        heard.version = heard.version or await self.cluster.version(what)
        began = anyio.current_time()
        async with aclosing(self.cluster.watch(what, heard.version, _PERIOD)) as told:
            async for event in told:
                heard.take(event)
        if anyio.current_time() - began < _SHORTEST:  # something in between ends every watch at once
            await anyio.sleep(_SHORTEST)
