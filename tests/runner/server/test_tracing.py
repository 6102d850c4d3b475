"""When traces of the server's runs are tried again."""

import time
from functools import partial

import pytest
from sqlalchemy import select, update

from runner.server.database import runs
from runner.server.fleet import Fleet
from runner.server.layout import Layout
from runner.server.tracing import MOST_TRIES, Tracer
from tests.runner.server.office import Office


def test_a_trace_that_no_collector_takes_is_tried_with_growing_pauses_and_then_given_up(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(office.folder)
    office.ended("succeeded")
    pauses = []
    for _ in range(MOST_TRIES):
        tracer = Tracer(office.database, layout, Fleet(office.database, layout, ""), "")  # a server may end meanwhile
        (entry,) = office.database.read_now(tracer._due).values()
        office.database.write_now(partial(tracer._told, entry=entry, note="away"))
        due = office.database.read_now(lambda c: c.execute(select(runs.c.trace_due)).scalar_one())
        pauses.append(round(due - time.time()))
        assert office.database.read_now(tracer._due) == {}, "not before that"
        office.database.write_now(lambda c: c.execute(update(runs).values(trace_due=0.0)))
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640]
    assert office.database.read_now(tracer._due) == {}
    assert "the trace of shop backend#1 is given up after 8 tries: away" in capsys.readouterr().err
