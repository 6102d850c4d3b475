"""What the server forgets: old deliveries, files and consoles of old runs, and what nobody approves. Runs stay."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
from sqlalchemy import Connection, delete, select

from runner.server.database import Database, deliveries
from runner.server.forks import expire
from runner.server.layout import Layout

__all__ = ["forget_deliveries", "forget_files", "keep_house"]

DAY = 86400.0
EVERY = 3600.0
DELIVERIES_KEPT = 30 * DAY
REFUSED_KEPT = 1000
FILES_KEPT = 7 * DAY
CONSOLES_KEPT = 30 * DAY


async def keep_house(database: Database, layout: Layout) -> None:
    """Forget once an hour, until cancelled."""
    while True:
        await database.write(lambda connection: forget_deliveries(connection, time.time()))
        await database.write(lambda connection: expire(connection, time.time()))
        await anyio.to_thread.run_sync(forget_files, layout, time.time())
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


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
