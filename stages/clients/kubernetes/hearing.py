"""What the cluster tells of objects in events, from the moment when we begin to listen.

A list of events is read from the store and costs the API server more the more there are, so there is one watch a
namespace and none of its lists: what is decided by an event that got lost is decided when it is told again.
"""

from collections import defaultdict
from collections.abc import Mapping
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
class Hearing:
    """Events by the uid of the object they are about, the newest last; run `listen` for each namespace."""

    cluster: Cluster
    _heard: defaultdict[str, dict[str, Object]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def events(self) -> Mapping[str, list[Object]]:
        """Everything that was heard, by uid."""
        return {uid: list(found.values()) for uid, found in self._heard.items()}

    async def listen(self, namespace: str) -> None:
        """Listen until cancelled, or until we are told that we may not."""
        what = Collection("v1", "Event", namespace)
        while True:
            try:
                await self._listen(what, await self.cluster.version(what))
            except ApiError as error:
                if error.status in (401, 403):
                    return
                if error.status != 410:
                    await anyio.sleep(_AFTER_ERROR)
            except (StageErrored, StageFailed):
                await anyio.sleep(_AFTER_ERROR)

    async def _listen(self, what: Collection, version: str) -> None:
        """One watch after the other, each from where the one before ended."""
        while True:
            began = anyio.current_time()
            async with aclosing(self.cluster.watch(what, version, _PERIOD)) as told:
                async for event in told:
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "DELETED":  # it has only grown old
                        self._take(event["object"])
            if anyio.current_time() - began < _SHORTEST:  # something in between ends every watch at once
                await anyio.sleep(_SHORTEST)

    def _take(self, event: Object) -> None:
        about = self._heard[str(dig(event, "involvedObject", "uid"))]
        about.pop(event["metadata"]["uid"], None)
        about[event["metadata"]["uid"]] = event
        if len(about) > _MOST:
            about.pop(next(iter(about)))
