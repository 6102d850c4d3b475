"""What the page of a run has of its folder: the cause first, what proves it, what to do, its tests and files."""

from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.server.pages.contents import Contents, look
from runner.server.pages.words import FILTERS
from runner.server.shown import Delivery
from tests.support.program import pipe

FILE = """name: demo
stages:
  late: {needs: image, run: "true"}
  image: {each: [a, b, c], run: "echo begun; echo no file $KEY.jar >&2; exit 3", env: {KEY: "${each.name}"}}
  mine: {run: "true", when: "false"}
  loose: {run: "exit 4", allow_failure: true}
  tests:
    run: |
      mkdir -p t "out put"
      echo kept > "out put/a.txt"
      echo '<testsuite name="T"><testcase classname="T" name="adds"/><testcase classname="T" name="takes"><failure message="3 is not 4"/></testcase></testsuite>' > t/r.xml
    reports: {junit: [t/*.xml]}
    artifacts: ["out put/*"]
"""


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("contents")
    (folder / "demo.yaml").write_text(FILE)
    assert pipe(folder, "run", "demo.yaml", limit=60).returncode == 1
    run = RunFolder(folder / ".pipe/demo/1")
    return look(run, run)


def test_the_cause_comes_first_with_how_its_log_ends_and_what_to_do(contents: Contents) -> None:
    first = contents.blamed[0]
    assert first.leaf.name in ("image[a]", "image[b]", "image[c]")
    assert list(first.lines) == ["begun", f"no file {first.leaf.name[-2]}.jar"]
    assert first.way == "mend what the message names; the link leads to its whole log"
    assert "pipe rerun" not in first.way, "a page has no command line"


def test_what_was_allowed_to_fail_is_told_last_and_what_was_skipped_is_no_cause(contents: Contents) -> None:
    names = [blamed.leaf.name for blamed in contents.blamed]
    assert sorted(names[:3]) == ["image[a]", "image[b]", "image[c]"]
    assert names[3:] == ["loose"]


def test_tests_and_files_are_told_by_what_people_call_them(contents: Contents) -> None:
    (tests,) = contents.tests
    assert FILTERS["tested"](tests).startswith("1 of 2 failed")
    assert [FILTERS["kept"](path) for path, _ in contents.left.files if "/" in path] == [("out put/a.txt", "of tests")]
    assert contents.left.files[0][0] == "junit.xml"


def test_a_page_shows_the_beginning_of_a_line_that_never_ends_and_lives_without_a_log(tmp_path: Path) -> None:
    stages = "{long: {run: 'printf %0300000d 0; exit 1'}, gone: {run: 'echo a; exit 1'}}"
    (tmp_path / "demo.yaml").write_text(f"name: demo\nstages: {stages}\n")
    assert pipe(tmp_path, "run", "demo.yaml", limit=60).returncode == 1
    run = RunFolder(tmp_path / ".pipe/demo/1")
    (log,) = run.path.glob("logs/gone*.log")
    log.unlink()
    log.mkdir()
    lines = {blamed.leaf.name: blamed.lines for blamed in look(run, run).blamed}
    assert lines == {"long": [f"{'0' * 500} …"], "gone": ["its log cannot be read: Is a directory"]}


def test_a_run_that_has_not_begun_has_no_contents(tmp_path: Path) -> None:
    assert look(RunFolder(tmp_path / "demo/1"), RunFolder(tmp_path / "demo/1")) == Contents()


def delivery(state: str, note: str) -> Delivery:
    told = {"id": "d", "project": "shop", "forge": "gitea", "key": "", "received": 1.0, "size": 1, "copies": 0}
    return Delivery.model_validate({**told, "tries": 1, "due": 0.0, "state": state, "note": note})


def test_a_delivery_is_green_only_if_there_is_a_run_of_it_and_leads_there() -> None:
    runs = delivery("done", "demo: #12 started\nother: it has no `push:` trigger")
    assert (FILTERS["mood"](runs), FILTERS["became"](runs)) == ("good", "runs")
    assert '<a href="/projects/shop/runs/demo/12">demo: #12 started</a>\nother' in FILTERS["told"](runs)
    broken = delivery("done", "pipeline.yaml:2:1: <b>unknown</b> key")
    assert (FILTERS["mood"](broken), FILTERS["became"](broken)) == ("", "nothing started")
    assert "&lt;b&gt;" in FILTERS["told"](broken)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//host/x", ""])
def test_an_address_from_outside_is_a_link_only_to_the_web(url: str) -> None:
    assert FILTERS["web"](url) == ""
    assert FILTERS["web"](f"https://forge.example/{url}") != ""
