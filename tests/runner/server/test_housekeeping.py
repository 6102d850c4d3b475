"""What the server forgets, and what it never does."""

import os
import time
from pathlib import Path

from sqlalchemy import insert, select

from runner.server.database import Database, deliveries
from runner.server.housekeeping import DAY, forget_deliveries, forget_files
from runner.server.layout import Layout

NOW = time.time()


def kept(tmp_path: Path, *rows: tuple[str, str, float]) -> list[str]:
    """The ids that are left of deliveries (id, state, age in days)."""
    database = Database(tmp_path / "server.db")
    rest = {"project": "shop", "forge": "gitea", "headers": "{}", "body": b"", "size": 0}

    def fill(connection: object) -> None:
        for id_, state, age in rows:
            row = {"id": id_, "key": id_, "state": state, "received": NOW - age * DAY, **rest}
            connection.execute(insert(deliveries).values(row))  # type: ignore[attr-defined]

    database.write_now(fill)
    database.write_now(lambda connection: forget_deliveries(connection, NOW))
    return database.read_now(
        lambda connection: list(connection.execute(select(deliveries.c.id).order_by("id")).scalars())
    )


def test_old_deliveries_go_and_those_that_wait_stay_however_old(tmp_path: Path) -> None:
    assert kept(tmp_path, ("a", "done", 31), ("b", "new", 90), ("c", "failed", 40), ("d", "done", 29)) == ["b", "d"]


def test_of_the_refused_the_newest_thousand_stay(tmp_path: Path) -> None:
    rows = [(f"{n:05}", "refused", 1.0) for n in range(1003)]
    assert kept(tmp_path, *rows, ("x", "done", 1)) == [f"{n:05}" for n in range(3, 1003)] + ["x"]


def test_old_files_and_consoles_go_and_runs_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    old, new = layout.file("shop", "c1", "pipeline.yaml"), layout.file("shop", "c2", "pipeline.yaml")
    run = layout.store("shop") / "demo" / "1" / "plan.json"
    for path in (old, new, run, layout.console("shop", "r1"), layout.console("shop", "r2")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (old.parent, run.parent, layout.console("shop", "r1")):
        os.utime(path, (NOW - 40 * DAY, NOW - 40 * DAY))
    forget_files(layout, NOW)
    there = [path.exists() for path in (old, new, run, layout.console("shop", "r1"), layout.console("shop", "r2"))]
    assert there == [False, True, True, False, True]
