"""A run can be told from any place on, and nothing of it is lost or told twice."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stage import Cause, CauseKind, Outcome
from runner import events
from runner.events import Event, Record, encode
from runner.folder import RunFolder
from runner.telling import Piece, Position, find, tell

LOG = "eins\nzwölf\n日本語\n🚀 ab".encode()
A_RUN: list[Event] = [
    events.RunStarted(id="01X", number=1, pipeline="demo"),
    events.StageStarted("a", 1),
    events.StageStarted("b", 1),
    events.StageRetrying("a", 1, Outcome.FAILED, Cause(CauseKind.USER, "no"), 1.0),
    events.StageFinished("b", 1, Outcome.SUCCEEDED),
    events.StageStarted("a", 2),
    events.StageStarted("c", 1),
]


def written(folder: Path, happened: list[Event], epoch: int = 1, first: int = 1) -> RunFolder:
    run = RunFolder(folder)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with run.events(epoch).open("ab") as journal:
        for seq, event in enumerate(happened, first):
            journal.write(encode(Record(seq, 1.0, event)))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One that is under way: `a` has begun anew, `c` has written nothing."""
    made = written(tmp_path_factory.mktemp("run"), A_RUN)
    for leaf, attempt in (("a", 1), ("b", 1), ("a", 2)):
        made.log(leaf, attempt).write_bytes(LOG + f"{leaf}{attempt}".encode())
    return made


def shown(told: list[tuple[Record | Piece, Position]]) -> list[object]:
    return [item if isinstance(item, Piece) else item.seq for item, _ in told]


def bytes_of(told: list[tuple[Record | Piece, Position]]) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    for item, _ in told:
        if isinstance(item, Piece):
            assert item.offset == len(found.get((item.stage, item.attempt), b""))
            found[item.stage, item.attempt] = found.get((item.stage, item.attempt), b"") + item.data
    return found


def test_all_of_a_log_comes_before_the_record_that_ends_its_attempt(run: RunFolder) -> None:
    told = list(tell(run, Position(), logs=True))
    order = [item.stage if isinstance(item, Piece) else item.seq for item, _ in told]
    assert order == [1, 2, 3, "a", 4, "b", 5, 6, 7, "a"]
    assert bytes_of(told) == {("a", 1): LOG + b"a1", ("b", 1): LOG + b"b1", ("a", 2): LOG + b"a2"}


def test_from_every_place_on_the_rest_is_told(run: RunFolder) -> None:
    whole = list(tell(run, Position(), logs=True))
    for index, (_, position) in enumerate(whole, 1):
        again = find(run, str(position), logs=True)
        assert again == position
        assert shown(list(tell(run, again, logs=True))) == shown(whole[index:])


def test_without_logs_a_place_is_the_number_of_a_record(run: RunFolder) -> None:
    assert [str(position) for _, position in tell(run, Position(), logs=False)] == [str(n) for n in range(1, 8)]
    assert shown(list(tell(run, find(run, "5", logs=False), logs=False))) == [6, 7]
    assert find(run, "", logs=False) == Position()


@pytest.mark.parametrize("words", ["x", "1:2", "1+", "1+2", "-1", "1.2.3", "1+2:x", "9" * 40, "1 "])
def test_a_text_that_is_no_place_is_refused(run: RunFolder, words: str) -> None:
    with pytest.raises(ValueError, match="is no place in the events of a run"):
        find(run, words, logs=True)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LOG)), max_size=6), stops=st.lists(st.integers(1, 9), max_size=12))
def test_a_run_that_grows_is_told_once_however_it_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], stops: list[int]
) -> None:
    """The log of `a` grows by pieces that know nothing of characters, and who listens goes away and comes back."""
    run = written(tmp_path_factory.mktemp("run"), A_RUN[:2])
    told: list[tuple[Record | Piece, Position]] = []
    places = sorted({0, *cuts, len(LOG)})
    listens = iter(stops)
    for start, end in pairwise(places):
        with run.log("a", 1).open("ab") as log:
            log.write(LOG[start:end])
        again = find(run, str(told[-1][1]) if told else "", logs=True)
        most = next(listens, 99)
        told += [each for each, _ in zip(tell(run, again, logs=True), range(most), strict=False)]
    written(run.path, [events.StageFinished("a", 1, Outcome.SUCCEEDED)], first=3)
    told += tell(run, told[-1][1], logs=True)
    assert [item for item in shown(told) if isinstance(item, int)] == [1, 2, 3]
    assert bytes_of(told) == {("a", 1): LOG}
    assert all(item.data.decode() for item, _ in told if isinstance(item, Piece))


def test_a_log_that_is_no_text_is_told_too(tmp_path: Path) -> None:
    run = written(tmp_path, A_RUN[:2])
    run.log("a", 1).write_bytes(b"\xff\xfe\xf0")
    told = list(tell(run, Position(), logs=True))
    written(tmp_path, [events.StageFinished("a", 1, Outcome.SUCCEEDED)], first=3)
    told += tell(run, told[-1][1], logs=True)
    assert bytes_of(told) == {("a", 1): b"\xff\xfe\xf0"}


def test_who_is_behind_comes_to_the_same_place_as_who_was_there_before(tmp_path: Path) -> None:
    run = written(tmp_path, A_RUN)
    run.log("a", 2).write_bytes(LOG)
    newest = find(run, None, logs=True)
    run.log("a", 2).write_bytes(LOG + b"more")
    run.log("c", 1).write_bytes(b"new")
    *_, (_, position) = tell(run, Position(), newest, logs=True)
    assert position == newest
    assert list(tell(run, position, newest, logs=True)) == []


def test_what_an_engine_wrote_after_it_had_lost_the_run_is_told_to_nobody_new(tmp_path: Path) -> None:
    """And who heard of it gets all that the next engine wrote, though the numbers are the same."""
    run = written(tmp_path, A_RUN[:4])
    heard = [position for _, position in tell(run, Position(), logs=False)]
    written(tmp_path, [events.RunResumed(2, after=2), events.StageStarted("b", 1)], epoch=2, first=3)
    told = list(tell(run, Position(), logs=False))
    assert [str(position) for _, position in told] == ["1", "2", "2.3", "2.4"]
    for place in heard[2:]:
        again = find(run, str(place), logs=False)
        assert [str(position) for _, position in tell(run, again, logs=False)] == ["2.3", "2.4"]
