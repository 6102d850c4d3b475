"""The program as a user starts it: exit codes, signals, and nobody left behind, whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.ownership import Ownership
from runner.state import fold
from tests.support.program import PIPE, pipe
from tests.support.program import host as environment
from tests.support.wait import until

pytestmark = pytest.mark.slow

DEADLINE = 20.0

ESCAPING = "setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300' &) ; touch started; sleep 300"


def write(folder: Path, text: str) -> Path:
    file = folder / "pipeline.yaml"
    file.write_text(text)
    return file


def script(text: str) -> str:
    return f"name: demo\nstages:\n  one:\n    run: |\n      {text}\n"


def of_run(folder: Path) -> list[int]:
    """Processes that stand in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == folder and "sleep" in (entry / "comm").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def outcome(folder: Path) -> str:
    last = (folder / ".pipe/demo/1/events.1.jsonl").read_bytes().splitlines()[-1]
    return str(json.loads(last)["outcome"])


# -- exit codes ------------------------------------------------------------------------------------


def test_green_is_0_and_red_is_1(tmp_path: Path) -> None:
    write(tmp_path, script("true"))
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0
    write(tmp_path, script("false"))
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 1


@pytest.mark.parametrize(
    "words",
    [["run", "missing.yaml"], ["run"], ["run", "pipeline.yaml", "nobody"], ["rum"], ["run", "--jobs", "0", "x"]],
)
def test_a_wrong_call_is_2_and_starts_nothing(tmp_path: Path, words: list[str]) -> None:
    write(tmp_path, script("touch ran"))
    done = pipe(tmp_path, *words)
    assert (done.returncode, (tmp_path / "ran").exists(), (tmp_path / ".pipe").exists()) == (2, False, False)
    assert "Traceback" not in done.stderr


def test_a_bug_of_ours_is_3_and_says_so(tmp_path: Path) -> None:
    code = "import runner.cli as c; c.pipe.main = lambda **_: 1 / 0; raise SystemExit(c.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "BUG in pipe" in done.stderr


def test_a_missing_secret_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    write(
        tmp_path,
        "name: demo\nsecrets: {token: text}\nstages:\n"
        "  one: {run: touch ran}\n"
        "  two: {run: 'true', secrets: {T: token}}\n",
    )
    done = pipe(tmp_path, "run", "pipeline.yaml")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for part in ("'token'", "PIPE_SECRET_TOKEN", "secrets.env", "wanted by two"):
        assert part in done.stderr
    assert not (tmp_path / "ran").exists()


def test_secrets_env_is_read_and_refused_when_others_can_read_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "name: demo\nsecrets: {token: text}\nstages:\n  one: {run: 'test \"$T\" = correct-horse', secrets: {T: token}}\n",
    )
    (tmp_path / ".pipe").mkdir()
    file = tmp_path / ".pipe" / "secrets.env"
    file.write_text("PIPE_SECRET_TOKEN=correct-horse\n")
    file.chmod(0o644)
    assert "may be read by others" in pipe(tmp_path, "run", "pipeline.yaml").stderr
    file.chmod(0o600)
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0


def test_a_line_of_secrets_env_that_could_be_misread_is_refused_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nsecrets: {token: text}\nstages:\n  one: {run: 'true', secrets: {T: token}}\n")
    (tmp_path / ".pipe").mkdir()
    file = tmp_path / ".pipe" / "secrets.env"
    file.touch(mode=0o600)
    file.write_text("# comment\nPIPE_SECRET_TOKEN='ab cd' # c\n")
    assert (
        "secrets.env:2: the value of PIPE_SECRET_TOKEN begins with a quote"
        in pipe(tmp_path, "run", "pipeline.yaml").stderr
    )
    file.write_text("export PIPE_SECRET_TOKEN='ab cd'\n")
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0


def test_a_file_with_one_line_is_masked_whole(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nsecrets: {kc: file}\nstages:\n  one: {run: cat $K, secrets: {K: kc}}\n")
    (tmp_path / "token").write_text("MyDatabasePassword!\n")
    done = pipe(tmp_path, "run", "pipeline.yaml", env=environment(PIPE_SECRET_KC_FILE=str(tmp_path / "token")))
    assert "MyDatabase" not in done.stdout
    assert "[one] ****" in done.stdout


def test_secrets_that_are_no_utf_8_are_handed_over_and_masked_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"pass\xe4word\n")
    write(tmp_path, SECRETS_OF_BYTES)
    given = os.fsdecode(b"p\xe4ssw\xf6rt")
    env = environment(PIPE_SECRET_TOKEN=given, PIPE_SECRET_KEY_FILE=str(tmp_path / "key"))
    done = subprocess.run([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert (done.returncode, b"[a] 8 **** ****\n" in done.stdout) == (0, True), done


SECRETS_OF_BYTES = """name: demo
secrets: {token: text, key: file}
stages:
  a: {secrets: {T: token, K: key}, run: 'echo "$(printf %s "$T" | wc -c) $T $(cat $K)"'}
"""


# -- numbers ---------------------------------------------------------------------------------------


def test_each_run_gets_the_next_number_and_the_host_may_give_its_own(tmp_path: Path) -> None:
    write(tmp_path, script("echo number $BUILD_NUMBER"))
    assert "number 1" in pipe(tmp_path, "run", "pipeline.yaml").stdout
    assert "number 2" in pipe(tmp_path, "run", "pipeline.yaml").stdout
    jenkins = environment(JENKINS_URL="http://ci", BUILD_NUMBER="77")
    assert "number 77" in pipe(tmp_path, "run", "pipeline.yaml", env=jenkins).stdout


def test_ten_runs_at_once_get_ten_numbers(tmp_path: Path) -> None:
    write(tmp_path, script("true"))
    runs = [
        subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=-3) for _ in range(10)
    ]
    assert [run.wait(DEADLINE) for run in runs] == [0] * 10
    assert sorted(int(path.name) for path in (tmp_path / ".pipe/demo").iterdir()) == list(range(1, 11))


def test_several_pipelines_of_a_file_run_side_by_side_and_the_worst_decides(tmp_path: Path) -> None:
    write(tmp_path, "pipelines:\n  good: {stages: {a: {run: 'true'}}}\n  bad: {stages: {a: {run: 'false'}}}\n")
    done = pipe(tmp_path, "run", "pipeline.yaml")
    assert done.returncode == 1
    assert "[good/a] succeeded" in done.stdout
    assert "[bad/a] failed" in done.stdout
    assert pipe(tmp_path, "run", "pipeline.yaml", "good").returncode == 0


# -- signals and deaths ----------------------------------------------------------------------------


def start(folder: Path) -> subprocess.Popen[bytes]:
    write(folder, script(ESCAPING))
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml", "-o", "plain"], cwd=folder, env=environment(), stdout=-3)
    until((folder / "started").exists)
    return run


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGQUIT, 143)]
)
def test_a_signal_ends_everything_of_the_run_within_ten_seconds(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = start(tmp_path)
    run.send_signal(number)
    assert run.wait(10) == code
    assert (of_run(tmp_path), outcome(tmp_path)) == ([], "cancelled")


def test_a_second_signal_does_not_make_it_worse(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == 143
    assert (of_run(tmp_path), outcome(tmp_path)) == ([], "cancelled")


def test_kill_9_of_the_engine_leaves_no_process(tmp_path: Path) -> None:
    run = start(tmp_path)
    engine = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
    os.kill(int(engine), signal.SIGKILL)
    assert run.wait(10) == 1
    assert of_run(tmp_path) == []


def test_kill_9_of_the_guardian_stops_the_run_so_that_it_can_be_resumed(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.kill()
    run.wait(10)
    until(lambda: not of_run(tmp_path))
    until(lambda: "demo#1  died" in pipe(tmp_path, "runs").stdout)
    assert b"run.finished" not in (tmp_path / ".pipe/demo/1/events.1.jsonl").read_bytes()


def test_what_engine_and_guardian_left_when_both_were_killed_the_next_command_ends(tmp_path: Path) -> None:
    run = start(tmp_path)
    engine = int(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])
    for pid in (run.pid, engine):
        os.kill(pid, signal.SIGKILL)
    run.wait(10)
    assert of_run(tmp_path)
    write(tmp_path, script("true"))
    done = pipe(tmp_path, "run", "pipeline.yaml")
    assert "the engine of demo#1 died, and" in done.stderr
    assert "`pipe resume 'demo#1'` goes on with it" in done.stderr
    assert of_run(tmp_path) == []


def test_a_stage_that_ignores_every_cancel_is_left_behind_and_that_is_written_down(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nstages:\n  one: {uses: probe, with: {log: up, sleep: 5m, ignore_cancel: 5m}}\n")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml", "-o", "plain"], cwd=tmp_path, env=environment(), stdout=-3)
    until((tmp_path / ".pipe/demo/1/logs/one.1.log").exists)
    run.send_signal(signal.SIGTERM)
    assert run.wait(15) == 143
    assert b"did not stop in time" in (tmp_path / ".pipe/demo/1/events.1.jsonl").read_bytes()


def test_no_file_with_a_secret_outlives_kill_9_of_the_engine(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("correct-horse-battery-staple")
    (tmp_path / "pipeline.yaml").write_text(
        "name: demo\nsecrets: {key: file}\nstages:\n  one: {secrets: {KEY: key}, run: 'echo $KEY > where; sleep 300'}\n"
    )
    env = environment(PIPE_SECRET_KEY_FILE=str(key))
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml", "-o", "plain"], cwd=tmp_path, env=env, stdout=-3)
    until(lambda: (tmp_path / "where").exists() and (tmp_path / "where").read_text().strip())
    copy = Path((tmp_path / "where").read_text().strip())
    assert copy.stat().st_mode & 0o777 == 0o600
    engine = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
    os.kill(int(engine), signal.SIGKILL)
    run.wait(10)
    assert not copy.exists()


def end_of(folder: Path, pipeline: str) -> str:
    return str(fold(RunFolder(folder / ".pipe" / pipeline / "1").records()).outcome or "")


BESIDE = """pipelines:
  quick: {stages: {one: {run: "echo done"}}}
  slow: {stages: {one: {run: "touch started; sleep 300"}}}
"""


def test_a_signal_after_one_of_two_pipelines_has_ended_ends_the_other(tmp_path: Path) -> None:
    write(tmp_path, BESIDE)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=-3, stderr=-1)
    until(lambda: end_of(tmp_path, "quick") and (tmp_path / "started").exists())
    run.send_signal(signal.SIGINT)
    assert (run.communicate(timeout=DEADLINE)[1], run.returncode) == (b"", 130)
    assert (end_of(tmp_path, "quick"), end_of(tmp_path, "slow")) == ("succeeded", "cancelled")


def test_a_signal_after_one_of_two_pipelines_was_taken_over_ends_the_other_in_order(tmp_path: Path) -> None:
    text = """pipelines:
  taken: {stages: {one: {run: "touch $JOB_NAME; sleep 300"}}}
  mine: {stages: {one: {run: "touch $JOB_NAME; sleep 300"}}, finally: {last: {run: "touch last"}}}
"""
    write(tmp_path, text)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=-3, stderr=-1)
    until(lambda: (tmp_path / "taken").exists() and (tmp_path / "mine").exists())
    (tmp_path / ".pipe/taken/1/owner.2").write_text("{}")
    time.sleep(0.2)  # the engine that lost its run has noticed, or has not: both must do
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=DEADLINE)[1]
    assert (run.returncode, b"BUG" in said, b"has taken over the run" in said) == (130, False, True)
    assert (end_of(tmp_path, "mine"), end_of(tmp_path, "taken"), (tmp_path / "last").exists()) == (
        "cancelled",
        "",
        True,
    )


STUCK = """pipelines:
  free: {stages: {one: {run: "until test -e go; do sleep 0.05; done"}}}
  stuck: {stages: {one: {uses: probe, with: {log: up, sleep: 5m, ignore_cancel: 5m}}}}
"""


def test_a_stuck_pipeline_that_an_order_cancelled_holds_up_no_other_one(tmp_path: Path) -> None:
    write(tmp_path, STUCK)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=-3, stderr=-3)
    until((tmp_path / ".pipe/stuck/1/logs/one.1.log").exists)
    pipe(tmp_path, "cancel", "stuck")
    until(lambda: end_of(tmp_path, "stuck"))
    assert run.poll() is None
    (tmp_path / "go").touch()
    assert run.wait(DEADLINE) == 1
    assert (end_of(tmp_path, "free"), end_of(tmp_path, "stuck")) == ("succeeded", "cancelled")


def test_a_signal_before_anything_has_started_ends_quietly(tmp_path: Path) -> None:
    write(tmp_path, script("sleep 300"))
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=-3, stderr=-1)
    until(lambda: Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text())
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=15)
    assert run.returncode == 130
    assert b"Traceback" not in said


def test_a_spoiled_journal_does_not_stop_the_next_run(tmp_path: Path) -> None:
    write(tmp_path, script("true"))
    pipe(tmp_path, "run", "pipeline.yaml")
    with (tmp_path / ".pipe/demo/1/events.1.jsonl").open("a") as journal:
        journal.write('{"v":1,"se{"v":1}\n')
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0


# -- output ----------------------------------------------------------------------------------------


def test_json_output_is_the_journal(tmp_path: Path) -> None:
    write(tmp_path, script("true"))
    lines = [json.loads(line) for line in pipe(tmp_path, "run", "pipeline.yaml", "-o", "json").stdout.splitlines()]
    journal = [json.loads(line) for line in (tmp_path / ".pipe/demo/1/events.1.jsonl").read_text().splitlines()]
    assert [{**line, "run": "demo#1"} for line in journal] == lines


def test_plain_output_holds_whole_lines_and_no_cursor_codes(tmp_path: Path) -> None:
    write(tmp_path, script(r"printf 'a\033[2Jb\033]0;title\007c\n'; printf 'no newline'"))
    shown = pipe(tmp_path, "run", "pipeline.yaml").stdout
    assert "\x1b" not in shown
    assert "[one] abc\n[one] no newline\n" in shown


def test_a_failed_stage_shows_its_last_lines_again_at_the_end(tmp_path: Path) -> None:
    write(tmp_path, script("echo the reason; exit 3"))
    shown = pipe(tmp_path, "run", "pipeline.yaml").stdout
    assert shown.count("the reason") == 2
    assert shown.index("---- one failed: the script ended with exit code 3") < shown.rindex("the reason")


def test_a_reader_that_goes_away_does_not_hold_up_the_run(tmp_path: Path) -> None:
    write(tmp_path, script("seq 200000; touch done"))
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.wait(DEADLINE) == 0
    assert (tmp_path / "done").exists()


def test_only_the_newest_five_workspaces_are_kept_and_never_a_running_one_is_removed(tmp_path: Path) -> None:
    write(tmp_path, script("true"))
    for number in range(1, 8):
        (tmp_path / ".pipe/demo" / str(number) / "work").mkdir(parents=True)
    Ownership(tmp_path / ".pipe/demo/1").claim()
    pipe(tmp_path, "run", "pipeline.yaml")
    kept = sorted(int(path.parent.name) for path in (tmp_path / ".pipe/demo").glob("*/work"))
    assert kept == [1, 4, 5, 6, 7]


# -- --source --------------------------------------------------------------------------------------

CHECKOUT = "  checkout: {uses: checkout, with: {url: 'https://git.invalid/x.git', ref: master}}\n"


def test_source_builds_a_copy_of_the_working_tree_instead_of_the_checkout(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("from the working tree")
    write(tmp_path, f"name: demo\nstages:\n{CHECKOUT}  one: {{needs: checkout, run: cat file}}\n")
    done = pipe(tmp_path, "run", "pipeline.yaml", "--source", "tree")
    assert "[one] from the working tree" in done.stdout
    assert (tree / "file").exists()


def test_source_does_not_deploy_unless_that_is_said(tmp_path: Path) -> None:
    deploy = "  deploy: {needs: checkout, uses: deploy, with: {manifests: ['*.yml'], namespace: x}}\n"
    write(tmp_path, f"name: demo\nstages:\n{CHECKOUT}{deploy}")
    done = pipe(tmp_path, "run", "pipeline.yaml", "--source", ".")
    assert (done.returncode, (tmp_path / ".pipe" / "demo").exists()) == (2, False)
    assert "--allow-dirty" in done.stderr


def test_a_source_that_is_not_there_takes_no_number(tmp_path: Path) -> None:
    write(tmp_path, f"name: demo\nstages:\n{CHECKOUT}")
    done = pipe(tmp_path, "run", "pipeline.yaml", "--source", "/nope")
    assert (done.returncode, (tmp_path / ".pipe").exists()) == (2, False)


def test_source_stands_for_one_checkout_only(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nstages:\n  one: {run: 'true'}\n")
    done = pipe(tmp_path, "run", "pipeline.yaml", "--source", ".")
    assert done.returncode == 2
    assert "--source stands for one checkout, and demo has 0" in done.stderr
