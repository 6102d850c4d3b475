"""Runs that survive: whatever dies, `pipe resume` reaches one end, and what had ended is not done again."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.cgroups import named
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.ownership import Owner, Ownership, Taken
from runner.state import RunState, fold
from tests.support.control_groups import control_groups
from tests.support.program import PIPE, host, pipe
from tests.support.strike import strike
from tests.support.wait import until

pytestmark = pytest.mark.slow

LEDGER = """name: demo
stages:
  a: {run: echo a >> ledger}
  b: {needs: a, run: "echo b; echo b >> ledger; touch b.started; test -e go || sleep 60"}
  c: {needs: b, run: echo c >> ledger}
  d: {run: echo d >> ledger}
finally:
  z: {run: echo z >> ledger}
"""


def engine_of(run: "subprocess.Popen[bytes]") -> int:
    return int(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])


def killed(folder: Path, text: str, when: Callable[[], object], *words: str) -> None:
    """Start a run and kill its engine at some moment."""
    (folder / "pipeline.yaml").write_text(text)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml", *words], cwd=folder, env=host(), stdout=-3, stderr=-3)
    until(when)
    os.kill(engine_of(run), signal.SIGKILL)
    assert run.wait(20) == 1


def ledger(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().split()


def state(folder: Path, number: int = 1) -> RunState:
    return fold(RunFolder(folder / ".pipe" / "demo" / str(number)).records())


def events(folder: Path, epoch: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f".pipe/demo/1/events.{epoch}.jsonl").read_text().splitlines()]


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A folder with a run whose engine was killed while `b` was running."""
    killed(tmp_path, LEDGER, lambda: (tmp_path / "b.started").exists() and "d" in ledger(tmp_path))
    (tmp_path / "go").touch()
    return tmp_path


def test_a_resume_repeats_what_was_running_and_nothing_that_had_ended(dead: Path) -> None:
    done = pipe(dead, "resume", "-o", "plain")
    assert done.returncode == 0, done.stderr
    assert sorted(ledger(dead)) == ["a", "b", "b", "c", "d", "z"]
    assert "[b] attempt 1 is lost: the engine died while it was running" in done.stdout
    leaves = state(dead).leaves
    assert {name: leaf.attempt for name, leaf in leaves.items()} == {"a": 1, "b": 2, "c": 1, "d": 1, "z": 1}
    assert (dead / ".pipe/demo/1/logs/b.1.log").exists()


def test_run_with_resume_goes_on_where_there_is_something_to_go_on_with(dead: Path) -> None:
    assert pipe(dead, "run", "pipeline.yaml", "--resume").returncode == 0
    assert sorted(ledger(dead)) == ["a", "b", "b", "c", "d", "z"]
    assert pipe(dead, "run", "pipeline.yaml", "--resume").returncode == 0
    assert (dead / ".pipe/demo/2").exists()


def test_the_plan_of_the_run_holds_and_a_changed_file_is_told(dead: Path) -> None:
    (dead / "pipeline.yaml").write_text(LEDGER.replace("echo c", "echo changed"))
    done = pipe(dead, "resume")
    assert "has changed since" in done.stderr
    assert ledger(dead)[-2:] == ["c", "z"]


def test_what_has_ended_is_not_resumed_and_what_has_not_is_not_rerun(dead: Path) -> None:
    assert "has no end yet: `pipe resume 'demo#1'`" in pipe(dead, "rerun", "demo#1").stderr
    assert pipe(dead, "resume", "demo#1").returncode == 0
    assert "`pipe rerun 'demo#1'`" in pipe(dead, "resume", "demo#1").stderr
    assert "there is nothing to resume" in pipe(dead, "resume").stderr


def test_a_second_engine_is_refused_with_the_holders_pid_and_host(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(LEDGER)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3)
    until((tmp_path / "b.started").exists)
    done = pipe(tmp_path, "resume", "demo#1")
    assert done.returncode == 2
    assert f"demo#1 is being run by process {engine_of(run)} on {os.uname().nodename}" in done.stderr
    run.terminate()
    assert run.wait(20) == 143


def test_an_engine_that_lost_its_epoch_writes_and_does_nothing_more(tmp_path: Path) -> None:
    text = (
        "name: demo\nstages:\n  a: {run: touch a.started; test -e go || sleep 2}\n  b: {needs: a, run: touch b.ran}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3, stderr=-1, text=True)
    until((tmp_path / "a.started").exists)
    folder = RunFolder(tmp_path / ".pipe/demo/1")
    before = folder.events(1).read_text()
    # as an engine of another machine would after this one had been silent for too long
    Path(folder.ownership._file(2)).write_text(
        json.dumps({"pid": 1, "started": "1", "host": "elsewhere", "place": "x"})
    )
    _, said = run.communicate(timeout=20)
    assert run.returncode == 1
    assert "process 1 on elsewhere has taken over the run" in said
    assert folder.events(1).read_text() == before
    assert not (tmp_path / "b.ran").exists()


def test_what_a_lost_engine_wrote_after_it_was_taken_over_is_no_record(dead: Path) -> None:
    assert pipe(dead, "resume").returncode == 0
    journal = RunFolder(dead / ".pipe/demo/1").events(1)
    late = events(dead, 1)[-1] | {"seq": events(dead, 1)[-1]["seq"] + 1, "type": "run.warned", "message": "late"}
    with journal.open("a") as file:
        file.write(json.dumps(late) + "\n")
    assert state(dead).warnings == []


def test_an_engine_elsewhere_is_dead_when_it_has_been_silent_for_15_seconds(tmp_path: Path) -> None:
    folder = Ownership(tmp_path)
    assert folder.claim() == 1
    file = Path(folder._file(1))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"place": "another machine"}))
    with pytest.raises(Taken):
        folder.claim()
    long_ago = time.time() - 16
    os.utime(file, (long_ago, long_ago))
    assert folder.claim() == 2


def test_of_two_that_take_a_dead_run_one_gets_it(tmp_path: Path) -> None:
    folder = Ownership(tmp_path)
    Path(folder._file(1)).write_text(json.dumps({"pid": 1, "started": "0", "host": "h", "place": "x"}))
    os.utime(folder._file(1), (0, 0))
    takers = 20
    (reading, writing), (waiting, letting_go) = os.pipe(), os.pipe()
    for _ in range(takers):
        if os.fork() == 0:
            os.close(letting_go)
            try:
                folder.claim()
                os.write(writing, b"1")
            except Taken:
                os.write(writing, b"0")
            os.read(waiting, 1)  # a taker that is gone could be followed by another
            os._exit(0)
    answers = b""
    while len(answers) < takers:
        answers += os.read(reading, takers)
    os.close(letting_go)
    for _ in range(takers):
        os.wait()
    assert answers.count(b"1") == 1


def test_an_owner_who_died_before_he_signed_holds_nobody_up(tmp_path: Path) -> None:
    folder = Ownership(tmp_path)
    Path(folder._file(1)).touch()
    with pytest.raises(Taken):
        folder.claim()
    os.utime(folder._file(1), (0, 0))
    assert folder.claim() == 2


def test_an_owner_of_an_earlier_boot_is_dead_only_by_its_silence() -> None:
    owner = Owner(1, os.getpid(), "0", "h", "another boot", heard=time.time())
    assert owner.alive()
    assert not Owner(1, os.getpid(), "0", "h", "another boot", heard=time.time() - 60).alive()


def test_a_secret_of_a_run_that_goes_on_is_no_variable_of_a_new_one(tmp_path: Path) -> None:
    text = (
        "pipelines:\n  one:\n    secrets: {tok: {kind: text, env: MYTOK}}\n"
        "    stages: {a: {run: 'touch a.started; test -e go || sleep 20', secrets: {T: tok}}}\n"
        "  two: {stages: {b: {run: 'echo begun; env | grep MYTOK || true'}}}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    env = host(MYTOK="correct-horse")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml", "one"], cwd=tmp_path, env=env, stdout=-3, stderr=-3)
    until((tmp_path / "a.started").exists)
    os.kill(engine_of(run), signal.SIGKILL)
    run.wait(20)
    (tmp_path / "go").touch()
    assert pipe(tmp_path, "run", "pipeline.yaml", "--resume", env=env).returncode == 0
    assert (tmp_path / ".pipe/two/1/logs/b.1.log").read_text() == "begun\n"


def test_fail_fast_is_not_forgotten_by_a_resume(tmp_path: Path) -> None:
    text = (
        "name: demo\nstages:\n  bad: {run: 'sleep 0.5; exit 1'}\n"
        "  slow: {uses: probe, with: {effects: 1, effect_sleep: 5s, settles: absent}}\n"
        "  deploy: {needs: slow, run: touch deployed}\n"
    )

    def failed() -> bool:
        journal = RunFolder(tmp_path / ".pipe/demo/1").events(1)
        return journal.exists() and b'"stage.finished","stage":"bad"' in journal.read_bytes()

    killed(tmp_path, text, failed, "--fail-fast")
    assert pipe(tmp_path, "resume").returncode == 1
    assert not (tmp_path / "deployed").exists()
    assert str(state(tmp_path).leaves["slow"].outcome) == "cancelled"


def test_a_spoiled_journal_of_another_run_is_no_hindrance(dead: Path) -> None:
    other = dead / ".pipe/other/1"
    other.mkdir(parents=True)
    (other / "plan.json").write_text((dead / ".pipe/demo/1/plan.json").read_text())
    (other / "events.1.jsonl").write_text("{bad\n")
    assert pipe(dead, "resume").returncode == 0


# -- rerun -----------------------------------------------------------------------------------------


def red(folder: Path) -> None:
    text = (
        "name: demo\nstages:\n  a: {run: echo a >> ledger}\n  b: {run: 'echo b >> ledger; test -e mended'}\n"
        "  c: {needs: [a, b], run: echo c >> ledger}\n  d: {needs: a, run: echo d >> ledger}\n"
    )
    (folder / "pipeline.yaml").write_text(text)
    assert pipe(folder, "run", "pipeline.yaml").returncode == 1
    assert sorted(ledger(folder)) == ["a", "b", "d"]
    (folder / "mended").touch()
    (folder / "ledger").unlink()


def test_a_rerun_of_what_failed_runs_that_and_what_needs_it(tmp_path: Path) -> None:
    red(tmp_path)
    done = pipe(tmp_path, "rerun", "demo#1", "--failed", "-o", "plain")
    assert done.returncode == 0, done.stderr
    assert ledger(tmp_path) == ["b", "c"]
    assert "[b] runs again: it was failed" in done.stdout
    leaves = state(tmp_path).leaves
    assert {name: (leaf.attempt, str(leaf.outcome)) for name, leaf in leaves.items()} == {
        "a": (1, "succeeded"),
        "b": (2, "succeeded"),
        "c": (1, "succeeded"),
        "d": (1, "succeeded"),
    }
    assert not (tmp_path / ".pipe/demo/2").exists()


def test_a_rerun_from_a_stage_leaves_the_others_alone(tmp_path: Path) -> None:
    red(tmp_path)
    assert pipe(tmp_path, "rerun", "1", "--from", "d").returncode == 1
    assert ledger(tmp_path) == ["d"]
    assert pipe(tmp_path, "rerun", "1").returncode == 0
    assert sorted(ledger(tmp_path)[1:]) == ["a", "b", "c", "d"]
    wrong = pipe(tmp_path, "rerun", "1", "--from", "dd")
    assert (wrong.returncode, "did you mean 'd'?" in wrong.stderr) == (2, True)
    assert "nothing in demo#1 failed" in pipe(tmp_path, "rerun", "1", "--failed").stderr


def test_one_leaf_of_a_fan_out_can_be_run_again(tmp_path: Path) -> None:
    text = (
        "name: demo\nstages:\n  image: {each: [x, y], env: {N: '${each.name}'}, run: echo image-$N >> ledger}\n"
        "  push: {needs: image, each: [x, y], env: {N: '${each.name}'}, run: echo push-$N >> ledger}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0
    (tmp_path / "ledger").unlink()
    assert pipe(tmp_path, "rerun", "demo#1", "--from", "image[x]").returncode == 0
    assert ledger(tmp_path) == ["image-x", "push-x"]


def test_a_run_folder_that_was_copied_elsewhere_can_be_rerun_there(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    red(here)
    subprocess.run(["cp", "-r", here / ".pipe/demo/1", there / "run"], check=True)
    subprocess.run(["rm", "-r", here], check=True)
    (there / "mended").touch()
    done = pipe(there, "rerun", "./run", "--failed")
    assert done.returncode == 0, done.stderr
    assert ledger(there) == ["b", "c"]


def test_a_rerun_has_the_pipelines_time_anew_and_heeds_no_order_for_what_had_ended(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("name: demo\ntimeout: 1s\nstages: {a: {run: 'true'}}\n")
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0
    Orders(tmp_path / ".pipe/demo/1").give(Cancel("somebody late"))
    time.sleep(1.1)
    done = pipe(tmp_path, "rerun", "demo#1")
    assert done.returncode == 0, done.stdout


# -- what is used again must be there --------------------------------------------------------------


def repository(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        (source / "file").write_text("one")
        subprocess.run(["git", *words], cwd=source, check=True)
    return source


def test_a_checkout_that_is_gone_is_made_again_with_all_that_needs_it(tmp_path: Path) -> None:
    source = repository(tmp_path)
    text = (
        f"name: demo\nstages:\n  get: {{uses: checkout, with: {{url: 'file://{source}'}}}}\n"
        f"  use: {{needs: get, run: 'cat file >> {tmp_path}/ledger'}}\n"
        f"  other: {{run: 'echo other >> {tmp_path}/ledger'}}\n"
        f"  last: {{needs: use, run: 'test -e {tmp_path}/mended'}}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 1
    (tmp_path / "mended").touch()
    subprocess.run(["rm", "-rf", tmp_path / ".pipe/demo/1/work"], check=True)
    done = pipe(tmp_path, "rerun", "1", "--failed", "-o", "plain")
    assert done.returncode == 0, done.stdout
    assert "[get] runs again: the checkout in . is gone from the workspace" in done.stdout
    assert (tmp_path / "ledger").read_text().count("one") == 2
    assert (tmp_path / "ledger").read_text().count("other") == 1


def test_a_dead_run_can_be_ended_without_going_on(dead: Path) -> None:
    done = pipe(dead, "cancel", "demo#1")
    assert done.returncode == 0, done.stderr
    assert sorted(ledger(dead)) == ["a", "b", "d", "z"]
    ends = {name: leaf.outcome for name, leaf in state(dead).leaves.items()}
    assert (ends["a"], ends["b"], ends["c"], ends["z"]) == ("succeeded", "cancelled", "cancelled", "succeeded")
    assert (state(dead).outcome, state(dead).cancelled_by.partition(" on ")[1]) == ("cancelled", " on ")
    assert pipe(dead, "resume", "demo#1").returncode == 2


SECRET = """name: demo
secrets: {kc: file, other: text}
stages:
  a: {run: "touch started; test -e go || sleep 60", secrets: {KC: kc}, workspace: copy}
  b: {needs: a, run: "true", secrets: {O: other}}
"""


def test_what_engine_and_guardian_left_on_disk_the_next_command_removes(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        SECRET.replace("touch started", f"touch {tmp_path}/started").replace("-e go", f"-e {tmp_path}/go")
    )
    (tmp_path / "kc").write_text("token: verysecretvalue123")
    env = host(PIPE_SECRET_KC_FILE=str(tmp_path / "kc"), PIPE_SECRET_OTHER="another-secret")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=env, stdout=-3, stderr=-3)
    until((tmp_path / "started").exists)
    private = Path(state(tmp_path).begun.private)
    strike(run, "both")
    run.wait(20)
    assert (list(private.glob("*/secret-kc")), list((tmp_path / ".pipe/demo/1/copies").iterdir())) != ([], [])
    (tmp_path / "go").touch()
    assert pipe(tmp_path, "resume", env=env).returncode == 0
    assert not private.exists()
    assert not list((tmp_path / ".pipe/demo/1/copies").glob("*"))


def test_a_dead_run_is_ended_without_the_secrets_of_stages_that_will_not_run(tmp_path: Path) -> None:
    text = SECRET.replace("touch started", f"touch {tmp_path}/started").replace("-e go", f"-e {tmp_path}/go")
    (tmp_path / "pipeline.yaml").write_text(text + "finally: {z: {run: 'echo z > z'}}\n")
    (tmp_path / "kc").write_text("x" * 20)
    env = host(PIPE_SECRET_KC_FILE=str(tmp_path / "kc"), PIPE_SECRET_OTHER="another-secret")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=env, stdout=-3, stderr=-3)
    until((tmp_path / "started").exists)
    strike(run, "engine")
    run.wait(20)
    done = pipe(tmp_path, "cancel", "demo#1")
    assert (done.returncode, (tmp_path / "z").exists()) == (0, True), done.stderr


def test_when_the_workspace_is_gone_what_worked_in_it_runs_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=source, check=True)
    text = f"""name: demo
stages:
  co: {{uses: checkout, with: {{url: "{source}", into: src}}}}
  gen: {{run: "mkdir g; echo x > g/gen.txt"}}
  other: {{run: echo other}}
  use: {{needs: [co, gen], run: "cat g/gen.txt; exit 1"}}
"""
    (tmp_path / "pipeline.yaml").write_text(text)
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 1
    shutil.rmtree(tmp_path / ".pipe/demo/1/work")
    done = pipe(tmp_path, "rerun", "demo#1", "--failed", "-o", "plain")
    assert "[use] x\n" in done.stdout
    attempts = {name: leaf.attempt for name, leaf in state(tmp_path).leaves.items()}
    assert attempts == {"co": 2, "gen": 2, "other": 1, "use": 2}


def test_run_with_resume_keeps_what_the_run_began_with(tmp_path: Path) -> None:
    killed(tmp_path, LEDGER, (tmp_path / "b.started").exists, "--durability", "strict", "--fail-fast", "-j", "3")
    (tmp_path / "go").touch()
    assert pipe(tmp_path, "run", "pipeline.yaml", "--resume").returncode == 0
    begun = state(tmp_path).begun
    assert (begun.strict, begun.fail_fast, begun.jobs) == (True, True, 3)


def test_the_control_group_of_an_attempt_that_died_with_its_engine_is_removed(tmp_path: Path) -> None:
    text = "name: demo\nstages: {a: {run: touch started; test -e go || sleep 60, resources: {memory: 64Mi}}}\n"
    killed(tmp_path, text, (tmp_path / "started").exists)
    name = named(state(tmp_path).id, "a", 1)
    if not (left := control_groups(name)):
        pytest.skip("this host lets us make no control group")
    (tmp_path / "go").touch()
    assert pipe(tmp_path, "resume").returncode == 0
    assert not any(group.exists() for group in left)
