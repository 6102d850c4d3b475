"""What a run leaves at its end: JUnit XML for Jenkins, SARIF for editors, a page for people; whatever it ended like."""

import json
import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import PIPE, events_of, host, pipe
from tests.support.wait import until

pytestmark = pytest.mark.slow

FILE = """
name: shop
params: {tag: {default: "<b>1</b>"}}
stages:
  build: {title: "编译 & <i>more</i>", run: "echo built; echo x > x.jar", artifacts: ["*.jar"]}
  test:
    needs: build
    reports: {junit: ["*.xml"]}
    run: |
      cat > TEST-a.xml <<'X'
      <testsuite name="x.FooTest" timestamp="2026-01-02T03:04:05">
      <testcase classname="x.FooTest" name="works" time="0.25"/>
      <testcase classname="x.FooTest" name="adds"><failure message="4 &lt; 5" type="E">at x.FooTest.adds(FooTest.java:3)</failure></testcase>
      </testsuite>
      X
      printf '\\033]0;title\\007</pre><script>alert(1)</script>\\033[2J\\n'
      echo "[ERROR] $PWD/src/A B.java:[12,8] cannot find <symbol>"
      exit 1
  lint: {run: exit 1, allow_failure: true}
  ship: {needs: test, run: "true"}
finally:
  last: {run: exit 1}
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    (folder / "shop.yaml").write_text(FILE)
    done = pipe(folder, "run", "shop.yaml", "--junit", "out/j.xml", "--summary", "out/s.html")
    assert done.returncode == 1, done.stderr
    return folder


def cases(path: Path) -> dict[str, ET.Element]:
    return {f"{case.get('classname')} {case.get('name')}": case for case in ET.parse(path).iter("testcase")}  # noqa: S314


def test_each_leaf_is_a_case_and_the_tests_of_stages_are_cases_too(ended: Path) -> None:
    found = cases(ended / "out/j.xml")
    assert list(found) == [
        *(f"pipe.shop {name}" for name in ("build", "test", "lint", "ship", "last")),
        "x.FooTest works",
        "x.FooTest adds",
    ]
    assert found["x.FooTest works"].get("time") == "0.250"
    assert (ended / "out/j.xml").read_text() == (ended / ".pipe/shop/1/junit.xml").read_text()


def test_a_failed_leaf_says_why_with_the_useful_lines_last(ended: Path) -> None:
    (failure,) = cases(ended / "out/j.xml")["pipe.shop test"]
    assert (failure.tag, failure.get("type"), failure.get("message")) == (
        "failure",
        "user",
        "the script ended with exit code 1",
    )
    assert (failure.text or "").splitlines()[-1] == "src/A B.java:12:8: error: cannot find <symbol>"
    assert "\x1b" not in (failure.text or "")


def test_what_may_fail_and_what_was_skipped_make_no_test_red(ended: Path) -> None:
    found = cases(ended / "out/j.xml")
    assert {name: [child.tag for child in case] for name, case in found.items() if name.startswith("pipe.")} == {
        "pipe.shop build": [],
        "pipe.shop test": ["failure"],
        "pipe.shop lint": ["skipped"],
        "pipe.shop ship": ["skipped"],
        "pipe.shop last": ["skipped"],
    }


def test_suites_have_names_of_their_own_and_times_that_jenkins_reads(ended: Path) -> None:
    suites = list(ET.parse(ended / "out/j.xml").iter("testsuite"))  # noqa: S314
    assert [suite.get("name") for suite in suites] == ["pipe: shop#1", "test: x.FooTest"]
    assert len({suite.get("id") for suite in suites}) == 2
    for suite in suites:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp") or "")


def test_problems_of_compilers_are_sarif(ended: Path) -> None:
    log = json.loads((ended / ".pipe/shop/1/problems.sarif").read_text())
    assert (log["version"], sarif_faults(log)) == ("2.1.0", [])
    (run,) = log["runs"]
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "src/A%20B.java"
    assert place["region"] == {"startLine": 12, "startColumn": 8}
    assert (result["level"], result["message"]["text"]) == ("error", "cannot find <symbol>")
    assert run["tool"]["driver"]["name"] == "javac"


def sarif_faults(log: dict[str, Any]) -> list[str]:
    """What the schema of SARIF 2.1.0 says of all that is written here (sections 3.13 to 3.30 of the standard)."""
    faults = unknown(log, "$schema", "version", "runs")
    for run in log["runs"]:
        faults += unknown(run, "tool", "results") + unknown(run["tool"], "driver")
        faults += [] if run["tool"]["driver"]["name"] else ["a driver without a name"]
        for result in run["results"]:
            faults += result_faults(result)
    return faults


def result_faults(result: dict[str, Any]) -> list[str]:
    faults = unknown(result, "ruleId", "level", "message", "locations", "properties")
    faults += [] if result["level"] in ("none", "note", "warning", "error") else [result["level"]]
    faults += [] if result["message"]["text"] else ["a message without a text"]
    for place in (location["physicalLocation"] for location in result["locations"]):
        uri = place["artifactLocation"]["uri"]
        faults += [] if re.fullmatch(r"[\w%./~:!$&'()*+,;=@-]+", uri, re.ASCII) else [f"no URI: {uri}"]
        numbers = place.get("region", {}).values()
        faults += ["a region before the file"] if any(number < 1 for number in numbers) else []
    return faults


def unknown(part: dict[str, Any], *names: str) -> list[str]:
    return [name for name in part if name not in names]


class Page(HTMLParser):
    """Everything on a page that could do something, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [f"{tag} {value}" for name, value in attrs if name in ("href", "src", "action", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(ended: Path) -> Page:
    made = Page()
    made.feed((ended / "out/s.html").read_text())
    return made


def test_the_page_is_a_file_of_its_own_that_can_do_nothing(page: Page) -> None:
    assert not page.links
    assert not page.handlers
    assert not page.tags & {"script", "iframe", "img", "link", "form", "object", "base", "i"}


def test_the_page_tells_all_of_the_run_as_words(page: Page) -> None:
    for words in (
        "shop#1",
        "✖ failed",
        "tag = <b>1</b>",
        "编译 & <i>more</i>",
        "</pre><script>alert(1)</script>",
        "src/A B.java:12:8: error: cannot find <symbol>",
        "1 of 2 failed",
        "4 < 5",
        "at x.FooTest.adds(FooTest.java:3)",
        "1 file(s), 2 B",
        "last: failed in finally",
    ):
        assert words in page.text
    assert "\x1b" not in page.text


def test_a_run_that_was_cancelled_has_its_reports_too(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text("name: slow\nstages: {a: {run: 'sleep 60'}, b: {needs: a, run: 'true'}}\n")
    argv = [str(PIPE), "run", "slow.yaml", "--junit", "j.xml", "-o", "plain"]
    with subprocess.Popen(argv, cwd=tmp_path, env=host(), stdout=subprocess.DEVNULL) as running:
        journal = tmp_path / ".pipe/slow/1/events.1.jsonl"
        until(lambda: journal.exists() and b"stage.started" in journal.read_bytes())
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(20) == 143
    found = cases(tmp_path / "j.xml")
    assert [case[0].get("message") for case in found.values()] == [
        "cancelled: cancelled by SIGTERM",
        "cancelled: cancelled by SIGTERM",
    ]
    assert all(case[0].tag == "skipped" for case in found.values())
    assert (tmp_path / ".pipe/slow/1/summary.html").exists()


def test_an_engine_that_has_lost_its_run_writes_no_report_into_its_folder(tmp_path: Path) -> None:
    (tmp_path / "lost.yaml").write_text("name: lost\nstages: {a: {run: 'touch .pipe/lost/1/owner.2; sleep 5'}}\n")
    assert pipe(tmp_path, "run", "lost.yaml", "--junit", "j.xml").returncode == 1
    assert not (tmp_path / ".pipe/lost/1/junit.xml").exists()
    (case,) = cases(tmp_path / "j.xml").values()
    assert case[0].get("message") == "the run stopped before it ended"


def test_a_call_that_starts_nothing_leaves_a_report_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("name: wrong\nstages: {a: {rum: x}}\n")
    assert pipe(tmp_path, "run", "wrong.yaml", "--junit", "out/j.xml").returncode == 2
    (case,) = cases(tmp_path / "out/j.xml").values()
    assert case[0].tag == "error"
    assert "unknown key 'rum'" in (case[0].text or "")
    for command in ("resume", "rerun"):
        assert pipe(tmp_path, command, "wrong#9", "--junit", f"{command}.xml").returncode == 2
        (case,) = cases(tmp_path / f"{command}.xml").values()
        assert case[0].tag == "error"


def test_several_pipelines_are_one_report_and_a_rerun_writes_it_anew(tmp_path: Path) -> None:
    text = "pipelines:\n  one: {stages: {a: {run: 'test -e ok'}}}\n  two: {stages: {a: {run: 'true'}}}\n"
    (tmp_path / "two.yaml").write_text(text)
    pipe(tmp_path, "run", "two.yaml", "--junit", "j.xml", "--summary", "s.html")
    assert {name: len(case) for name, case in cases(tmp_path / "j.xml").items()} == {"pipe.one a": 1, "pipe.two a": 0}
    page = Page()
    page.feed((tmp_path / "s.html").read_text())
    assert "one#1" in page.text
    assert "two#1" in page.text
    (tmp_path / "ok").touch()
    assert pipe(tmp_path, "rerun", "one#1").returncode == 0
    assert {name: len(case) for name, case in cases(tmp_path / ".pipe/one/1/junit.xml").items()} == {"pipe.one a": 0}


def test_what_a_rerun_has_mended_is_no_problem_any_more(tmp_path: Path) -> None:
    script = "test -e ok || { echo 'src/A.java:1:2: error: x'; exit 1; }"
    (tmp_path / "a.yaml").write_text(f"name: a\nstages: {{a: {{run: {json.dumps(script)}}}}}\n")
    pipe(tmp_path, "run", "a.yaml")
    assert (tmp_path / ".pipe/a/1/problems.sarif").exists()
    (tmp_path / "ok").touch()
    assert pipe(tmp_path, "rerun", "a#1").returncode == 0
    assert not (tmp_path / ".pipe/a/1/problems.sarif").exists()


def test_a_place_that_cannot_be_written_is_told_and_changes_no_outcome(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nstages: {a: {run: 'true'}}\n")
    (tmp_path / "file").touch()
    done = pipe(tmp_path, "run", "a.yaml", "--junit", "file/j.xml")
    assert done.returncode == 0
    assert "file/j.xml could not be written" in done.stderr
    assert events_of(tmp_path, "a")[-1]["outcome"] == "succeeded"


def test_show_lists_artifacts_and_tests(ended: Path) -> None:
    shown = pipe(ended, "show", "shop#1").stdout
    assert "  artifacts of build: 1 file(s), 2 B" in shown
    assert "    x.jar  2 B  sha256:" in shown
    assert "  tests of test: 1 of 2 failed, in 0.2s" in shown
    told = json.loads(pipe(ended, "show", "shop#1", "--json").stdout)["leaves"]
    assert told["build"]["artifacts"][0]["path"] == "x.jar"
    assert (told["test"]["tests"]["failed"], told["test"]["problems"][0]["line"]) == (1, 12)
