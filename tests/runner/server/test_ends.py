"""When a run began and ended in the server's books: as its journal says, within what the server has seen itself."""

import time
from functools import partial

import pytest
from sqlalchemy import select

from runner.server.database import runs
from runner.server.ends import Ended, finish
from tests.runner.server.office import Office

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
