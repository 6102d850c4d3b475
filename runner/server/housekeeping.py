"""What the server forgets: old deliveries, what nobody approves, and runs, logs and artifacts beyond their keep."""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Row, and_, delete, insert, select

from pipeline.stage import Outcome
from runner.folder import ARTIFACTS, RunFolder
from runner.server.database import Database, deliveries, keeps, mirrors, notifications, projects, runs, statuses
from runner.server.fleet import Fleet
from runner.server.forks import expire
from runner.server.layout import Layout
from runner.server.users import as_owner

__all__ = [
    "USUAL",
    "Keep",
    "What",
    "beyond",
    "forget_copies",
    "forget_deliveries",
    "forget_files",
    "forget_runs",
    "keep",
    "keep_house",
    "kept",
]

DAY = 86400.0
EVERY = 3600.0
DELIVERIES_KEPT = 30 * DAY
REFUSED_KEPT = 1000
FILES_KEPT = 7 * DAY
CONSOLES_KEPT = 30 * DAY
What = Literal["runs", "logs", "artifacts"]


@dataclass(frozen=True, slots=True)
class Keep:
    """So many of each pipeline, and so many days; 0: no limit."""

    count: int
    days: int


USUAL: dict[What, Keep] = {"runs": Keep(500, 0), "logs": Keep(200, 0), "artifacts": Keep(50, 0)}
_PARTS: dict[What, str] = {"runs": "", "logs": "logs", "artifacts": ARTIFACTS}
"""Where in the folder of a run that is."""


async def keep_house(database: Database, layout: Layout, fleet: Fleet) -> None:
    """Forget once an hour, until cancelled."""
    while True:
        await database.write(lambda connection: forget_deliveries(connection, time.time()))
        await database.write(lambda connection: expire(connection, time.time()))
        await anyio.to_thread.run_sync(forget_files, layout, time.time())
        await forget_copies(database, layout)
        await forget_runs(database, layout, fleet, time.time())
        await anyio.sleep(EVERY)


def forget_deliveries(connection: Connection, now: float) -> None:
    """Remove those that were worked long ago, and of the refused ones all but the newest thousand."""
    old = deliveries.c.received < now - DELIVERIES_KEPT
    connection.execute(delete(deliveries).where(old, deliveries.c.state != "new"))
    refused = select(deliveries.c.id).where(deliveries.c.state == "refused").order_by(deliveries.c.id.desc())
    beyond = connection.execute(refused.offset(REFUSED_KEPT).limit(1)).scalar_one_or_none()
    if beyond is not None:
        connection.execute(delete(deliveries).where(deliveries.c.state == "refused", deliveries.c.id <= beyond))


def forget_files(layout: Layout, now: float) -> None:
    """Remove pipeline files and consoles that nobody has written for long. Blocks."""
    for project in (layout.folder / "projects").glob("*"):
        for place in (project / "files").glob("*"):
            if _written(place) < now - FILES_KEPT:
                shutil.rmtree(place, ignore_errors=True)
        for console in project.glob("*.console"):
            if _written(console) < now - CONSOLES_KEPT:
                with suppress(OSError):
                    console.unlink()


async def forget_copies(database: Database, layout: Layout) -> None:
    """Remove the copies of repositories that no project reads any more, unless a run of that place is under way."""
    there = await anyio.to_thread.run_sync(layout.copies)  # before the question: what is made later is not among them
    for copy in there - await database.read(partial(_copies_in_use, layout=layout, there=there)):
        await anyio.to_thread.run_sync(partial(shutil.rmtree, copy, ignore_errors=True))


def _copies_in_use(connection: Connection, layout: Layout, there: frozenset[Path]) -> frozenset[Path]:
    """Of these copies those that a project reads, or that lie where a run is under way."""
    rows = connection.execute(select(projects.c.place, projects.c.url)).all()
    read = {copy(row.place, row.url) for row in rows for copy in (layout.repository, layout.strangers)}
    open_ = connection.execute(select(runs.c.place).where(runs.c.state != "ended").distinct()).scalars()
    busy = {layout.place(place) for place in open_}
    return frozenset(
        path for path in there if path.parent in busy or path.with_name(path.name.removesuffix(".part")) in read
    )


# -- runs ------------------------------------------------------------------------------------------


def kept(connection: Connection, project: str) -> dict[What, Keep]:
    """What a project keeps of its runs, and of their logs."""
    found = connection.execute(select(keeps).where(keeps.c.project == project))
    return USUAL | {row.what: Keep(row.most, row.days) for row in found}


def keep(connection: Connection, project: str, what: What, wanted: Keep) -> None:
    """Change that."""
    connection.execute(delete(keeps).where(keeps.c.project == project, keeps.c.what == what))
    connection.execute(insert(keeps).values(project=project, what=what, most=wanted.count, days=wanted.days))


def beyond(ended: "Iterable[Row[*tuple[Any, ...]]]", wanted: Keep, now: float) -> "Iterator[Row[*tuple[Any, ...]]]":
    """Of the ended runs of one pipeline, the newest first, those that need not stay.

    The newest stays, for numbers go on from it, and so does the last green one, which people go back to.
    """
    green = False
    for place, row in enumerate(ended):
        last_green = not green and row.outcome == Outcome.SUCCEEDED
        green = green or last_green
        many = wanted.count and place >= wanted.count
        old = wanted.days and row.ended < now - wanted.days * DAY
        if place and not last_green and (many or old):
            yield row


async def forget_runs(database: Database, layout: Layout, fleet: Fleet, now: float) -> None:
    """Remove the folders, logs and artifacts of runs on this disk beyond what their projects keep.

    The row of such a run goes when no delivery of its event can come again and start it anew.
    """
    for goes in await database.read(partial(_beyond_keep, fleet=fleet, now=now)):
        for what, rows in goes.items():
            for row in rows:
                await anyio.to_thread.run_sync(_remove, layout, row, _PARTS[what])
        old = [row.id for row in goes["runs"] if row.ended < now - DELIVERIES_KEPT]
        if old:
            await database.write(partial(_forget_rows, ids=old))


_Rows = list["Row[*tuple[Any, ...]]"]


def _beyond_keep(connection: Connection, fleet: Fleet, now: float) -> list[dict[What, _Rows]]:
    """For each pipeline the runs of this server of which something goes, by what that is.

    Other servers remove theirs themselves; what lies on a disk that nobody knows any more is forgotten by everybody.
    """
    others = {each.id for each in fleet.members(connection)} - {fleet.id}
    named = (runs.c.id, runs.c.project, runs.c.place, runs.c.pipeline, runs.c.number)
    columns = (*named, runs.c.outcome, runs.c.ended, runs.c.server)
    wanted = select(*columns).where(runs.c.state == "ended", runs.c.started > 0).order_by(runs.c.number.desc())
    of: dict[tuple[str, str], _Rows] = defaultdict(list)
    for row in connection.execute(wanted):
        of[row.project, row.pipeline].append(row)
    found = []
    for (project, _), ended in of.items():
        policy = kept(connection, project)
        goes = {what: [row for row in beyond(ended, policy[what], now) if row.server not in others] for what in policy}
        found.append(goes)
    return found


def _forget_rows(connection: Connection, ids: list[str]) -> None:
    connection.execute(delete(runs).where(and_(runs.c.id.in_(ids), runs.c.state == "ended")))
    for table in (statuses, mirrors, notifications):
        connection.execute(delete(table).where(table.c.run.in_(ids)))


def _remove(layout: Layout, row: "Row[*tuple[Any, ...]]", part: str) -> None:
    """Remove a run's files, or a part of them, here and where they were reported; not under somebody's hands."""
    folder = RunFolder(layout.work(row.place, row.pipeline, row.number))
    # a link in place of a folder leads no further than its owner gets, and what cannot be read is nobody's
    with as_owner(layout.store(row.place)), suppress(OSError):
        owner = folder.ownership.owner()
        if owner and owner.alive():
            return
        shutil.rmtree(folder.path / part, ignore_errors=True)
    shutil.rmtree(layout.copy(row.place, row.id) / part, ignore_errors=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
