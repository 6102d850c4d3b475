"""A `sh` step of Jenkins, aborted: within twelve seconds 143, cancelled and not failed, and nobody is left."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.state import RunState, fold
from tests.support.jenkins import SOFT_KILL, Step, sweep
from tests.support.program import PIPE
from tests.support.wait import until

pytestmark = pytest.mark.slow

WITHIN = 12.0
"""Seconds that an abort may take; Jenkins gives up after 20."""


def step(workspace: Path, text: str, *words: str, **variables: str) -> Step:
    """A step that runs this pipeline in its workspace."""
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "pipeline.yaml").write_text(text)
    return Step(workspace, " ".join([f"'{PIPE}' run pipeline.yaml", *words]), **variables)


def one(script: str) -> str:
    return f"name: demo\nstages:\n  one:\n    run: |\n      {script}\n"


def state(workspace: Path) -> RunState:
    return fold(RunFolder(workspace / ".pipe/demo/12").records())


def below(workspace: Path) -> list[int]:
    """Every process that stands in the workspace, with Jenkins' cookie or without."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == workspace and (entry / "stat").read_text().rpartition(")")[2][
                    1
                ] != "Z":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def gone(workspace: Path) -> None:
    """Jenkins' own `touch` loop ends by itself, three seconds after the result."""
    until(lambda: not [pid for pid in below(workspace) if not touching(pid)], 2)


def touching(pid: int) -> bool:
    """Whether a process is the wrapper's own."""
    try:
        return b"JENKINS_SERVER_COOKIE=please-do-not-kill-me" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True


def words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_step_gives_the_exit_code_and_the_log_to_jenkins(tmp_path: Path) -> None:
    green = step(tmp_path / "green", one("echo hello"))
    assert (green.wait(), "[one] hello\n" in green.log, "demo#12 started" in green.log) == (0, True, True)
    red = step(tmp_path / "red", one("exit 5"))
    assert (red.wait(), "exit code 5" in red.log) == (1, True)


@pytest.mark.parametrize(
    "script",
    [
        "touch started; sleep 300",
        "touch started; sleep 300 || exit 4",
        "touch started; setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300' &) ; sleep 300",
        "trap 'exit 0' TERM; touch started; while :; do sleep 0.1; done",
    ],
    ids=["plain", "a script that makes an error of it", "processes that left their session", "one that ends green"],
)
def test_what_an_abort_ends_is_cancelled_and_not_failed(tmp_path: Path, script: str) -> None:
    running = step(tmp_path / "ws", one(script))
    until((tmp_path / "ws/started").exists)
    aborted = running.abort()
    assert aborted.code == 143
    assert aborted.seconds < WITHIN
    found = state(tmp_path / "ws")
    assert (found.outcome, found.leaves["one"].outcome) == ("cancelled", "cancelled")
    assert "■ demo#12" in running.log
    gone(tmp_path / "ws")


def test_a_stage_that_ignores_the_sweep_does_not_keep_the_abort_from_us(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", one("trap '' TERM; touch started; while :; do sleep 300; done"))
    until((tmp_path / "ws/started").exists)
    aborted = running.abort()
    assert (aborted.code, aborted.seconds < WITHIN, state(tmp_path / "ws").outcome) == (143, True, "cancelled")
    gone(tmp_path / "ws")


def test_a_sweep_that_ends_the_stage_before_it_comes_to_us_has_cancelled_it(tmp_path: Path) -> None:
    """As when pids wrap around, or a whole control group gets the signal at once."""
    running = step(tmp_path / "ws", one("echo $$ > pid; mv pid started; sleep 300 || exit 4"))
    until((tmp_path / "ws/started").exists)
    sweep_its_children = ["pkill", "-TERM", "-P", (tmp_path / "ws/started").read_text().strip()]
    # Its shell may not have started the sleep yet.
    until(lambda: subprocess.run(sweep_its_children, check=False).returncode == 0)
    assert (running.abort().code, state(tmp_path / "ws").leaves["one"].outcome) == (143, "cancelled")


def test_a_stage_that_fails_by_itself_is_still_failed(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", one("kill -TERM $$"))
    assert (running.wait(), state(tmp_path / "ws").leaves["one"].outcome) == (1, "failed")


def test_finally_runs_after_an_abort(tmp_path: Path) -> None:
    last = "finally:\n  last: {env: {HOW: '${run.outcome}'}, run: 'echo $HOW > last'}\n"
    running = step(tmp_path / "ws", one("touch started; sleep 300") + last)
    until((tmp_path / "ws/started").exists)
    assert running.abort().code == 143
    assert (tmp_path / "ws/last").read_text() == "cancelled\n"


EFFECT = "name: demo\nstages:\n  one: {uses: probe, with: {effects: 1, effect_sleep: 6s, effect_file: made}}\n"


def test_an_abort_waits_for_a_change_to_the_outside_that_has_begun(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", EFFECT)
    until(lambda: b"effect.intended" in journal(tmp_path / "ws"))
    aborted = running.abort()
    assert (aborted.code, aborted.seconds < WITHIN) == (143, True)
    assert b"effect.proven" in journal(tmp_path / "ws")


def test_a_second_abort_ends_at_once_and_the_journal_says_what_is_unknown(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", EFFECT.replace("6s", "1m"))
    until(lambda: b"effect.intended" in journal(tmp_path / "ws"))
    began = time.monotonic()
    first = threading.Thread(target=sweep, args=(running.cookie, SOFT_KILL), daemon=True)
    first.start()
    until(lambda: state(tmp_path / "ws").cancelled_by)
    time.sleep(0.3)  # the first one is at the engine by now, or will be: both must do
    assert running.abort().code == 143
    assert time.monotonic() - began < 5  # and not the eight that the effect would have had
    assert any("nobody can say whether it took place" in warning for warning in state(tmp_path / "ws").warnings)
    gone(tmp_path / "ws")


def journal(workspace: Path) -> bytes:
    file = workspace / ".pipe/demo/12/events.1.jsonl"
    return file.read_bytes() if file.exists() else b""


def test_stages_do_not_carry_the_cookie_by_which_jenkins_would_find_them_first(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", one("env"))
    running.wait()
    assert "JENKINS_SERVER_COOKIE" not in running.log
    assert "[one] JENKINS_NODE_COOKIE=0d7c2a4e" in running.log


def test_kill_9_of_the_guardian_leaves_nobody_who_waits_for_jenkins(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", one("touch started; sleep 300"))
    until((tmp_path / "ws/started").exists)
    guardian = next(pid for pid in sorted(running.processes) if b"run\0pipeline.yaml" in words(pid))
    os.kill(guardian, signal.SIGKILL)
    until(lambda: not running.processes)
    gone(tmp_path / "ws")


def test_who_begins_is_ended_by_a_signal_of_its_own_before_it_listens(tmp_path: Path) -> None:
    running = step(tmp_path / "ws", one("sleep 300"))
    until(lambda: len(guardian_and_children(running)) == 3)
    engine = guardian_and_children(running)[-1]
    os.kill(engine, signal.SIGTERM)
    assert running.wait(12) == 143
    first, *_ = map(json.loads, journal(tmp_path / "ws").splitlines())
    assert (first["type"], state(tmp_path / "ws").outcome) == ("run.started", "cancelled")
    gone(tmp_path / "ws")


def guardian_and_children(running: Step) -> list[int]:
    """The guardian of a step, its canary and its engine, as Jenkins would come to the last two."""
    runs = [pid for pid in running.processes if b"run\0pipeline.yaml" in words(pid)]
    children = {pid: Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in runs}
    guardian = max(runs, key=lambda pid: len(children[pid]), default=0)
    return [guardian, *sorted(map(int, children.get(guardian, ())), key=bucket)]


def bucket(pid: int) -> int:
    return (pid ^ pid >> 16) & 15


FORKS = """
import os
from runner.guardian import guard

def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def work(guardian):
    others = ()
    while len(others) != 1:  # who has no role is just ending
        children = open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()
        others = [pid for pid in children if int(pid) != os.getpid() and lives(pid)]
    print(*others, os.getpid(), flush=True)
    os._exit(0)

for _ in range(100):
    if os.fork() == 0:
        guard(work)
    os.wait()
"""


def test_a_sweep_comes_to_the_canary_before_the_engine_whatever_their_pids_are_and_however_many_processes_there_are(
    tmp_path: Path,
) -> None:
    argv = [str(PIPE.parent / "python"), "-c", FORKS]
    env = {"JENKINS_SERVER_COOKIE": "c", "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        argv, cwd=Path(__file__).parents[2], env=env, check=True, capture_output=True, text=True, timeout=60
    )
    seen = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(seen) == 100
    for canary, engine in seen:
        for buckets in (16 << shift for shift in range(18)):
            first, second = ((pid ^ pid >> 16) & (buckets - 1) for pid in (canary, engine))
            assert first < second, (canary, engine, buckets)


# -- many, at any moment ---------------------------------------------------------------------------

ALL_SORTS = """name: demo
stages:
  quick: {run: "sleep 0.2"}
  plain: {run: "touch started; sleep 300"}
  stubborn: {run: "trap '' TERM; while :; do sleep 1; done"}
  escaping: {run: "setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300' &) ; sleep 300"}
  excusing: {run: "sleep 300 || exit 4"}
  effect: {needs: quick, uses: probe, with: {effects: 9, effect_sleep: 300ms}}
  after: {needs: quick, run: "sleep 300"}
finally:
  last: {run: "true"}
"""


def abort_at_random(folder: Path, seed: int) -> None:
    """One run of everything, aborted somewhere in its first two seconds."""
    chance = random.Random(seed)  # noqa: S311 - a seed, not a secret
    running = step(folder, ALL_SORTS, "--jobs", "9")
    time.sleep(chance.uniform(0.05, 2.0))
    aborted = running.abort()
    assert aborted.code == 143, f"seed {seed}: {aborted}\n{running.log}"
    assert aborted.seconds < WITHIN, f"seed {seed}: {aborted}"
    if (folder / ".pipe/demo/12/plan.json").exists():
        ended = state(folder)
        bad = {leaf.name: leaf.outcome for leaf in ended.leaves.values() if leaf.outcome in ("failed", "errored")}
        assert (ended.outcome, bad) in [("cancelled", {}), (None, {})], f"seed {seed}: {bad}\n{running.log}"
        assert ended.outcome or not ended.id, f"seed {seed}: it began and has no end\n{running.log}"
    gone(folder)


@pytest.mark.parametrize("seed", range(5))
def test_an_abort_at_any_moment_ends_cancelled_and_leaves_nobody(tmp_path: Path, seed: int) -> None:
    abort_at_random(tmp_path / "a job@2", seed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_fifty_aborts_at_any_moment_end_cancelled_and_leave_nobody(tmp_path: Path) -> None:
    for seed in range(100, 150):
        abort_at_random(tmp_path / f"job@{seed}", seed)
