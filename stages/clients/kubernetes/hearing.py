"""What the cluster tells of objects in events, from the moment when somebody begins to listen.

A list of events is read from the store and costs the API server more the more there are, so there is one watch a
namespace, whoever listens, and none of its lists: what is decided by an event that got lost is decided when it is told
again. Only what is told too rarely for that is asked for, once.
"""

from collections import ChainMap
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.following import Followed
from stages.clients.kubernetes.objects import Object, dig
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Hearing", "told_at"]

_PERIOD = 60.0
_AFTER_ERROR = 2.0
_MOST = 30
"""Events that are kept of one object."""


@dataclass(slots=True)
class _Heard(Followed):
    """What was told in one namespace."""

    listeners: int = 0
    events: dict[str, list[Object]] = field(default_factory=dict)

    @property
    def period(self) -> float:
        """Seconds of the next watch."""
        return _PERIOD

    async def begin(self, cluster: Cluster, what: Collection) -> None:
        """From now on."""
        self.version = await cluster.version(what)

    def ended(self, *, lived: bool) -> None:
        """The next watch goes on where it ended."""

    def tell_refused(self) -> None:
        """Nobody waits for an event."""

    def take(self, event: Object) -> None:
        """Note an event."""
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
    _recalled: dict[str, list[Object]] = field(default_factory=dict)

    @property
    def events(self) -> Mapping[str, Sequence[Object]]:
        """Everything that was heard, by uid; of what nothing was heard what was recalled."""
        return ChainMap(*(heard.events for heard in self._heard), self._recalled)

    async def listen(self, namespace: str) -> None:
        """Listen until cancelled, or until it is sure that we may not."""
        key = (self.cluster.server, self.cluster.account, namespace)
        heard = _HEARD.setdefault(key, _Heard())
        self._heard.append(heard)
        heard.listeners += 1
        try:
            await heard.follow(self.cluster, Collection("v1", "Event", namespace))
        finally:
            heard.listeners -= 1
            if not heard.listeners:
                _HEARD.pop(key, None)

    async def recall(self, kind: str, namespace: str, reasons: Container[str], young: Container[str] = ()) -> None:
        """Ask once for the last event of each object of a kind; keep those of some reasons, and all of young objects.

        Of an object that has been in one state for long a controller tells every five minutes only (the spam filter of
        k8s.io/client-go/tools/record), so an old trouble may be over in silence. What is told of a new object may be
        told before we listen, and its trouble is not over. Without the right to list events nothing is recalled.

        Args:
            kind: of the objects.
            namespace: where they are.
            reasons: those that never grow old.
            young: the uids of objects that were made a moment ago.
        """
        what = Collection("v1", "Event", namespace, fields=f"involvedObject.kind={kind}")
        while True:
            try:
                found, _ = await self.cluster.items(what)
            except ApiError:
                return
            except (StageErrored, StageFailed):
                await anyio.sleep(_AFTER_ERROR)
            else:
                break
        last = {str(dig(event, "involvedObject", "uid")): event for event in sorted(found, key=told_at)}
        self._recalled |= {
            uid: [event] for uid, event in last.items() if uid in young or event.get("reason") in reasons
        }


def told_at(event: Object) -> str:
    """When an event was last told, by the clock of who told it; such times sort as text."""
    series = dig(event, "series", "lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")
