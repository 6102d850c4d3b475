"""Writing messages to a project's targets, in the transaction of what they tell of."""

from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select

from runner.server.database import notifications, runs, targets
from runner.server.messages import GREEN, RED

__all__ = ["announce", "announce_end"]


def announce_end(connection: Connection, run: str) -> None:
    """Write the messages on a run that has just ended, in the transaction that ends it."""
    row = connection.execute(select(runs).where(runs.c.id == run)).one()
    if row.outcome in RED:
        announce(connection, run, "failed")
    elif row.outcome in GREEN and _was_red(connection, row):
        announce(connection, run, "fixed")
    else:
        announce(connection, run, "ended")


def announce(connection: Connection, run: str, event: str) -> None:
    """Write a message to each target of the run's project that is to be told of an event, once for each.

    Who wants `ended` is told of every end, by whichever of its words fits best.
    """
    project = connection.execute(select(runs.c.project).where(runs.c.id == run)).scalar_one()
    wanted = {event} if event == "waiting" else {event, "ended"}
    for target in connection.execute(select(targets).where(targets.c.project == project)).all():
        row = {"run": run, "event": event, "target": target.name}
        there = select(notifications.c.run).where(*(notifications.c[name] == value for name, value in row.items()))
        if wanted & set(target.events.split(",")) and not connection.execute(there).one_or_none():
            connection.execute(insert(notifications).values({**row, "project": project}))


def _was_red(connection: Connection, row: "Row[Any]") -> bool:
    """Whether the news before was bad: of the older runs of its pipeline and ref, that which ended last.

    An older run that ends after a younger one has said how things are is no news.
    """
    line = and_(runs.c.project == row.project, runs.c.pipeline == row.pipeline, runs.c.ref == row.ref)
    telling = and_(line, runs.c.state == "ended", runs.c.outcome.in_((*RED, *GREEN)))
    if not row.ref or connection.execute(select(runs.c.id).where(telling, runs.c.number > row.number).limit(1)).first():
        return False
    before = select(runs.c.outcome).where(telling, runs.c.number < row.number).order_by(runs.c.ended.desc())
    return connection.execute(before.limit(1)).scalar_one_or_none() in RED
