"""A look ahead: what it finds, what it cannot tell, how it ends a run, and that it costs nothing where it need not."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from pydantic import JsonValue

from pipeline.files import Folder
from pipeline.plan import Leaf
from pipeline.stage import CauseKind, Outcome, Severity
from runner import events
from runner.findings import Told, as_json, lines, read
from runner.preflight import Preflight, Report, scene_of
from tests.support.runs import Run, _engine, need, probe, resumed, run, shell, started, until_started


async def look(tmp_path: Path, *leaves: Leaf, within: float = 5, **plan: object) -> Report:
    """What a look ahead at these leaves brings."""
    made = _engine(tmp_path, leaves, **plan)  # type: ignore[arg-type]
    return await Preflight(scene_of(made.engine.world), within).run()


async def until_so(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.01)


def told(report: Report) -> list[tuple[str, str, str]]:
    return [(one.leaf, one.finding.severity.value, one.finding.cause.message) for one in report.found]


# -- what is found ---------------------------------------------------------------------------------


async def test_every_leaf_is_looked_at_at_once(tmp_path: Path) -> None:
    began = anyio.current_time()
    report = await look(tmp_path, *(probe(f"a{n}", look="300ms", finds=f"bad {n}") for n in range(20)))
    assert [one.leaf for one in report.found] == [f"a{n}" for n in range(20)]
    assert anyio.current_time() - began < 3


async def test_a_leaf_is_filled_with_what_others_are_going_to_give(tmp_path: Path) -> None:
    first = probe("a", output="x:1")
    second = probe("b", needs=["a"], finds={"$": ["no ", {"ref": "stages.a.value"}]})
    second = second.model_copy(update={"references": {"stages.a.value": ("a", "value")}})
    assert told(await look(tmp_path, first, second)) == [("b", "will fail", "no x:1")]


async def test_what_waits_for_work_could_not_be_checked_and_says_for_what(tmp_path: Path) -> None:
    waits = probe("b", needs=["a"], finds={"$": [{"ref": "stages.a.tag"}]})
    waits = waits.model_copy(update={"references": {"stages.a.tag": ("a", "tag")}})
    report = await look(tmp_path, shell("a", "true", outputs=("tag",)), waits, probe("c", needs=["b"], finds="bad"))
    message = "it waits for ${stages.a.tag}, which is known when a has run"
    assert told(report) == [("b", "could not be checked", message), ("c", "will fail", "bad")]


async def test_a_look_that_does_not_answer_in_time_is_one_that_could_not_be_checked(tmp_path: Path) -> None:
    report = await look(tmp_path, probe("a", look="1h"), probe("b", finds="bad"), within=0.3)
    assert told(report) == [("a", "could not be checked", "no answer within 0.3 s"), ("b", "will fail", "bad")]


async def test_an_outage_will_fail_even_when_the_second_look_at_it_takes_too_long(tmp_path: Path) -> None:
    report = await look(tmp_path, probe("a", finds="the cluster is down", cause="infra", look="300ms"), within=1.5)
    assert told(report) == [("a", "will fail", "the cluster is down")]
    assert report.found[0].finding.cause.kind is CauseKind.INFRA


async def test_a_bug_in_a_look_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: object, ctx: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("stages.probe.Probe.preflight", broken)
    done = await run(tmp_path, probe("a"))
    assert done.outcome is Outcome.SUCCEEDED
    assert done.state.preflight
    assert "BUG in pipe: RuntimeError: oops" in str(done.state.preflight.findings)


@pytest.mark.parametrize(
    ("leaf", "excuse"),
    [
        (probe("b", needs=["a"], finds="bad", options={"allow_failure": True}), "its failure is allowed"),
        (
            probe(
                "b",
                needs=["a"],
                finds="bad",
                options={"when": "stages.a.attempt == 1", "when_references": {"stages.a.attempt": ("a", "attempt")}},
            ),
            "only if it runs (when: stages.a.attempt == 1)",
        ),
    ],
)
async def test_only_what_is_sure_to_be_reached_and_counts_will_fail(tmp_path: Path, leaf: Leaf, excuse: str) -> None:
    report = await look(tmp_path, probe("a"), leaf)
    assert told(report) == [("b", "may fail", "bad")]
    assert report.found[0].finding.hint == excuse


async def test_a_leaf_that_runs_only_after_a_failure_is_not_looked_at(tmp_path: Path) -> None:
    condition = {"when": "stages.a.outcome == 'failed'", "when_references": {"stages.a.outcome": ("a", "outcome")}}
    report = await look(
        tmp_path, probe("a"), probe("undo", needs=[need("a", word="ended")], finds="bad", options=condition)
    )
    assert told(report) == []
    assert report.skipped["undo"].kind is CauseKind.CONDITION


async def test_what_needs_a_leaf_that_cannot_tell_its_outputs_is_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stage import StageFailed

    async def no_such_ref(self: object, ctx: object) -> None:
        raise StageFailed("there is no branch 'x'", kind=CauseKind.CONFIG)

    monkeypatch.setattr("stages.probe.Probe.foresee", no_such_ref)
    report = await look(tmp_path, probe("a"), probe("b", needs=["a"], finds="bad"))
    assert told(report) == [("a", "will fail", "there is no branch 'x'")]
    assert report.skipped["b"].kind is CauseKind.DEPENDENCY


async def test_a_failure_in_finally_is_only_a_warning(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a"), finally_=[probe("mail", finds="no mail server", cause="infra")])
    assert done.outcome is Outcome.SUCCEEDED
    assert done.state.preflight
    assert [finding["severity"] for finding in done.state.preflight.findings] == ["may fail"]


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.preflight.LITTLE_ROOM", 1 << 62)
    report = await look(tmp_path, probe("a"))
    assert [one.finding.severity for one in report.found] == [Severity.MAY_FAIL] * 2
    assert "MiB are free for the workspace in" in report.found[0].finding.cause.message


# -- in a run --------------------------------------------------------------------------------------


async def test_what_will_fail_ends_the_run_before_anything_is_computed(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell("compile", "touch compiled"),
        probe("push", needs=["compile"], finds="no right to push", cause="config", look="200ms", evidence=["401"]),
        probe("deploy", needs=["push"]),
        finally_=[probe("mail", log="told")],
    )
    assert done.outcome is Outcome.FAILED
    assert done.outcomes() == {"push": "failed", "deploy": "skipped", "compile": "cancelled", "mail": "succeeded"}
    assert not (done.workspace / "compiled").exists()
    assert done["compile"].attempt == 0
    cause = done["push"].cause
    assert cause
    assert (cause.kind, cause.message, cause.evidence) == (CauseKind.CONFIG, "preflight: no right to push", ("401",))


async def test_an_outage_ends_the_run_as_errored_and_names_itself(tmp_path: Path) -> None:
    done = await run(
        tmp_path, shell("compile", "true"), probe("deploy", needs=["compile"], finds="down", cause="infra")
    )
    assert (done.outcome, done.outcomes()["deploy"]) == (Outcome.ERRORED, "errored")
    assert done["deploy"].cause
    assert done["deploy"].cause.kind is CauseKind.INFRA


async def test_what_may_fail_or_could_not_be_checked_ends_nothing_and_stands_in_the_journal(tmp_path: Path) -> None:
    done = await run(
        tmp_path, probe("a", finds="hm", finds_how="may fail"), probe("b", finds="?", finds_how="could not be checked")
    )
    assert done.outcome is Outcome.SUCCEEDED
    found = [record.event for record in done.records if isinstance(record.event, events.RunPreflighted)]
    assert [read(finding).finding.cause.message for finding in found[0].findings] == ["hm", "?"]
    assert found[0].checked == 2


async def test_nothing_starts_before_the_look_is_over_but_what_prepares_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.probe.Probe.prepares", True)
    async with started(
        tmp_path, probe("fetch", sleep="10ms"), shell("compile", "true"), probe("late", needs=["compile"], look="500ms")
    ) as under_way:
        await until_started(under_way, "fetch")
        await until_so(lambda: under_way.state.leaf("fetch").outcome is not None)
        assert not under_way.state.leaf("compile").started
    order = [type(record.event).__name__ for record in under_way.records]
    assert order.index("RunPreflighted") < order.index("StageStarted", order.index("StageFinished"))


async def test_a_plan_with_nothing_to_look_at_has_no_preflight(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("a", "true"))
    assert done.state.preflight is None
    assert not any(isinstance(record.event, events.RunPreflighted) for record in done.records)


async def test_a_cancel_does_not_wait_for_the_look(tmp_path: Path) -> None:
    with anyio.fail_after(3):
        async with started(tmp_path, probe("a", look="5s")) as under_way:
            await until_so(lambda: under_way.engine._looking is not None)
            under_way.engine.cancel("joe")
    assert under_way.outcome is Outcome.CANCELLED


async def test_after_the_death_of_an_engine_only_what_is_left_is_looked_at(tmp_path: Path) -> None:
    async with started(
        tmp_path, probe("a", finds="may", finds_how="may fail"), probe("b", needs=["a"], sleep="1h")
    ) as before:
        await until_started(before, "b")
        before.engine.let_go("to test")
    after = _shorter(before)
    done = await resumed(after)
    assert done.outcome is Outcome.SUCCEEDED
    looks = [record.event for record in done.records if isinstance(record.event, events.RunPreflighted)]
    assert [len(look.findings) for look in looks] == [1, 0]


def _shorter(before: Run) -> Run:
    """The same run, whose long stage takes no time in the engine that goes on with it."""
    plan = before.engine.world.plan
    leaves = tuple(
        leaf.model_copy(update={"fields": {name: value for name, value in leaf.fields.items() if name != "sleep"}})
        for leaf in plan.leaves
    )
    object.__setattr__(before.engine.world, "plan", plan.model_copy(update={"leaves": leaves}))
    return before


async def test_secrets_in_findings_are_masked_in_the_journal(tmp_path: Path) -> None:
    environ = {"PIPE_SECRET_TOKEN": "correct-horse-battery"}
    leaf = probe(
        "a", finds="refused: correct-horse-battery", finds_how="may fail", options={"secret_names": ("token",)}
    )
    done = await run(tmp_path, leaf, environ=environ, secrets={"token": {"kind": "text"}})
    assert "correct-horse" not in "".join(path.read_text() for path in done.folder.path.glob("events*"))


# -- words -----------------------------------------------------------------------------------------


async def test_one_finding_about_many_leaves_is_told_once_and_the_worst_come_first(tmp_path: Path) -> None:
    leaves = [probe("x", finds="hm", finds_how="may fail"), *(probe(f"push{n}", finds="401") for n in range(5))]
    report = await look(tmp_path, *leaves)
    assert list(lines(report.found)) == ["will fail: push0, push1, push2 and 2 more: 401", "may fail: x: hm"]


async def test_a_finding_comes_back_from_the_journal_as_it_was(tmp_path: Path) -> None:
    report = await look(tmp_path, probe("a", finds="bad", evidence=["x", "y"]))
    one = report.found[0]
    record: dict[str, JsonValue] = as_json(one)
    assert read(record) == Told("a", one.finding)


def test_the_callers_folder_is_what_a_run_without_a_checkout_works_in(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("x")
    assert list(Folder(tmp_path, tmp_path).names("a")) == ["a/b.txt"]
