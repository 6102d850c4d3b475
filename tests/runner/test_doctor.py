"""`pipe doctor`: the one cause of a run that failed, on one screen and as JSON."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import pipe

pytestmark = pytest.mark.slow

TEXT = """name: demo
params: {fail: {type: bool, default: true}}
stages:
  compile: {run: "echo compiling; echo; echo; echo 'src/a.c:3: error: expected ;' >&2; exit 2", when: params.fail}
  image: {needs: compile, each: [a, b, c, d, e], run: "true"}
  push:
    needs: {compile: ended}
    uses: probe
    with: {fail: "the registry denies it", cause: config, evidence: [denied by r, HTTP 403]}
    when: params.fail
  close: {needs: {push: ended}, run: "exit 1", when: params.fail}
  may: {run: "exit 4", allow_failure: true}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a red run and a green one after it."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "pipeline.yaml").write_text(TEXT)
    assert pipe(folder, "run", "pipeline.yaml").returncode == 1
    assert pipe(folder, "run", "pipeline.yaml", "-p", "fail=false").returncode == 0
    return folder


def shown(folder: Path, *words: str) -> str:
    done = pipe(folder, "doctor", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(folder: Path, *words: str) -> Any:
    return json.loads(shown(folder, *words, "--json"))["run"]


def test_the_newest_run_that_failed_is_told_cause_first_and_then_all_that_belongs_to_it(runs: Path) -> None:
    text = shown(runs)
    order = [
        "demo#1 failed after",
        "✖ compile failed: the script ended with exit code 2",
        "the end of its log",
        "src/a.c:3: error: expected ;",
        "what to do",
        "because of it",
        "image[a], image[b], image[c] and 2 more  skipped: needs compile: compile failed",
        "all of it: pipe show 'demo#1'",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert len(text.splitlines()) < 40
    assert text.count("src/a.c:3") == 1
    assert "may" not in text.split()


def test_json_is_one_object_with_the_same(runs: Path) -> None:
    run = found(runs, "demo#1")
    assert run["cause"]["leaf"] == "compile"
    assert run["log"] == ["compiling", "src/a.c:3: error: expected ;"]
    assert "pipe logs 'demo#1' 'compile'" in run["what_to_do"]
    assert [each["leaf"] for each in run["because_of_it"] if each["outcome"] == "skipped"] == [
        f"image[{key}]" for key in "abcde"
    ]


def test_what_failed_after_the_first_because_it_waited_for_it_is_no_cause_of_its_own(runs: Path) -> None:
    run = found(runs, "1")
    assert {each["leaf"] for each in run["because_of_it"]} >= {"push", "close"}
    assert run["others"] == []


def test_evidence_is_shown_and_what_it_says_does_not_come_twice(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: demo\nstages:\n  s:\n    uses: probe\n"
        "    with: {fail: denied, cause: config, evidence: [HTTP 403, go away], log: HTTP 403}\n"
    )
    assert pipe(tmp_path, "run", "p.yaml").returncode == 1
    run = found(tmp_path)
    assert run["evidence"] == ["HTTP 403", "go away"]
    assert "HTTP 403" not in run["log"]
    assert run["cause"]["kind"] == "config"
    assert "correct what the message names" in run["what_to_do"]


def test_a_run_without_a_fault_says_so(runs: Path) -> None:
    assert "nothing in it failed" in shown(runs, "demo#2")
    assert found(runs, "demo#2")["cause"] is None


def test_with_no_run_at_all_it_says_how_to_make_one(tmp_path: Path) -> None:
    assert "There are no runs in" in shown(tmp_path)
    assert "`pipe run FILE` makes one" in shown(tmp_path)
    assert json.loads(shown(tmp_path, "--json")) == {"place": str(tmp_path / ".pipe"), "run": None}
    done = pipe(tmp_path, "doctor", "demo#9")
    assert (done.returncode, "there is no run 'demo#9'" in done.stderr) == (2, True)


def test_with_green_runs_alone_it_says_that_none_failed(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: demo\nstages: {s: {run: 'true'}}\n")
    assert pipe(tmp_path, "run", "p.yaml").returncode == 0
    assert "failed. demo#1 is succeeded." in shown(tmp_path)


def test_a_run_that_was_cut_off_says_how_to_go_on(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / ".pipe/demo/2", tmp_path / ".pipe/demo/2")
    journal = tmp_path / ".pipe/demo/2/events.1.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    assert "`pipe resume 'demo#2'` goes on with it" in shown(tmp_path)


def test_the_cause_of_a_run_is_the_same_in_its_line_and_here(runs: Path) -> None:
    line = next(line for line in pipe(runs, "runs").stdout.splitlines() if line.startswith("demo#1"))
    assert line.endswith("compile: the script ended with exit code 2")


def test_a_log_cannot_move_the_cursor(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: demo\nstages: {s: {run: \"printf 'a\\\\033[2Jb\\\\n'; exit 1\"}}\n")
    assert pipe(tmp_path, "run", "p.yaml").returncode == 1
    assert "\x1b" not in shown(tmp_path)
