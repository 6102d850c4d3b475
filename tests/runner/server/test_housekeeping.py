"""What the server forgets, and what it never does."""

import os
import time
from functools import partial
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, insert, select, update

from runner.ownership import Ownership
from runner.server.database import Database, deliveries, projects, runs
from runner.server.fleet import Fleet
from runner.server.housekeeping import (
    DAY,
    USUAL,
    Keep,
    What,
    forget_copies,
    forget_deliveries,
    forget_files,
    forget_runs,
    keep,
)
from runner.server.housekeeping import kept as kept_by
from runner.server.layout import Layout
from runner.server.projects import Project, add, remove
from tests.runner.server.office import Office
from tests.support.program import pipe

pytestmark = pytest.mark.slow

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


def fill_runs(database: Database, *ended: tuple[str, float]) -> None:
    """Runs of `demo`, the oldest first: an outcome (empty: it runs) and an age in days."""

    def fill(connection: Connection) -> None:
        for number, (outcome, age) in enumerate(ended, 1):
            row = {
                "id": f"r{number}",
                "project": "shop",
                "place": "shop",
                "pipeline": "demo",
                "number": number,
                "event": str(number),
            }
            rest = {
                "found_by": "call",
                "ref": "",
                "commit": "",
                "file_commit": "",
                "trigger": "{}",
                "params": "{}",
                "outcome": outcome,
            }
            state = {
                "state": "ended" if outcome else "running",
                "created": 0.0,
                "started": 1.0,
                "ended": NOW - age * DAY,
            }
            connection.execute(insert(runs).values(**row, **rest, **state))

    database.write_now(fill)


def left(
    tmp_path: Path, what: What, wanted: Keep, *ended: tuple[str, float], part: str = "logs"
) -> tuple[list[int], list[int], list[int]]:
    """The numbers of the runs that still have a folder, that have logs (or another part), and are in the database."""
    database, layout = Database(tmp_path / "server.db"), Layout(tmp_path)
    fill_runs(database, *ended)
    for number in range(1, len(ended) + 1):
        for folder in (layout.work("shop", "demo", number), layout.copy("shop", f"r{number}")):
            for each in ("logs", "artifacts"):
                (folder / each).mkdir(parents=True)
    database.write_now(lambda c: keep(c, "shop", what, wanted))
    anyio.run(forget_runs, database, layout, Fleet(database, layout, ""), NOW)
    everything = range(1, len(ended) + 1)
    folders = [n for n in everything if layout.work("shop", "demo", n).exists()]
    assert folders == [n for n in everything if layout.copy("shop", f"r{n}").exists()]
    logs = [n for n in everything if (layout.work("shop", "demo", n) / part).exists()]
    rows = database.read_now(lambda c: list(c.execute(select(runs.c.number).order_by(runs.c.number)).scalars()))
    database.close()
    return folders, logs, rows


GOOD, BAD = "succeeded", "failed"


def test_the_last_runs_stay_and_the_last_green_one_and_one_that_runs(tmp_path: Path) -> None:
    past = [("", 9), (GOOD, 8), (GOOD, 7), (BAD, 6), (BAD, 5), (BAD, 4)]
    assert left(tmp_path, "runs", Keep(2, 0), *past)[0] == [1, 3, 5, 6]


def test_runs_of_the_last_days_stay_and_the_newest_however_old(tmp_path: Path) -> None:
    assert left(tmp_path, "runs", Keep(0, 3), (GOOD, 8), (BAD, 5), (BAD, 4))[0] == [1, 3]


def test_logs_go_before_their_runs_do(tmp_path: Path) -> None:
    folders, logs, rows = left(tmp_path, "logs", Keep(1, 0), (GOOD, 3), (GOOD, 2), (BAD, 1))
    assert (folders, logs, rows) == ([1, 2, 3], [2, 3], [1, 2, 3])


def test_artifacts_go_before_their_runs_do_and_no_logs_with_them(tmp_path: Path) -> None:
    past = [(GOOD, 3.0), (GOOD, 2.0), (BAD, 1.0)]
    (tmp_path / "one").mkdir()
    assert left(tmp_path / "one", "artifacts", Keep(1, 0), *past, part="artifacts")[:2] == ([1, 2, 3], [2, 3])
    (tmp_path / "two").mkdir()
    assert left(tmp_path / "two", "artifacts", Keep(0, 1), *past, part="logs")[:2] == ([1, 2, 3], [1, 2, 3])


def test_a_run_is_known_for_as_long_as_its_delivery_may_come_again(tmp_path: Path) -> None:
    folders, _, rows = left(tmp_path, "runs", Keep(1, 0), (BAD, 31), (BAD, 29), (GOOD, 1))
    assert (folders, rows) == ([3], [2, 3])


def test_a_run_that_somebody_works_in_stays(tmp_path: Path) -> None:
    database, layout = Database(tmp_path / "server.db"), Layout(tmp_path)
    fill_runs(database, (BAD, 3), (GOOD, 2), (GOOD, 1))
    for number in (1, 2, 3):
        layout.work("shop", "demo", number).mkdir(parents=True)
    Ownership(layout.work("shop", "demo", 1)).claim()
    database.write_now(lambda c: keep(c, "shop", "runs", Keep(1, 0)))
    anyio.run(forget_runs, database, layout, Fleet(database, layout, ""), NOW)
    assert [layout.work("shop", "demo", n).exists() for n in (1, 2, 3)] == [True, False, True]
    database.close()


def test_of_the_runs_of_a_removed_project_stays_what_it_kept(office: Office) -> None:
    office.database.write_now(lambda c: keep(c, "shop", "runs", Keep(3, 0)))
    for each in range(5):
        (Layout(office.folder).work("shop", "backend", each + 1) / "logs").mkdir(parents=True)
        office.ended("failed")
    office.database.write_now(lambda c: remove(c, "shop"))
    office.database.write_now(lambda c: keep(c, "shop", "runs", Keep(1, 0)))  # by who did not see that it was gone
    office.database.write_now(partial(add, seal=office.seal, project=Project("shop", "https://git.example/shop.git")))
    layout = Layout(office.folder)
    anyio.run(forget_runs, office.database, layout, Fleet(office.database, layout, ""), NOW)
    assert sorted(path.name for path in (layout.store("shop") / "backend").iterdir()) == ["3", "4", "5"]
    assert office.database.read_now(lambda c: kept_by(c, "shop")) == USUAL


def test_a_project_says_what_it_keeps(tmp_path: Path) -> None:
    assert pipe(tmp_path, "projects", "add", "shop", "https://git.example/shop.git", "--no-check").returncode == 0
    assert "runs: of each pipeline 500, no limit of days" in pipe(tmp_path, "projects", "keep", "shop").stdout
    pipe(tmp_path, "projects", "keep", "shop", "--runs", "20", "--log-days", "7", "--artifacts", "3")
    said = pipe(tmp_path, "projects", "keep", "shop").stdout.splitlines()
    assert said == [
        "runs: of each pipeline 20, no limit of days",
        "logs: of each pipeline 200, 7 days",
        "artifacts: of each pipeline 3, no limit of days",
    ]


def copies(office: Office) -> list[str]:
    """What is left of a copy of every kind, at the URLs `u` and `v`."""
    layout = Layout(office.folder)
    makes = {"own": layout.repository, "strangers": layout.strangers}
    there = {f"{kind} {url}": make("shop", url) for url in "uv" for kind, make in makes.items()}
    there["part u"] = there["own u"].with_name(f"{there['own u'].name}.part")
    for path in there.values():
        (path / "objects").mkdir(parents=True, exist_ok=True)
    anyio.run(forget_copies, office.database, layout)
    return sorted(name for name, path in there.items() if path.exists())


def test_the_copy_of_a_repository_goes_when_its_project_reads_another_one(office: Office) -> None:
    assert copies(office) == ["own u", "part u", "strangers u"]
    office.database.write_now(lambda c: c.execute(update(projects).values(url="v")))
    assert copies(office) == ["own v", "strangers v"]


def test_the_copy_of_a_repository_goes_with_its_project_and_never_under_a_run(office: Office) -> None:
    run = office.begun()
    office.database.write_now(lambda c: remove(c, "shop"))
    assert copies(office) == ["own u", "own v", "part u", "strangers u", "strangers v"]
    office.end(run, "succeeded")
    assert copies(office) == []
