"""Rules of execution: when stages start, how they end, and what their end does to others."""

import itertools
import time
from pathlib import Path

import anyio
import pytest

from pipeline.stage import CauseKind, Outcome
from runner import engine, events
from runner.state import fold
from tests.support.runs import need, probe, run, shell, started, until_inside_an_effect, until_started

pytestmark = pytest.mark.anyio


# -- order -----------------------------------------------------------------------------------------


async def test_a_stage_starts_as_soon_as_its_own_needs_are_met(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        probe("quick"),
        probe("slow", sleep="1s"),
        probe("after_quick", needs=["quick"]),
        probe("after_slow", needs=["slow"]),
    )
    assert done.outcome is Outcome.SUCCEEDED
    assert done["after_quick"].finished < done["slow"].finished <= done["after_slow"].started


async def test_a_failure_skips_dependants_and_siblings_finish(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        probe("image[a]", fail="no"),
        probe("image[b]", sleep="200ms"),
        probe("push[a]", needs=["image[a]"]),
        probe("push[b]", needs=["image[b]"]),
        probe("deploy", needs=[need("push[a]", "push[b]", group=True)]),
    )
    assert done.outcome is Outcome.FAILED
    assert done.outcomes() == {
        "image[a]": "failed",
        "image[b]": "succeeded",
        "push[a]": "skipped",
        "push[b]": "succeeded",
        "deploy": "skipped",
    }
    cause = done["deploy"].cause
    assert cause is not None
    assert (cause.kind, cause.evidence) == (CauseKind.DEPENDENCY, ("image[a]", "failed"))


async def test_computing_stages_never_exceed_jobs(tmp_path: Path) -> None:
    done = await run(tmp_path, *(shell(f"work[{i}]", "sleep 0.1") for i in range(6)), jobs=2)
    running, most = 0, 0
    for record in done.records:
        running += isinstance(record.event, events.StageStarted) - isinstance(record.event, events.StageFinished)
        most = max(most, running)
    assert most == 2


async def test_a_pool_bounds_its_holders_and_nobody_else(tmp_path: Path) -> None:
    held = [probe(f"held[{i}]", sleep="50ms", options={"pools": ("db",)}) for i in range(3)]
    done = await run(tmp_path, *held, probe("free", sleep="10ms"), pools={"db": 1})
    spans = sorted((done[item.name].started, done[item.name].finished) for item in held)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert done["free"].finished < spans[-1][0]


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "outcome", "kind"),
    [
        ({"fail": "no"}, Outcome.FAILED, CauseKind.USER),
        ({"fail": "no", "cause": "config"}, Outcome.FAILED, CauseKind.CONFIG),
        ({"error": "gone"}, Outcome.ERRORED, CauseKind.INFRA),
        ({"crash": True}, Outcome.ERRORED, CauseKind.BUG),
    ],
)
async def test_failed_is_not_errored_and_each_has_its_cause(
    tmp_path: Path, fields: dict[str, str], outcome: Outcome, kind: CauseKind
) -> None:
    done = await run(tmp_path, probe("a", **fields))  # type: ignore[arg-type]
    cause = done["a"].cause
    assert cause is not None
    assert (done.outcome, done["a"].outcome, cause.kind) == (outcome, outcome, kind)


async def test_a_bug_calls_itself_one_and_keeps_its_traceback(tmp_path: Path) -> None:
    cause = (await run(tmp_path, probe("a", crash=True)))["a"].cause
    assert cause is not None
    assert cause.message.startswith("BUG in pipe: RuntimeError")
    assert any("probe.py" in line for line in cause.evidence)


async def test_a_timeout_is_neither_a_failure_nor_a_cancel(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a", sleep="10s", options={"timeout": "100ms"}))
    assert (done.outcome, done["a"].outcome) == (Outcome.TIMED_OUT, Outcome.TIMED_OUT)


async def test_an_allowed_failure_is_met_and_keeps_the_run_green(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a", fail="no", options={"allow_failure": True}), probe("b", needs=["a"]))
    assert done.outcome is Outcome.SUCCEEDED
    assert done.outcomes() == {"a": "failed", "b": "succeeded"}


# -- retry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "on", "attempts", "outcome"),
    [
        ({"error": "gone", "fail_times": 2}, ("infra",), 3, Outcome.SUCCEEDED),
        ({"error": "gone"}, ("infra",), 3, Outcome.ERRORED),
        ({"fail": "no", "fail_times": 1}, ("infra",), 1, Outcome.FAILED),
        ({"fail": "no", "fail_times": 1}, ("infra", "user"), 2, Outcome.SUCCEEDED),
    ],
)
async def test_only_the_causes_that_retry_names_are_repeated(
    tmp_path: Path, fields: dict[str, str], on: tuple[str, ...], attempts: int, outcome: Outcome
) -> None:
    retry = {"times": 2, "on": on, "wait": "10ms"}
    done = await run(tmp_path, probe("a", options={"retry": retry}, **fields))
    assert (done["a"].attempt, done.outcome) == (attempts, outcome)


async def test_the_pause_between_attempts_doubles(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a", error="gone", options={"retry": {"times": 3, "wait": "10ms"}}))
    pauses = [record.event.delay for record in done.records if isinstance(record.event, events.StageRetrying)]
    assert pauses == [0.01, 0.02, 0.04]


async def test_a_slot_is_free_while_a_stage_waits_for_its_next_attempt(tmp_path: Path) -> None:
    waiting = shell("waiting", "exit 1", retry={"times": 1, "on": ["user"], "wait": "1s"})
    done = await run(tmp_path, waiting, shell("other", "true"), jobs=1)
    assert done["other"].finished < done["waiting"].finished


# -- cancel ----------------------------------------------------------------------------------------


async def test_a_cancel_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    async with started(tmp_path, shell("a", "sleep 30"), probe("b", needs=["a"])) as under_way:
        await until_started(under_way, "a")
        under_way.engine.cancel("SIGINT")
    assert under_way.outcome is Outcome.CANCELLED
    assert under_way.outcomes() == {"a": "cancelled", "b": "cancelled"}
    assert under_way.state.cancelled_by == "SIGINT"


async def test_fail_fast_cancels_siblings_and_the_run_is_red_for_the_failure(tmp_path: Path) -> None:
    before = time.monotonic()
    done = await run(tmp_path, probe("a", sleep="100ms", fail="no"), shell("b", "sleep 30"), fail_fast=True)
    assert done.outcome is Outcome.FAILED
    assert done.outcomes() == {"a": "failed", "b": "cancelled"}
    assert time.monotonic() - before < 10


async def test_fail_fast_of_a_stage_cancels_its_own_leaves_only(tmp_path: Path) -> None:
    fast = {"fail_fast": True}
    done = await run(
        tmp_path,
        probe("image[a]", sleep="50ms", fail="no", options=fast),
        probe("image[b]", sleep="20s", options=fast),
        probe("gate", sleep="300ms"),
        probe("image[c]", needs=["gate"], options=fast),
        probe("other", sleep="200ms"),
    )
    assert done.outcomes() == {
        "image[a]": "failed",
        "image[b]": "cancelled",
        "image[c]": "cancelled",
        "gate": "succeeded",
        "other": "succeeded",
    }


async def test_what_closes_others_runs_although_a_failure_or_a_cancel_stopped_the_rest(tmp_path: Path) -> None:
    ended = [need("a", word="ended"), need("b", word="ended")]
    closing = probe("close", needs=ended, options={"closes": True})
    leaves = [probe("a", sleep="100ms", fail="no"), probe("b", sleep="20s"), closing]
    done = await run(tmp_path / "failed", *leaves, fail_fast=True)
    assert done.outcomes() == {"a": "failed", "b": "cancelled", "close": "succeeded"}
    async with started(tmp_path / "cancelled", *leaves) as under_way:
        await until_started(under_way, "b")
        under_way.engine.cancel("SIGINT")
    assert under_way.outcomes() == {"a": "cancelled", "b": "cancelled", "close": "succeeded"}


async def test_after_a_cancel_what_closes_others_has_a_few_seconds_and_finally_its_time_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CLOSE_AFTER_CANCEL", 0.5)
    leaves = [
        probe("a", sleep="20s"),
        probe("close", needs=[need("a", word="ended")], sleep="30s", options={"closes": True}),
        probe("half", needs=[need("a", word="ended")], effects=1, effect_sleep="30s", options={"closes": True}),
    ]
    async with started(tmp_path, *leaves, finally_=[probe("last")]) as under_way:
        await until_started(under_way, "a")
        under_way.engine.cancel("SIGINT")
    assert under_way.outcomes() == {"a": "cancelled", "close": "cancelled", "half": "cancelled", "last": "succeeded"}
    assert any("nobody can say whether it took place" in warning for warning in under_way.state.warnings)


async def test_what_closes_nothing_is_not_begun_after_a_cancel(tmp_path: Path) -> None:
    leaves = [probe("a", sleep="20s"), probe("back", options={"closes": True})]
    async with started(tmp_path, *leaves, jobs=1) as under_way:
        under_way.engine.cancel("SIGINT")
    assert under_way.outcomes() == {"a": "cancelled", "back": "cancelled"}


async def test_a_failure_elsewhere_does_not_stop_what_closes_others(tmp_path: Path) -> None:
    closing = probe("close", sleep="400ms", options={"closes": True})
    done = await run(tmp_path, closing, probe("late", sleep="100ms", fail="no"), fail_fast=True)
    assert done.outcomes() == {"close": "succeeded", "late": "failed"}


async def test_fail_fast_does_not_cut_an_effect_in_half(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        probe("push", effects=1, effect_sleep="500ms"),
        probe("bad", sleep="100ms", fail="no"),
        fail_fast=True,
    )
    assert done.state.effects["push", "probe 1"].proof == {"number": 1, "attempt": 1}


async def test_a_cut_ends_even_an_effect_and_says_that_its_end_is_unknown(tmp_path: Path) -> None:
    async with started(tmp_path, probe("push", effects=1, effect_sleep="20s")) as under_way:
        await until_inside_an_effect(under_way, "push")
        under_way.engine.cancel("SIGINT")
        await anyio.sleep(0.1)
        assert not under_way.state.leaf("push").outcome
        under_way.engine.cut()
    assert under_way.state.effects["push", "probe 1"].proof is None
    assert "nobody can say whether it took place" in under_way.state.warnings[0]


async def test_a_leaf_that_was_about_to_start_when_another_failed_does_not_start(tmp_path: Path) -> None:
    done = await run(
        tmp_path, probe("a"), probe("b", fail="no"), probe("c", needs=["a"], sleep="300ms"), fail_fast=True
    )
    assert done["c"].outcome is Outcome.CANCELLED


async def test_a_cancel_while_an_intent_goes_to_disk_ends_the_effect_before_it_begins(tmp_path: Path) -> None:
    async with started(tmp_path, probe("push", effects=1, effect_sleep="20s", effect_file="made")) as under_way:
        while not under_way.state.effects:
            await anyio.sleep(0)
        under_way.engine.cancel("SIGINT")
    assert under_way.outcome is Outcome.CANCELLED
    assert not (under_way.workspace / "made").exists()


# -- effects ---------------------------------------------------------------------------------------


async def test_an_intent_is_journaled_before_the_effect_and_its_proof_after(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a", effects=1))
    kinds = [record.event.type for record in done.records]
    assert kinds.index("stage.started") < kinds.index("effect.intended") < kinds.index("effect.proven")


async def test_a_retry_finds_what_an_earlier_attempt_proved(tmp_path: Path) -> None:
    retry = {"retry": {"times": 1, "wait": "1ms"}}
    done = await run(tmp_path, probe("a", effects=2, effect_file="made", error="gone", fail_times=1, options=retry))
    assert (done.workspace / "made").read_text() == "a 1\na 2\n"


@pytest.mark.parametrize(("answer", "made"), [("done", ""), ("absent", "a 1\n"), ("unknown", "a 1\n")])
async def test_an_intent_without_proof_is_settled_before_the_next_attempt(
    tmp_path: Path, answer: str, made: str
) -> None:
    first = probe("a", effects=1, effect_file="made", settles=answer)
    async with started(tmp_path, first) as under_way:
        # what an engine that died in the middle of the effect left in the journal
        under_way.engine.journal.append(events.EffectIntended("a", 0, "probe 1", {"number": 1}))
    written = under_way.workspace / "made"
    assert (written.read_text() if written.exists() else "") == made


async def test_a_plan_can_hand_a_leaf_how_another_ended_and_why(tmp_path: Path) -> None:
    told = probe("told", needs=[need("a", word="ended")], log={"$": ["ended: ", {"ref": "stages.a.outcome"}]})
    told = told.model_copy(update={"references": {"stages.a.outcome": ("a", "outcome"), "end": ("a", "end")}})
    done = await run(tmp_path, probe("a", fail="no way"), told)
    assert done.log("told") == "ended: failed\n"
    assert done.engine._results.value(told, "end") == {"outcome": "failed", "kind": "user", "message": "no way"}


# -- values ----------------------------------------------------------------------------------------


async def test_variables_of_the_run_reach_a_process_and_those_of_secrets_do_not(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell("a", "env | sort"),
        environ={"PIPE_SECRET_TOKEN": "correct-horse", "PYTHONPATH": "/x", "FROM_HOST": "yes"},
        secrets={"token": {"kind": "text"}},
    )
    seen = dict(line.partition("=")[::2] for line in done.log("a").splitlines())
    assert seen["BUILD_NUMBER"] == "1"
    assert seen["PIPE_STAGE"] == "a"
    assert seen["FROM_HOST"] == "yes"
    assert not {"PIPE_SECRET_TOKEN", "PYTHONPATH"} & set(seen)


async def test_a_secret_is_given_to_the_stage_that_names_it_and_masked_everywhere(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell(
            "a",
            "echo $PASSWORD; echo $PASSWORD | base64; false",
            secrets={"PASSWORD": "registry.password"},
            secret_names=("registry",),
        ),
        secrets={"registry": {"kind": "login"}},
        environ={"PIPE_SECRET_REGISTRY_USERNAME": "robot", "PIPE_SECRET_REGISTRY_PASSWORD": "correct-horse-battery"},
    )
    written = b"".join(path.read_bytes() for path in done.folder.path.rglob("*") if path.is_file())
    assert b"correct-horse" not in written
    assert b"Y29ycmVjdC1ob3JzZS1iYXR0" not in written
    assert done.log("a").startswith("****\n")


async def test_outputs_of_a_script_are_read_and_a_missing_one_fails_it(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell("a", 'echo v1.2 > "$PIPE_OUTPUT/version"', outputs=("version",)),
        shell("b", "true", outputs=("version",)),
    )
    assert done["a"].outputs == {"version": "v1.2"}
    assert done["b"].cause is not None
    assert done["b"].cause.message == "the output 'version' was not written to $PIPE_OUTPUT/version"


async def test_an_output_that_holds_a_secret_fails_the_stage(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell(
            "a",
            'echo "x-$T" > "$PIPE_OUTPUT/leak"',
            outputs=("leak",),
            secrets={"T": "token"},
            secret_names=("token",),
        ),
        secrets={"token": {"kind": "text"}},
        environ={"PIPE_SECRET_TOKEN": "correct-horse"},
    )
    assert done.outcome is Outcome.FAILED


async def test_a_copied_workspace_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "file").write_text("before")
    done = await run(tmp_path, shell("a", "cat file; echo after > file", workspace="copy"))
    assert (done.log("a"), (done.workspace / "file").read_text()) == ("before", "before")


async def test_dir_is_where_a_stage_works_and_cannot_leave_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "workspace" / "sub").mkdir(parents=True)
    done = await run(tmp_path, shell("a", "basename $PWD", dir="sub"), shell("b", "true", dir="../.."))
    assert done.log("a") == "sub\n"
    assert done["b"].cause is not None
    assert "leads out of the workspace" in done["b"].cause.message


# -- finally ---------------------------------------------------------------------------------------


async def test_finally_runs_after_a_failure_and_its_own_failure_is_a_warning(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a"), finally_=[probe("mail", error="no server")])
    assert done.outcome is Outcome.SUCCEEDED
    assert done.state.warnings == ["mail: errored in finally: no server"]


async def test_finally_runs_after_a_cancel(tmp_path: Path) -> None:
    async with started(tmp_path, probe("a", sleep="20s"), finally_=[probe("mail")]) as under_way:
        await until_started(under_way, "a")
        under_way.engine.cancel("SIGTERM")
    assert under_way.outcomes() == {"a": "cancelled", "mail": "succeeded"}


async def test_a_condition_in_finally_reads_a_value_that_nobody_gave_as_empty(tmp_path: Path) -> None:
    notify = probe(
        "notify",
        options={"when": "stages.a.value == ''", "when_references": {"stages.a.value": ("a", "value")}},
    )
    done = await run(tmp_path, probe("a", fail="no"), finally_=[notify])
    assert done["notify"].outcome is Outcome.SUCCEEDED


async def test_finally_after_a_cancel_ends_within_its_time_even_inside_an_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.engine.FINALLY_AFTER_CANCEL", 0.5)
    mail = probe("mail", effects=1, effect_sleep="20s")
    async with started(tmp_path, probe("a", sleep="20s"), finally_=[mail]) as under_way:
        await until_started(under_way, "a")
        under_way.engine.cancel("SIGTERM")
    assert under_way["mail"].finished - under_way["a"].finished < 5


# -- trouble ---------------------------------------------------------------------------------------


async def test_an_output_of_a_kind_that_holds_a_secret_fails_instead_of_being_masked(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        probe("a", output="registry/admin/app:1", secret="token", options={"secret_names": ("token",)}),
        secrets={"token": {"kind": "text"}},
        environ={"PIPE_SECRET_TOKEN": "admin"},
    )
    assert done.outcome is Outcome.FAILED


async def test_a_place_that_cannot_be_written_is_the_hosts_trouble_and_takes_no_sibling_along(tmp_path: Path) -> None:
    async with started(
        tmp_path, probe("gate", sleep="300ms"), probe("a", log="hello", needs=["gate"]), probe("b")
    ) as under_way:
        await until_started(under_way, "gate")
        under_way.folder.log("a", 1).mkdir()
    assert under_way["a"].cause is not None
    assert (under_way["a"].cause.kind, under_way["b"].outcome) == (CauseKind.INFRA, Outcome.SUCCEEDED)


# -- the journal -----------------------------------------------------------------------------------


async def test_the_events_of_a_run_fold_to_the_state_it_ended_with(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("a", output="x"), probe("b", needs=["a"], fail="no"))
    again = fold(done.records)
    assert again.leaves == done.state.leaves
    assert again.outcome is Outcome.FAILED
    assert [record.seq for record in done.records] == list(range(1, len(done.records) + 1))
