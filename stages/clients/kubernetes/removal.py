"""Removing what a deploy has applied: only where it still is ours, whoever asks for it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.inventory import Entry
from stages.clients.kubernetes.objects import RUN, Object, dig, identity
from stages.clients.kubernetes.ownership import taken_by
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Ensure", "find", "remove", "whose"]

Ensure: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when nobody else may write to the target."""
_TRIES = 8


async def find(cluster: Cluster, entry: Entry) -> Object | None:
    """The object as it is now, by whichever version of its group the cluster serves; None: it is not there."""
    ref = await cluster.served(entry.ref)
    return await cluster.get(ref) if ref else None


def whose(entry: Entry, present: Object) -> str:
    """Why an object is not ours any more, in a few words; empty: it is as a deploy of ours left it."""
    marked = dig(present, "metadata", "annotations", RUN) in entry.runs
    if not marked or entry.uid not in ("", present["metadata"]["uid"]):
        return "somebody else has written it since"
    by = taken_by(present)
    return f"somebody else has written it since ({by})" if by else ""


async def remove(cluster: Cluster, entry: Entry, ensure: Ensure | None) -> str:
    """Delete an object; returns why it stays, empty when it is gone.

    The deletion holds for the very version that was looked at, so no change of others goes with it.

    Raises:
        ApiError: the cluster refuses, or the object changes all the time.
    """
    tries = _TRIES
    while (present := await find(cluster, entry)) is not None:
        if why := whose(entry, present):
            return why
        if ensure:
            await ensure()
        metadata, tries = present["metadata"], tries - 1
        try:
            await cluster.delete(identity(present), metadata["uid"], metadata["resourceVersion"])
        except ApiError as error:
            if error.status != 409 or not tries:
                raise
        else:
            break
    return ""
