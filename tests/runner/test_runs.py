"""Looking at runs from outside: `pipe runs`, `show`, `logs`, `diff` and `cancel`."""

import json
import os
import pty
import signal
import subprocess
import time
import tty
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.program import PIPE, host, pipe
from tests.support.strike import strike
from tests.support.wait import until

pytestmark = pytest.mark.slow

TEXT = """name: demo
params: {word: {default: hello}}
stages:
  say: {run: "echo $W > $PIPE_OUTPUT/said; echo saying $W", env: {W: "${params.word}"}, outputs: said}
  bad: {needs: say, run: "echo oh no; exit 3", when: params.word != 'hello'}
  after: {needs: bad, run: "true"}
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a green run and a red one."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "pipeline.yaml").write_text(TEXT)
    assert pipe(folder, "run", "pipeline.yaml").returncode == 0
    assert pipe(folder, "run", "pipeline.yaml", "-p", "word=bye").returncode == 1
    return folder


@pytest.fixture
def running(tmp_path: Path) -> "subprocess.Popen[bytes]":
    (tmp_path / "pipeline.yaml").write_text("name: demo\nstages: {s: {run: echo begun; touch started; sleep 60}}\n")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3, stderr=-3)
    until((tmp_path / "started").exists)
    return run


# -- runs ------------------------------------------------------------------------------------------


def test_runs_are_listed_with_how_they_are_and_why(two: Path) -> None:
    red, green = pipe(two, "runs").stdout.splitlines()
    assert red.startswith("demo#2  failed")
    assert red.endswith("bad: the script ended with exit code 3")
    assert green.startswith("demo#1  succeeded")
    assert [json.loads(line)["status"] for line in pipe(two, "runs", "--json").stdout.splitlines()] == [
        "failed",
        "succeeded",
    ]
    assert len(pipe(two, "runs", "-n", "1").stdout.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("--json",), ("demo",)])
def test_that_there_are_no_runs_yet_is_told_and_no_mistake(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = pipe(tmp_path, "runs", *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"there are no runs in {tmp_path}/.pipe yet; `pipe run` starts one\n"


def test_a_pipeline_that_never_ran_where_others_did_is_a_mistake(two: Path) -> None:
    done = pipe(two, "runs", "dmo")
    assert (done.returncode, f"there are no runs of dmo in {two}/.pipe; did you mean 'demo'?" in done.stderr) == (
        2,
        True,
    )


def test_a_run_whose_engine_died_is_shown_so_at_once(tmp_path: Path, running: "subprocess.Popen[bytes]") -> None:
    assert "demo#1  running" in pipe(tmp_path, "runs").stdout
    os.kill(int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0]), signal.SIGKILL)
    running.wait(20)
    line = pipe(tmp_path, "runs").stdout
    assert line.startswith("demo#1  died")
    assert "`pipe resume 'demo#1'` goes on with it" in line
    assert "died" in pipe(tmp_path, "show").stdout


def test_a_run_of_an_engine_elsewhere_that_is_silent_is_not_heard(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("name: demo\nstages: {s: {run: 'true'}}\n")
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0
    folder = tmp_path / ".pipe/demo/1"
    journal = folder / "events.1.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    owner = folder / "owner.1"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"place": "elsewhere", "host": "far"}))
    assert "demo#1  running" in pipe(tmp_path, "runs").stdout
    before = time.time() - 20
    os.utime(owner, (before, before))
    assert "not heard for 2" in pipe(tmp_path, "runs").stdout


# -- show ------------------------------------------------------------------------------------------


def test_show_says_why_each_leaf_is_not_green_and_what_took_longest(two: Path) -> None:
    shown = pipe(two, "show", "demo#2").stdout
    assert "✖ bad" in shown
    assert "↷ after" in shown
    assert "needs bad: bad failed" in shown
    assert "word = bye" in shown
    assert "critical path" in shown
    assert "say" in shown.partition("critical path")[2]
    assert json.loads(pipe(two, "show", "demo#2", "--json").stdout)["leaves"]["bad"]["outcome"] == "failed"


def test_a_run_that_is_not_there_names_those_that_are(two: Path) -> None:
    done = pipe(two, "show", "demo#9")
    assert done.returncode == 2
    assert "there is no run 'demo#9'" in done.stderr
    assert "the newest are demo#2, demo#1" in done.stderr


# -- logs ------------------------------------------------------------------------------------------


def test_a_log_is_printed_byte_for_byte_and_a_runs_logs_behind_their_leaves(two: Path) -> None:
    assert pipe(two, "logs", "demo#2", "bad").stdout == "oh no\n"
    assert "[say] saying bye\n" in pipe(two, "logs", "2").stdout
    wrong = pipe(two, "logs", "2", "bed")
    assert (wrong.returncode, "did you mean 'bad'?" in wrong.stderr) == (2, True)
    assert "bad has no attempt 4; it had 1 so far" in pipe(two, "logs", "2", "bad", "--attempt", "4").stderr
    assert "after has no log: skipped: needs bad: bad failed" in pipe(two, "logs", "2", "after").stderr


def test_an_attempt_that_wrote_nothing_has_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text('name: demo\nstages: {quiet: {run: "true"}}\n')
    assert pipe(tmp_path, "run", "pipeline.yaml").returncode == 0
    done = pipe(tmp_path, "logs", "1", "quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list((tmp_path / ".pipe/demo/1/logs").iterdir())


def test_following_a_leaf_that_waits_shows_it_once_it_starts(tmp_path: Path) -> None:
    text = "name: demo\nstages: {s: {run: until test -e go; do sleep 0.05; done}, late: {needs: s, run: echo late}}\n"
    (tmp_path / "pipeline.yaml").write_text(text)
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3, stderr=-3)
    until((tmp_path / ".pipe/demo/1/plan.json").exists)
    follow = subprocess.Popen([PIPE, "logs", "1", "late", "-f"], cwd=tmp_path, env=host(), stdout=-1, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        follow.wait(1)
    (tmp_path / "go").touch()
    assert run.wait(20) == 0
    assert (follow.communicate(timeout=20)[0], follow.returncode) == ("late\n", 0)


def test_following_a_leaf_shows_its_further_attempts(tmp_path: Path) -> None:
    command = "echo $PIPE_ATTEMPT; until [ -e followed ]; do sleep 0.1; done; exit 1"
    leaf = f"{{run: '{command}', retry: {{times: 1, on: user, wait: 500ms}}}}"
    (tmp_path / "pipeline.yaml").write_text(f"name: demo\nstages: {{s: {leaf}}}\n")
    run = subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=tmp_path, env=host(), stdout=-3, stderr=-3)
    until((tmp_path / ".pipe/demo/1/plan.json").exists)
    follow = subprocess.Popen([PIPE, "logs", "1", "s", "-f"], cwd=tmp_path, env=host(), stdout=-1, text=True)
    assert follow.stdout is not None
    assert follow.stdout.readline() == "1\n"
    (tmp_path / "followed").touch()
    assert (run.wait(20), follow.communicate(timeout=20)[0], follow.returncode) == (1, "2\n", 0)


def test_the_death_of_an_engine_is_told_to_who_follows(tmp_path: Path, running: "subprocess.Popen[bytes]") -> None:
    follow = subprocess.Popen([PIPE, "logs", "1", "s", "-f"], cwd=tmp_path, env=host(), stdout=-1, stderr=-1, text=True)
    assert follow.stdout is not None
    assert follow.stdout.readline() == "begun\n"
    strike(running, "engine")
    assert running.wait(20) == 1
    assert "the engine of the run died; s has no end" in follow.communicate(timeout=20)[1]


def test_following_a_log_ends_with_the_run(tmp_path: Path, running: "subprocess.Popen[bytes]") -> None:
    whole = subprocess.Popen([PIPE, "logs", "demo#1", "-f"], cwd=tmp_path, env=host(), stdout=-1, text=True)
    one = subprocess.Popen([PIPE, "logs", "demo#1", "s", "-f"], cwd=tmp_path, env=host(), stdout=-1, text=True)
    assert one.stdout is not None
    assert one.stdout.readline() == "begun\n"
    running.terminate()
    assert running.wait(20) == 143
    assert "[s] cancelled" in whole.communicate(timeout=20)[0]
    one.communicate(timeout=20)
    assert (whole.returncode, one.returncode) == (0, 0)


# -- diff ------------------------------------------------------------------------------------------


def test_diff_names_parameters_outputs_and_ends_that_differ(two: Path) -> None:
    shown = pipe(two, "diff", "1", "2").stdout
    assert "param word: hello → bye" in shown
    assert "output say.said: hello → bye" in shown
    assert "outcome bad: skipped → failed" in shown
    assert "do not differ" in pipe(two, "diff", "1", "1").stdout


# -- cancel ----------------------------------------------------------------------------------------


def test_a_run_can_be_cancelled_from_another_terminal(tmp_path: Path, running: "subprocess.Popen[bytes]") -> None:
    done = pipe(tmp_path, "cancel")
    assert (done.returncode, done.stdout) == (0, "demo#1: asked to end\ndemo#1: cancelled\n")
    assert running.wait(20) == 1
    again = pipe(tmp_path, "cancel", "demo#1")
    assert (again.returncode, "demo#1 is not running: cancelled" in again.stderr) == (2, True)
    assert "nothing is running" in pipe(tmp_path, "cancel").stderr


ATTACK = (
    b"a\x1b]0;title\x07b\x1b[2J\x1b]52;c;eHg=\x07c\x1b]8;;javascript:x\x1b\\d\x1b[31me"
    + "\u202ef\x9b".encode()
    + b"1mg\nold\rnew\n"
)


def on_terminal(folder: Path, *words: str) -> bytes:
    """What a command writes to a terminal."""
    reader, writer = pty.openpty()
    tty.setraw(writer)
    with subprocess.Popen([PIPE, *words], cwd=folder, env=host(TERM="xterm"), stdout=writer) as running:
        os.close(writer)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while block := os.read(reader, 65536):
                shown += block
        os.close(reader)
        assert running.wait(20) == 0
    return shown


def test_a_log_cannot_drive_the_terminal_of_its_reader_unless_he_wants_every_byte(tmp_path: Path) -> None:
    (tmp_path / "attack").write_bytes(ATTACK)
    (tmp_path / "a.yaml").write_text("name: a\nstages: {a: {run: cat attack}}\n")
    assert pipe(tmp_path, "run", "a.yaml").returncode == 0
    log = (tmp_path / ".pipe/a/1/logs/a.1.log").read_bytes()
    assert log == ATTACK
    assert on_terminal(tmp_path, "logs", "1", "a") == b"abcdef1mg\nnew\n"
    assert on_terminal(tmp_path, "logs", "1", "a", "--raw") == log
    raw = subprocess.run([PIPE, "logs", "1", "a"], cwd=tmp_path, env=host(), capture_output=True, check=True)
    assert raw.stdout == log
