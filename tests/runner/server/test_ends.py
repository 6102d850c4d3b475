"""When a run began and ended in the server's books: as its journal says, within what the server has seen itself."""

import time
from functools import partial

import pytest
from sqlalchemy import insert, select, update

from runner.folder import RunFolder
from runner.plans import read_plan
from runner.server import projects
from runner.server.database import deliveries, runs
from runner.server.dispatcher import _look
from runner.server.ends import Ended, finish
from tests.runner.server.office import Office
from tests.support.program import pipe

BEGUN = 10.0
"""When the office's runs are started."""


def times(office: Office, span: tuple[float, float] | None) -> tuple[float, float]:
    id_ = office.begun()
    office.database.write_now(partial(finish, id_=id_, ended=Ended("succeeded", span=span)))
    row = office.database.read_now(lambda c: c.execute(select(runs).where(runs.c.id == id_)).one())
    return row.started, row.ended


@pytest.mark.parametrize(
    ("span", "expected"), [((12.0, 20.0), (12.0, 20.0)), ((5.0, 20.0), (BEGUN, 20.0)), ((20.0, 12.0), (20.0, 20.0))]
)
def test_a_run_lasted_as_long_as_its_journal_says(
    office: Office, span: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert times(office, span) == expected


@pytest.mark.parametrize("span", [None, (12.0, 1e300), (1e300, 1e300)])
def test_no_run_ends_in_the_future(office: Office, span: tuple[float, float] | None) -> None:
    before = time.time()
    _, ended = times(office, span)
    assert before <= ended <= time.time()


SPOILERS = (
    '{"seq": 9, "time": NaN, "type": "run.started"}',
    '{"seq": 9, "time": "x", "type": "run.finished", "outcome": "succeeded"}',
    '{"seq": 9, "time": 1, "type": "run.reopened", "leaves": 5}',
    "[]",
)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    place = tmp_path_factory.mktemp("green")
    (place / "pipe.yaml").write_text('name: demo\nstages: {s: {run: "true"}}\n')
    assert pipe(place, "run", "pipe.yaml").returncode == 0
    return RunFolder(place / ".pipe/demo/1")


@pytest.mark.parametrize("line", SPOILERS)
def test_a_run_that_spoils_its_journal_ends_by_that_and_ends_nothing_else(green: RunFolder, line: str) -> None:
    journal, run = green.events(1), read_plan(green).run.id
    written = journal.read_text()
    first, *rest = written.splitlines()
    journal.write_text("\n".join([first, line, *rest]) + "\n")
    try:
        found = _look(green, run, 0)
    finally:
        journal.write_text(written)
    assert isinstance(found, Ended)
    assert (found.outcome, found.note.startswith("its journal is spoiled: "), found.span) == ("errored", True, None)
    assert isinstance(_look(green, run, 0), Ended), "and unspoiled it is what it was"


def test_nothing_that_waited_for_a_removed_project_is_started_for_one_that_gets_its_name(office: Office) -> None:
    waits = office.begun()
    office.database.write_now(lambda c: c.execute(update(runs).values(state="queued")))
    delivery = {"id": "d", "project": "shop", "forge": "gitea", "key": "k", "received": 1.0, "headers": "{}"}
    row = {**delivery, "body": b"{}", "size": 2, "state": "new"}
    office.database.write_now(lambda c: c.execute(insert(deliveries).values(row)))
    office.database.write_now(partial(projects.remove, name="shop"))
    found = office.database.read_now(lambda c: c.execute(select(runs.c.id, runs.c.state, runs.c.outcome)).all())
    assert found == [(waits, "ended", "cancelled")]
    assert office.database.read_now(lambda c: c.execute(select(deliveries.c.state)).scalar_one()) == "failed"
