"""How runs end in the server's books, and what their forge is then to be told."""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, and_, select, update

from runner.server.announcements import announce_end
from runner.server.database import runs, statuses

__all__ = ["WAITS", "Ended", "cancel_unstarted", "finish", "tell"]


WAITS = {"queued": "waits for its start", "waiting": "waits for approval"}
"""What a forge is told of a run that has not been started, by its state."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, and why if that is not plain."""

    outcome: str
    note: str = ""
    span: tuple[float, float] | None = None
    """When it began and ended by its own journal, in seconds since the epoch."""


def finish(connection: Connection, id_: str, ended: Ended) -> None:
    """Note the end of a run; what has been said of its end stays."""
    open_ = and_(runs.c.id == id_, runs.c.state != "ended")
    begun = connection.execute(select(runs.c.started).where(open_)).scalar_one_or_none()
    if begun is None:
        return
    values = {"state": "ended", "outcome": ended.outcome, "note": ended.note, **_times(ended, begun, time.time())}
    connection.execute(update(runs).where(open_).values(values))
    good = ended.outcome in ("succeeded", "skipped")
    tell(connection, id_, "success" if good else "failure", ended.outcome + (f": {ended.note}" if ended.note else ""))
    announce_end(connection, id_)


def _times(ended: Ended, begun: float, now: float) -> dict[str, float]:
    """When it began and ended: as everybody else reads it in its journal, and within what we have seen ourselves."""
    if ended.span is None:
        return {"ended": now}
    first, last = (min(max(each, begun), now) for each in ended.span)
    return {"started": first, "ended": max(first, last)}


def tell(connection: Connection, id_: str, state: str, description: str) -> None:
    """What the forge is to show; it takes the place of what was not told yet."""
    values = {"state": state, "description": description[:130], "told": False, "tries": 0, "due": 0.0}
    connection.execute(update(statuses).where(statuses.c.run == id_).values(values))


def cancel_unstarted(connection: Connection, id_: str) -> bool:
    """End a run that has not been started; false if it has."""
    there = and_(runs.c.id == id_, runs.c.state.in_(("waiting", "queued")))
    if not connection.execute(select(runs.c.id).where(there)).one_or_none():
        return False
    finish(connection, id_, Ended("cancelled", "before it was started"))
    return True
