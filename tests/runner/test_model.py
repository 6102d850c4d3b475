"""The engine against a reference model, and the fold against journals that were cut off, on random graphs."""

import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.stage import Outcome
from runner import events
from runner.events import Record
from runner.folder import RunFolder
from runner.state import RunState, fold
from tests.support.model import Graph, ends, graphs, leaves
from tests.support.runs import Run, resumed, run, started

pytestmark = pytest.mark.slow

RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def of_kind(records: list[Record], kind: type[events.Event]) -> list[str]:
    return [record.event.stage for record in records if isinstance(record.event, kind)]  # type: ignore[attr-defined]


def end_as_expected(graph: Graph, done: Run) -> None:
    """Every leaf ended, once, as the model says."""
    expected = ends(graph)
    assert done.outcomes() == {name: end.outcome.value for name, end in expected.items()}
    by_condition = {
        name for name, leaf in done.state.leaves.items() if leaf.cause and leaf.cause.kind.value == "condition"
    }
    assert by_condition == {name for name, end in expected.items() if end.by_condition}
    finished = Counter(of_kind(done.records, events.StageFinished))
    assert finished == dict.fromkeys(graph, 1)


@RANDOM
@given(graphs(), st.integers(1, 4))
def test_every_leaf_ends_as_the_model_says_and_starts_after_all_that_it_needs(graph: Graph, jobs: int) -> None:
    with TemporaryDirectory() as folder:
        done = anyio.run(lambda: run(Path(folder), *leaves(graph), jobs=jobs))
        end_as_expected(graph, done)
        expected = ends(graph)
        assert {name: leaf.attempt for name, leaf in done.state.leaves.items()} == {
            name: end.attempts for name, end in expected.items()
        }
        bad = any(not end.met and end.outcome is not Outcome.SKIPPED for end in expected.values())
        assert (done.outcome is Outcome.SUCCEEDED) is not bad
        seen: set[str] = set()
        for record in done.records:
            if isinstance(record.event, events.StageStarted):
                assert {name for names in graph[record.event.stage].needs for name in names} <= seen
            elif isinstance(record.event, events.StageFinished):
                seen.add(record.event.stage)


@RANDOM
@given(graphs(), st.integers(0, 25))
def test_a_cancel_at_any_moment_ends_every_leaf_and_starts_none_after_it(graph: Graph, moment: int) -> None:
    async def cancelled(folder: Path) -> Run:
        async with started(folder, *leaves(graph), jobs=2) as under_way:
            for _ in range(moment):
                await anyio.lowlevel.checkpoint()
            under_way.engine.cancel("somebody")
        return under_way

    with TemporaryDirectory() as folder:
        done = anyio.run(cancelled, Path(folder))
        expected = ends(graph)
        for name, leaf in done.state.leaves.items():
            assert leaf.outcome in (expected[name].outcome, Outcome.CANCELLED)
        assert set(done.state.leaves) == set(graph)
        kinds = [type(record.event) for record in done.records]
        if events.CancelRequested in kinds:
            after = kinds[kinds.index(events.CancelRequested) :]
            assert events.StageStarted not in after
            assert done.outcome is Outcome.CANCELLED or events.StageFinished not in after


@RANDOM
@given(graphs(steady=True), st.floats(0, 1))
def test_a_run_whose_journal_was_cut_off_anywhere_goes_on_to_the_same_end(graph: Graph, part: float) -> None:
    with TemporaryDirectory() as folder:
        whole = anyio.run(lambda: run(Path(folder), *leaves(graph)))
        journal = whole.folder.events(1)
        written = journal.read_bytes()
        journal.write_bytes(written[: int(len(written) * part)])
        before = fold(whole.folder.records())
        again = anyio.run(resumed, whole)
        end_as_expected(graph, again)
        kept = {name for name, leaf in before.leaves.items() if leaf.outcome}
        resumed_at = next(n for n, r in enumerate(again.records) if isinstance(r.event, events.RunResumed))
        assert not kept & set(of_kind(again.records[resumed_at:], events.StageStarted))


@RANDOM
@given(graphs(), st.floats(0, 1))
def test_a_picture_made_in_two_steps_is_the_one_made_in_one(graph: Graph, part: float) -> None:
    with TemporaryDirectory() as folder:
        done = anyio.run(lambda: run(Path(folder), *leaves(graph)))
        records = done.records
        state = fold(records[: int(len(records) * part)])
        for record in records[int(len(records) * part) :]:
            state.apply(record)
        assert vars(state) == vars(fold(records)) == vars(done.state)
        copy = RunFolder(Path(folder) / "copy")
        shutil.copytree(done.folder.path, copy.path)
        assert [events.decode(events.encode(record)) for record in records] == list(copy.records())


def test_a_state_knows_nothing_before_its_first_record() -> None:
    assert vars(fold([])) == vars(RunState())
