"""Writes that are held to what was seen, so that whoever wakes up behind somebody else's writes changes nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref

__all__ = ["Guard"]

_NEVER = "1"
"""A version that no object has: an apply with it makes an object, and conflicts with any that is there."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds writes to what was seen while nobody else could write: uid and version of each object, None: not there.

    Server-side apply refuses a body whose `resourceVersion` is not the object's, and one with the `uid` of an object
    that is gone; so a process that stood still and wakes up behind somebody else's writes changes nothing.
    """

    ensure: Callable[[], Awaitable[None]]
    """Returns when nobody else may write, else raises."""
    seen: dict[Ref, tuple[str, str] | None] = field(default_factory=dict)

    def is_new(self, ref: Ref) -> bool:
        """Whether it was not there."""
        return self.seen.get(ref) is None

    def take_in(self, ref: Ref, thing: Object) -> None:
        """Note an object as a dry run returned it: with its version if it is there, else without one."""
        version = thing["metadata"].get("resourceVersion")
        self.seen[ref] = (thing["metadata"]["uid"], version) if version else None

    async def pinned(self, cluster: Cluster, manifest: Manifest) -> Manifest:
        """The manifest for the version that was seen, or that is seen now if nobody has looked yet."""
        if manifest.ref not in self.seen:
            await self.look_again(cluster, manifest.ref)
        found = self.seen[manifest.ref]
        pins = {"uid": found[0], "resourceVersion": found[1]} if found else {"resourceVersion": _NEVER}
        metadata = {**manifest.object["metadata"], **pins}
        return replace(manifest, object={**manifest.object, "metadata": metadata})

    async def look_again(self, cluster: Cluster, ref: Ref) -> None:
        """See what is there now; the look counts because the hold is asked for after it."""
        found = await cluster.get(ref)
        await self.ensure()
        self.seen[ref] = (found["metadata"]["uid"], found["metadata"]["resourceVersion"]) if found else None
