"""What CI hosts show folded: one stage at a time, and no line of a stage that its host takes for an order."""

import io
import re
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.stage import Outcome
from runner import events
from runner.events import Event, Record
from runner.folder import RunFolder
from runner.sinks import plain
from runner.sinks.groups import Ungrouped, groups_for
from runner.sinks.plain import Plain
from runner.sinks.view import KeptLogs, RunView
from tests.runner.test_sinks import plan
from tests.support.program import PIPE, host, pipe

pytestmark = pytest.mark.slow

ORDERS = r"""name: demo
stages:
  one:
    run: |
      echo before; sleep 0.4
      echo '::set-output name=x::y'; echo '   ::add-path::/evil'; echo '##[set-env name=PATH]/evil'
      echo '::stop-commands::mine'; echo '::mine::'; echo '::pipe-0::'; echo '::endgroup::'
      printf 'x\r::warning::y\n\033[0Ksection_end:1:pipe_1\r\033[0K\n'
      printf '::error::no newline'
  two: {run: "sleep 0.2; echo '::group::mine'; echo '##[group]mine'; echo '##[error]mine'"}
  red: {needs: two, allow_failure: true, run: "echo '::notice::from the end'; exit 1"}
"""


def obeyed(text: str) -> list[str]:
    """The commands that a runner of GitHub carries out, as its ActionCommand and ActionCommandManager read them."""
    found: list[str] = []
    stopped = ""
    for line in text.splitlines():
        new = re.match(r"\s*::([^ :]+)(?: .*?)?::(.*)", line)
        old = re.search(r"##\[([^ \]]+)(?: [^\]]*)?\](.*)", line)
        command = new or old
        if command is None:
            continue
        name, data = command[1], command[2]
        if stopped:
            stopped = "" if name == stopped else stopped
        elif name == "stop-commands":
            stopped = data
        else:
            found.append(name)
    assert not stopped
    return found


def as_it_came(folder: Path, **variables: str) -> str:
    """The output with every carriage return in it."""
    argv = [str(PIPE), "run", "p.yaml"]
    return subprocess.run(argv, cwd=folder, env=host(**variables), capture_output=True, check=True).stdout.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(ORDERS)
    return tmp_path


@pytest.mark.parametrize("variable", ["GITHUB_ACTIONS", "GITEA_ACTIONS"])
def test_no_output_of_a_stage_is_an_order_to_a_runner_that_takes_them_from_the_log(folder: Path, variable: str) -> None:
    done = pipe(folder, "run", "p.yaml", env=host(CI="true", **{variable: "true"}))
    assert done.returncode == 0, done.stderr
    assert set(obeyed(done.stdout)) == {"group", "endgroup"}
    assert "[one] ::set-output name=x::y" in done.stdout


def test_the_words_that_end_a_stop_are_new_each_time(folder: Path) -> None:
    done = pipe(folder, "run", "p.yaml", env=host(GITHUB_ACTIONS="true"))
    words = re.findall(r"::stop-commands::(pipe-\w{32})$", done.stdout, re.MULTILINE)
    assert len(words) == len(set(words)) > 3


def test_groups_open_and_close_in_turn_and_hold_lines_of_their_stage_only(folder: Path) -> None:
    done = pipe(folder, "run", "p.yaml", env=host(GITHUB_ACTIONS="true"))
    within = ""
    for line in done.stdout.splitlines():
        if line.startswith("::group::"):
            assert not within
            within = line.removeprefix("::group::")
        elif line == "::endgroup::":
            assert within
            within = ""
        elif within and not line.startswith(("::stop-commands::pipe-", "::pipe-")):
            assert line.startswith(f"{within} ")
    for stage in ("one", "two", "red"):
        assert re.search(rf"^\[{stage}\] (succeeded|failed) in", done.stdout, re.MULTILINE)


def test_sections_of_gitlab_open_and_close_in_turn_and_no_stage_can_end_one(folder: Path) -> None:
    shown = as_it_came(folder, GITLAB_CI="true", CI="true")
    marks = re.findall(r"\x1b\[0Ksection_(start|end):\d+:(\w+)\r\x1b\[0K", shown)
    assert marks
    for (begin, one), (end, other) in zip(marks[::2], marks[1::2], strict=True):
        assert (begin, end, one) == ("start", "end", other)
    assert shown.count("\x1b") == 2 * len(marks)


def test_jenkins_and_others_get_whole_lines_as_they_come_without_any_marks(folder: Path) -> None:
    for variables in ({"JENKINS_URL": "http://ci"}, {"CI": "true"}):
        shown = as_it_came(folder, **variables)
        assert not re.search("\x1b|\r|^::|section_start", shown, re.MULTILINE)
        assert shown.index("[one] before") < shown.index("[two] ::group::mine") < shown.index("[one] ::set-output")


def test_a_title_cannot_end_its_command() -> None:
    assert "::group::100%25%0A::x::" in groups_for({"GITHUB_ACTIONS": "true"}).enter("100%\n::x::")


# -- signs of life ---------------------------------------------------------------------------------


class Silent:
    """A run of which nothing is heard, shown on a host that would give up."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
        monkeypatch.setattr(plain, "SILENCE", 0.0)
        self.out = io.StringIO()
        self.renderer = Plain(self.out, groups_for(variables))
        self.view = RunView(plan("a", "b"), KeptLogs(RunFolder(folder)))
        self.seq = 0

    def happens(self, event: Event) -> None:
        self.seq += 1
        record = Record(self.seq, time.time() - 180, event)
        self.view.state.apply(record)
        self.renderer.record(self.view, record)

    def said(self) -> str:
        self.out.seek(0)
        self.out.truncate()
        self.renderer.frame(time.time())
        return self.out.getvalue()


@pytest.mark.parametrize("variables", [{}, {"GITHUB_ACTIONS": "true"}])
def test_every_stage_that_is_silent_for_a_minute_says_that_it_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    run = Silent(tmp_path, monkeypatch, variables)
    for name in ("a", "b"):
        run.happens(events.StageStarted(name, 1))
    run.happens(events.StageProgressed("b", "pushing", None))
    said = run.said()
    assert "[a] running for 3m 00s\n" in said
    assert "[b] running for 3m 00s: pushing\n" in said


def test_a_run_that_waits_for_another_one_says_so_every_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Silent(tmp_path, monkeypatch, {})
    run.happens(
        events.RunStarted(
            id="01X", number=7, pipeline="demo", host="jenkins", pid=1, trigger="push", version="1", folder=""
        )
    )
    run.happens(events.RunQueued("prod", "demo#6"))
    assert run.said() == "demo#7 for 3m 00s: waits for demo#6\n"
    run.happens(events.RunFinished(Outcome.CANCELLED))
    assert run.said() == ""


def test_without_groups_nothing_is_added() -> None:
    groups = Ungrouped()
    assert (groups.enter("a"), groups.leave(), groups.close()) == ("", "", "")
