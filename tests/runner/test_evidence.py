"""What an attempt leaves is collected when it ends, however it ends, and told in the journal."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from runner import evidence
from runner.collect import Copies, Opened
from runner.events import FilesKept, ProblemsFound, ReportsRead
from runner.sinks.closing import closing
from runner.sinks.view import KeptLogs, RunView
from tests.support.runs import Run, probe, run, shell, started, until_started

FAILING = (
    "<testsuite name='FooTest'><testcase classname='x.FooTest' name='works'/>"
    "<testcase classname='x.FooTest' name='adds'><failure message='4, not 5'>at x.FooTest.adds(FooTest.java:3)</failure>"
    "</testcase></testsuite>"
)
GREEN = "<testsuite name='FooTest'><testcase classname='x.FooTest' name='adds'/></testsuite>"


def kept(made: Run, name: str = "a") -> list[str]:
    return [str(file["path"]) for file in made[name].kept]


def closed(made: Run) -> list[str]:
    view = RunView(made.engine.world.plan, KeptLogs(made.folder), state=made.state)
    return list(closing(view, lambda row: row.name))


async def test_artifacts_of_a_green_stage_lie_in_the_folder_of_the_run_and_in_the_journal(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", "mkdir -p t; echo x > t/a.jar; echo y > b.txt", artifacts=("t/*", "*.txt")))
    assert made.outcomes() == {"a": "succeeded"}
    assert (made.folder.artifacts("a", 1) / "t/a.jar").read_text() == "x\n"
    files = [file for record in made.records if isinstance(record.event, FilesKept) for file in record.event.files]
    assert files[1] == {"path": "t/a.jar", "size": 2, "sha256": hashlib.sha256(b"x\n").hexdigest()}
    assert kept(made) == ["b.txt", "t/a.jar"]


async def test_a_green_stage_that_leaves_none_of_its_artifacts_has_failed(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", "mkdir dist; echo x > dist/x", artifacts=("dist", "*.jar")))
    cause = made["a"].cause
    assert made.outcomes() == {"a": "failed"}
    assert cause is not None
    assert cause.message == "artifacts: there is no file that matches dist, *.jar; dist is a folder: write dist/**"


async def test_one_glob_of_several_without_a_file_is_a_warning(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", "echo x > x.jar", artifacts=("*.jar", "*.war")))
    assert made.outcomes() == {"a": "succeeded"}
    assert made.state.warnings == ["a: artifacts: there is no file that matches *.war"]


async def test_artifacts_of_a_failed_stage_are_kept_and_missing_ones_change_nothing(tmp_path: Path) -> None:
    made = await run(
        tmp_path, shell("a", "echo x > x.log; exit 3", artifacts=("*.log",)), shell("b", "exit 3", artifacts=("*.no",))
    )
    assert kept(made) == ["x.log"]
    causes = [made[name].cause for name in "ab"]
    assert [cause.message for cause in causes if cause] == ["the script ended with exit code 3"] * 2


async def test_artifacts_of_a_stage_that_ran_out_of_time_or_was_cancelled_are_kept(tmp_path: Path) -> None:
    late = await run(tmp_path, shell("a", "echo x > x.log; sleep 60", artifacts=("*.log",), timeout="500ms"))
    assert (late.outcomes(), kept(late)) == ({"a": "timed-out"}, ["x.log"])
    async with started(tmp_path / "other", shell("a", "echo x > x.log; sleep 60", artifacts=("*.log",))) as made:
        await until_started(made, "a")
        while not (made.workspace / "x.log").exists():
            await anyio.sleep(0.01)
        made.engine.cancel("somebody")
    assert (made.outcomes(), kept(made)) == ({"a": "cancelled"}, ["x.log"])


async def test_a_snapshot_of_the_workspace_is_there_until_its_artifacts_are_kept(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", "echo x > x.jar", artifacts=("*.jar",), workspace="copy"))
    assert kept(made) == ["x.jar"]


async def test_each_attempt_keeps_its_own_artifacts(tmp_path: Path) -> None:
    script = "if test -e seen; then echo 2 > x; else touch seen; echo 1 > x; exit 1; fi"
    retry = {"times": 1, "on": ("user",), "wait": "10ms"}
    made = await run(tmp_path, shell("a", script, artifacts=("x",), retry=retry))
    assert [(made.folder.artifacts("a", number) / "x").read_text() for number in (1, 2)] == ["1\n", "2\n"]
    assert len(kept(made)) == 1


async def test_reports_are_counted_and_what_failed_is_told_once_at_the_end(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", f'echo "{FAILING}" > TEST-x.xml; exit 1', junit=("TEST-*.xml",)))
    (told,) = [record.event for record in made.records if isinstance(record.event, ReportsRead)]
    assert (told.total, told.failed, told.flaky) == (2, 1, 0)
    lines = closed(made)
    assert [line for line in lines if "adds" in line] == [
        "  x.FooTest.adds: 4, not 5",
        "      at x.FooTest.adds(FooTest.java:3)",
    ]
    assert "---- tests of a: 1 of 2 failed, in 0.0s" in lines


async def test_tests_that_fail_in_a_green_stage_are_a_warning(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", f'echo "{FAILING}" > TEST-x.xml', junit=("TEST-*.xml",)))
    assert made.state.warnings == ["a: 1 of 2 tests failed, and it ended as if they had not"]


async def test_a_test_that_fails_in_one_attempt_and_not_in_the_next_is_flaky(tmp_path: Path) -> None:
    script = f'if test -e seen; then echo "{GREEN}" > x.xml; else touch seen; echo "{FAILING}" > x.xml; exit 1; fi'
    retry = {"times": 1, "on": ("user",), "wait": "10ms"}
    made = await run(tmp_path, shell("a", script, junit=("*.xml",), retry=retry))
    assert made.outcomes() == {"a": "succeeded"}
    assert "  flaky: x.FooTest.adds: 4, not 5" in closed(made)


async def test_reports_from_before_the_attempt_tell_nothing_of_it(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", f'echo "{FAILING}" > x.xml; touch -d "1 hour ago" x.xml', junit=("*.xml",)))
    assert made["a"].tests is None
    assert made.state.warnings == ["a: reports: 1 file(s) are older than this attempt and tell nothing of it"]


async def test_a_report_that_nobody_can_read_counts_as_a_failed_test(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x \\"y\\">]><testsuite/>'
    made = await run(tmp_path, shell("a", f'echo "{bomb}" > x.xml', junit=("*.xml",)))
    tests = made["a"].tests
    assert tests is not None
    assert (tests.total, tests.failed, tests.cases[0]["name"]) == (1, 1, "x.xml")


async def test_the_silence_of_copying_what_a_stage_leaves_is_not_the_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Copies.take

    def slow(self: Copies, file: Opened) -> None:
        time.sleep(0.6)
        taken(self, file)

    monkeypatch.setattr(Copies, "take", slow)
    made = await run(tmp_path, shell("a", "touch x", artifacts=("x",), silence="300ms"))
    assert made.outcomes() == {"a": "succeeded"}


async def test_a_secret_in_the_words_of_a_test_is_masked_before_they_are_cut(tmp_path: Path) -> None:
    text = FAILING.replace("4, not 5", "x" * 490 + "correct-horse-battery")
    leaf = shell("a", f'echo "{text}" > x.xml', junit=("*.xml",), secret_names=("t",))
    given = {"environ": {"PIPE_SECRET_T": "correct-horse-battery"}, "secrets": {"t": {"kind": "text"}}}
    made = await run(tmp_path, leaf, **given)
    tests = made["a"].tests
    assert tests is not None
    assert tests.cases[0]["message"].endswith("x****")


async def test_a_kind_says_where_its_reports_are(tmp_path: Path) -> None:
    made = await run(tmp_path, probe("a", options={"junit": ("*.xml",)}), shell("b", "true", needs=["a"]))
    assert made.state.warnings == ["a: reports: there is no file that matches *.xml"]


@pytest.fixture
def little_time() -> Iterator[None]:
    before = evidence.AFTER_FAILURE
    evidence.AFTER_FAILURE = 0.2
    yield
    evidence.AFTER_FAILURE = before


@pytest.mark.usefixtures("little_time")
async def test_collecting_after_a_failure_is_bounded_in_time(tmp_path: Path) -> None:
    script = "truncate -s 3G big; for n in 1 2 3; do truncate -s 3G big$n; done; exit 3"
    with anyio.fail_after(10):
        made = await run(tmp_path, shell("a", script, artifacts=("big*",)))
    assert made.outcomes() == {"a": "failed"}
    assert made.state.warnings == ["a: not everything that it left is kept: no time was left for it"]
    assert not made.folder.artifacts("a", 1).exists()


async def test_complaints_of_compilers_come_last_in_what_is_told_of_a_failure(tmp_path: Path) -> None:
    script = 'echo before; echo "[ERROR] $PWD/src/A.java:[12,8] cannot find symbol"; echo after; exit 1'
    made = await run(tmp_path, shell("a", script))
    (told,) = [record.event for record in made.records if isinstance(record.event, ProblemsFound)]
    assert told.problems[0]["file"] == "src/A.java"
    lines = closed(made)
    first = lines.index("---- a failed: the script ended with exit code 1")
    assert lines[first + 1 : first + 4] == ["  before", "  after", "  src/A.java:12:8: error: cannot find symbol"]


async def test_the_first_exception_is_told_last_however_much_came_after_it_and_once(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/a.py").write_text("{}['key']\n")
    made = await run(tmp_path, shell("far", "python3 a.py || seq 1 200; exit 1"), shell("near", "python3 a.py; exit 1"))
    said = closed(made)
    first, second = (index for index, line in enumerate(said) if line.startswith("---- "))
    assert said[first + 1 : second - 1][-2:] == ["  200", "  a.py:1: error: KeyError: 'key'"]
    assert [line for line in said[second:] if "KeyError" in line] == ["  KeyError: 'key'"]


async def test_complaints_in_the_log_of_a_green_stage_are_none(tmp_path: Path) -> None:
    made = await run(tmp_path, shell("a", 'echo "A.java:1: error: x"'))
    assert made["a"].problems is None
