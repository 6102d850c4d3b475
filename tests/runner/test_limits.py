"""What ends an attempt or a run besides itself: silence, the run's own time, its retries, memory."""

from pathlib import Path

import anyio
import pytest

from pipeline.plan import Limits
from pipeline.stage import CauseKind, Outcome
from runner import attempt
from runner.cgroups import Group, NoGroup, named
from runner.control import Control
from tests.support.control_groups import control_groups
from tests.support.runs import leaf, probe, run, shell

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


# -- silence ---------------------------------------------------------------------------------------


async def test_a_stage_that_is_silent_for_too_long_is_ended_and_says_so(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", "echo here; sleep 20", silence="300ms"))
    cause = done["s"].cause
    assert cause is not None
    assert (done["s"].outcome, cause.kind) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
    assert cause.message == "no output for 0.3 s, its limit of silence"


async def test_a_stage_that_speaks_now_and_then_is_left_alone(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", "for i in 1 2 3 4 5 6 7 8; do sleep 0.5; echo $i; done", silence="3s"))
    assert done["s"].outcome is Outcome.SUCCEEDED


async def test_a_silent_effect_is_finished_first(tmp_path: Path) -> None:
    done = await run(tmp_path, probe("s", effects=2, effect_sleep="600ms", options={"silence": "200ms"}))
    assert done["s"].outcome is Outcome.TIMED_OUT
    proofs = [effect.proof is not None for effect in done.state.effects.values()]
    assert proofs == [True]


async def test_a_time_out_by_silence_is_worth_another_attempt_when_the_file_says_so(tmp_path: Path) -> None:
    retry = {"times": 1, "on": ["timeout"], "wait": "0s"}
    done = await run(tmp_path, shell("s", '[ "$PIPE_ATTEMPT" = 2 ] || sleep 20', silence="300ms", retry=retry))
    assert (done["s"].outcome, done["s"].attempt) == (Outcome.SUCCEEDED, 2)


async def test_an_effect_of_the_attempt_after_a_silent_one_has_its_time(tmp_path: Path) -> None:
    script = '[ "$PIPE_ATTEMPT" = 2 ] || sleep 20'
    retry = {"times": 1, "on": ["timeout"], "wait": "0s"}
    control = Control()
    async with anyio.create_task_group():
        with control.attempt(60):
            control.expire("silent")
        with control.attempt(60), control.effect() as scope:
            assert scope.deadline > anyio.current_time() + 30
    done = await run(tmp_path, shell("s", script, silence="300ms", retry=retry))
    assert done["s"].outcome is Outcome.SUCCEEDED


# -- the run's own time ----------------------------------------------------------------------------


async def test_what_is_not_done_in_the_runs_time_is_timed_out_and_finally_follows(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        shell("s", "sleep 20"),
        probe("t", needs=["s"]),
        probe("done"),
        finally_=[probe("mail")],
        timeout="3s",
    )
    assert done.outcome is Outcome.TIMED_OUT
    assert done.outcomes() == {"s": "timed-out", "t": "skipped", "done": "succeeded", "mail": "succeeded"}
    cause = done["s"].cause
    assert cause is not None
    assert cause.message == "the run was not done after 3 s, the pipeline's timeout"


# -- retries ---------------------------------------------------------------------------------------


async def test_a_run_makes_no_more_further_attempts_than_it_has_leaves_or_ten(tmp_path: Path) -> None:
    retry = {"times": 20, "wait": "0s"}
    done = await run(tmp_path, probe("s", error="down", options={"retry": retry}))
    cause = done["s"].cause
    assert cause is not None
    assert (done["s"].attempt, cause.kind) == (11, CauseKind.INFRA)
    assert cause.message == "down (no further attempt: 10 in this run were enough)"


# -- memory ----------------------------------------------------------------------------------------

GREEDY = "head -c 300M /dev/zero | tail -c 300M > copy; test -s copy"


@pytest.fixture
def groups() -> None:
    try:
        Group("pipe-test-of-the-host", Limits(memory=64 << 20)).close()
    except NoGroup as reason:
        pytest.skip(f"this host lets us make no control groups: {reason}")


@pytest.mark.usefixtures("groups")
async def test_a_stage_that_goes_over_its_memory_says_out_of_memory(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", GREEDY, resources={"memory": 64 << 20}))
    cause = done["s"].cause
    assert cause is not None, done.log("s")
    assert (done["s"].outcome, cause.kind) == (Outcome.FAILED, CauseKind.CONFIG)
    assert "out of memory" in cause.message
    assert "exit code" in cause.evidence[0]


@pytest.mark.usefixtures("groups")
async def test_a_stage_that_does_not_notice_the_kill_is_warned_about(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", f"({GREEDY}) || true", resources={"memory": 64 << 20}))
    assert done["s"].outcome is Outcome.SUCCEEDED
    assert done.state.warnings == ["s: the kernel killed a process of it that went over the limit in `resources:`"]


@pytest.mark.usefixtures("groups")
async def test_a_stage_is_in_a_group_of_its_own_which_is_gone_afterwards(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", "cat /proc/self/cgroup", resources={"memory": 64 << 20}))
    name = named(done.state.id, "s", 1)
    assert f"/{name}\n" in done.log("s")
    assert not control_groups(name)


@pytest.mark.usefixtures("groups")
async def test_a_stage_within_its_limits_does_not_notice_them(tmp_path: Path) -> None:
    done = await run(tmp_path, shell("s", "echo fine", resources={"memory": 64 << 20, "cpu": 0.5}))
    assert (done["s"].outcome, done.log("s")) == (Outcome.SUCCEEDED, "fine\n")


@pytest.mark.usefixtures("groups")
async def test_a_program_that_is_not_there_is_told_as_without_limits(tmp_path: Path) -> None:
    nowhere = leaf("s", "shell", {"argv": ["no-such-program"]}, resources={"memory": 64 << 20})
    done = await run(tmp_path, nowhere)
    cause = done["s"].cause
    assert cause is not None
    assert "there is no program 'no-such-program'" in cause.message


async def test_where_the_host_has_no_control_groups_that_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Group:
        raise NoGroup("/sys/fs/cgroup/pipe-1: Read-only file system")

    monkeypatch.setattr(attempt, "Group", refuse)
    done = await run(tmp_path, shell("s", "echo fine", resources={"memory": 64 << 20}))
    assert done["s"].outcome is Outcome.SUCCEEDED
    assert done.state.warnings == [
        "s: `resources:` cannot be held to here: /sys/fs/cgroup/pipe-1: Read-only file system"
    ]
