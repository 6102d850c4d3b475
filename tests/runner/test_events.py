"""Lines of a journal that no engine wrote: stages can write where journals lie."""

import json

import pytest

from pipeline.stage import Outcome
from runner.events import Record, RunFinished, decode, encode
from runner.state import fold

LINE = {"v": 1, "seq": 1, "time": 5.0, "type": "run.finished", "outcome": "succeeded", "cause": None}


def test_a_record_is_read_as_it_was_written() -> None:
    record = Record(7, 5.25, RunFinished(Outcome.SUCCEEDED))
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "1",
        '{"type": []}',
        '{"type": "run.finished"}',
        json.dumps({**LINE, "seq": "1"}),
        json.dumps({**LINE, "time": "now"}),
        json.dumps({**LINE, "time": float("nan")}),
        json.dumps({**LINE, "time": float("inf")}),
        json.dumps({**LINE, "time": 10**400}),
        json.dumps({**LINE, "outcome": "splendid"}),
        json.dumps({**LINE, "cause": 5}),
        json.dumps({**LINE, "cause": {"kind": "user"}}),
    ],
)
def test_a_line_that_is_no_record_is_said_to_be_none(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(line.encode())


def test_a_record_that_holds_what_no_engine_writes_is_named() -> None:
    odd = decode(json.dumps({"seq": 3, "time": 1, "type": "run.reopened", "leaves": 5}).encode())
    assert odd is not None
    with pytest.raises(ValueError, match="record 3 holds what no engine writes"):
        fold([odd])
