"""The releases of one target, as Secrets in the cluster: the head first, then the parts, then how it ended.

Whoever dies in between leaves a head without an end and the parts that were begun, which is what happened.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.stage import ReleasePart, StageErrored
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object, Ref, identity
from stages.clients.kubernetes.records import (
    KIND,
    NUMBER,
    TARGET,
    TURN,
    Head,
    Part,
    now,
    read_head,
    read_parts,
    whose,
    write_head,
)
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["KEPT", "Ledger", "last_good", "passed_irreversible", "state_after", "state_now", "unsettled", "way_back"]

KEPT = 20
"""How many releases of a target are kept; of older ones the parts that are still deployed."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Ledger:
    """The records of one target. Every method raises what `Transport.send` does."""

    cluster: Cluster
    namespace: str
    target: str

    @staticmethod
    def of(cluster: Cluster, release: ReleasePart) -> "Ledger":
        """The one that a release stands in."""
        return Ledger(cluster, release.namespace, release.target)

    async def heads(self) -> dict[int, Head]:
        """All releases by number, the oldest first."""
        found = [read_head(secret) for secret in await self._secrets("head")]
        return {head.number: head for head in sorted(found, key=lambda head: head.number)}

    async def parts(self, numbers: Iterable[int]) -> list[Part]:
        """The parts of these releases, in the order in which they were begun."""
        wanted = sorted(set(numbers))
        return read_parts(await self._secrets("part", wanted)) if wanted else []

    async def open(self, head: Head) -> None:
        """Write a head; fine if it is there already."""
        try:
            await self.cluster.create(write_head(head, self.namespace))
        except ApiError as error:
            if error.status != 409:
                raise

    async def change(self, number: int, **changes: Any) -> Head:
        """Change a head by compare-and-swap, so that of two who end it none is lost.

        Raises:
            StageErrored: it is gone, or others change it all the time.
        """
        name = f"pipe-release.{self.target}.{number}"
        for _ in range(_TRIES):
            secret = await self.cluster.get(Ref("v1", "Secret", self.namespace, name))
            if secret is None:
                break
            head = read_head(secret).model_copy(update=changes)
            try:
                await self.cluster.replace(write_head(head, self.namespace, secret["metadata"]["resourceVersion"]))
            except ApiError as error:
                if error.status != 409:
                    raise
            else:
                return head
        raise StageErrored(f"the record of {self.target}@{number} is gone from {self.namespace}, or cannot be changed")

    async def note_turn(self, number: int, turn: int) -> None:
        """Say of a release that it begins to deploy, and when that is among the others."""
        ref = Ref("v1", "Secret", self.namespace, f"pipe-release.{self.target}.{number}")
        await self.cluster.merge(ref, {"metadata": {"labels": {TURN: str(turn)}}})

    async def close(self, number: int, outcome: str, message: str = "", **changes: Any) -> Head:
        """Say how a release ended."""
        return await self.change(number, outcome=outcome, message=message, ended=now(), **changes)

    async def write(self, secrets: Iterable[Object]) -> list[Object]:
        """Write the Secrets of a part, also over those of an earlier attempt."""
        return await together(self._write, secrets)

    async def forget(self, heads: Mapping[int, Head]) -> None:
        """Delete what is older than the newest releases that have ended, but no part that one of those holds."""
        ended = sorted(number for number, head in heads.items() if head.outcome)
        oldest = ended[-KEPT] if len(ended) > KEPT else 0
        gone = [number for number in heads if number < oldest]
        if not gone:
            return
        needed = {each for number, head in heads.items() if number >= oldest for each in head.state.items()}
        pieces = [secret for secret in await self._secrets("part", gone) if whose(secret) not in needed]
        gone_heads = [Ref("v1", "Secret", self.namespace, f"pipe-release.{self.target}.{number}") for number in gone]
        await together(self.cluster.delete, [*map(identity, pieces), *gone_heads])

    async def _write(self, secret: Object) -> Object:
        try:
            return await self.cluster.create(secret)
        except ApiError as error:
            if error.status != 409:
                raise
        return await self.cluster.replace(secret)

    async def _secrets(self, kind: str, numbers: Iterable[int] = ()) -> list[Object]:
        words = [f"{TARGET}={self.target}", f"{KIND}={kind}"]
        if numbers:
            words.append(f"{NUMBER} in ({','.join(map(str, numbers))})")
        found, _ = await self.cluster.items(Collection("v1", "Secret", self.namespace, ",".join(words)))
        return found


# -- what came before ------------------------------------------------------------------------------


def last_good(heads: Mapping[int, Head], before: Head) -> Head | None:
    """The newest complete release that came before another, of those that nobody has gone back from."""
    earlier = [head for head in heads.values() if head.order < before.order]
    good = [head for head in earlier if head.outcome == "complete" and not head.undone_by]
    return max(good, key=lambda head: head.order, default=None)


def state_after(heads: Mapping[int, Head], release: Head, done: Iterable[str]) -> dict[str, int]:
    """What the target holds after a release that deployed these parts."""
    before = {number: head for number, head in heads.items() if head.order < release.order}
    return {**state_now(before), **dict.fromkeys(done, release.number)}


def state_now(heads: Mapping[int, Head]) -> Mapping[str, int]:
    """What the target holds after the last of these releases that has ended: each part, and who deployed it last."""
    ended = [head for head in heads.values() if head.outcome in ("complete", "partial") and head.state]
    last = max(ended, key=lambda head: head.order, default=None)
    return last.state if last else {}


def unsettled(heads: Mapping[int, Head]) -> list[int]:
    """Releases of which something may be in the cluster that no state names.

    What was begun and not done, as nobody has gone back from it, or not all the way.
    """
    return [number for number, head in heads.items() if _is_unsettled(heads, head)]


def _is_unsettled(heads: Mapping[int, Head], head: Head) -> bool:
    if head.undone_by:
        back = heads.get(head.undone_by)
        return back is None or back.outcome != "complete"
    return head.outcome in ("", "partial")


def passed_irreversible(heads: Mapping[int, Head], to: Head, last: int | None = None) -> list[str]:
    """What cannot be undone between now and a release: `migrate in his@12`.

    Of a release that nobody has closed it is not known whether its stages have run: they count. With `last` no release
    of a higher number is looked at: what a newer run has migrated neither that one nor `to` knows.
    """
    # One that deployed nothing has no turn, and may have migrated all the same.
    known = [head for head in heads.values() if last is None or head.number <= last]
    after = [head for head in known if (head.order > to.order if head.turn else head.number > to.number)]
    return [f"{stage} in {head.name}" for head in after for stage in head.irreversible]


def way_back(heads: Mapping[int, Head], release: Head) -> str:
    """How a person undoes a release, in a sentence."""
    good = last_good(heads, release)
    if good is None:
        return "There is no good release before it to go back to"
    return f"`pipe rollback {good.name}` puts the last good release back"
