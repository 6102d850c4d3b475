"""What the cluster tells of objects in events, from the moment when somebody begins to listen.

A list of events is read from the store and costs the API server more the more there are, so there is one watch a
namespace, whoever listens, and none of its lists: what is decided by an event that got lost is decided when it is told
again.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.following import Followed
from stages.clients.kubernetes.objects import Object, dig

__all__ = ["Hearing"]

_PERIOD = 60.0
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

    @property
    def events(self) -> Mapping[str, Sequence[Object]]:
        """Everything that was heard, by uid."""
        return ChainMap(*(heard.events for heard in self._heard))

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
