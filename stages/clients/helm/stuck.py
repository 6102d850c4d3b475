"""Whether a pending revision still has a helm that works on it: pure judgement over what Helm and we have recorded."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from stages.clients.helm.records import History, Promise, Revision

__all__ = ["Pending", "pending"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A revision that nobody has ended yet."""

    revision: Revision
    dead_at: datetime
    """From when on its helm is known to be dead, if the record does not change before."""
    why: str
    """How that is known."""

    def is_dead(self, now: datetime) -> bool:
        """Whether its helm is dead; `now` is by the cluster's clock."""
        return now >= self.dead_at


def pending(history: History, mark: str, machine: str, patience: timedelta) -> Pending | None:
    """The newest revision if it is pending, and when its helm is dead for sure.

    Args:
        history: the release as the cluster has it now.
        mark: the stage that asks. A helm that an earlier attempt of it started is dead: an attempt ends its
            processes before the next one begins, and a run is taken over only when its engine is gone.
        machine: where we are. Elsewhere that is not certain at once, so the time counts that was promised.
        patience: how long the record of a helm that nobody of us has started may stay as it is.
    """
    newest = history.newest
    if newest is None or not newest.is_pending:
        return None
    promise = _promise(history, newest)
    if promise is None:
        seconds = patience.total_seconds()
        return Pending(newest, newest.changed + patience, f"its record has not changed for {seconds:g} s")
    if (promise.mark, promise.machine) == (mark, machine):
        return Pending(newest, history.now, "an earlier attempt of this stage started it, and is over")
    return Pending(newest, promise.until, f"the stage that started it ended it by {promise.until:%H:%M:%S} UTC")


def _promise(history: History, newest: Revision) -> Promise | None:
    """What we said of its helm. Nothing can be said on the revision of a rollback: that is on the one before it."""
    if newest.status != "pending-rollback":
        return newest.made
    before = history.get(newest.number - 1)
    if before is None or before.undone is None or newest.created > before.undone.until:
        return None
    return before.undone
