"""A run that shows a secret says so and is not green, and does not show it once more by that."""

import errno
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.plan import Leaf
from pipeline.stage import NoOutputs, Stage, StageContext
from runner.events import SecretLeaked
from runner.folder import RunFolder
from runner.leaks import Look
from runner.mask import Masker
from stages.catalog import kind
from tests.support import runs
from tests.support.program import host, pipe
from tests.support.runs import Run, leaf, run, shell

SECRET = "correct-horse-battery"
PLAN = {"secrets": {"token": {"kind": "text"}}}
ENVIRON = {"PIPE_SECRET_TOKEN": SECRET}


def told(made: Run) -> list[str]:
    return [record.event.where for record in made.records if isinstance(record.event, SecretLeaked)]


def holder(name: str, script: str) -> Leaf:
    return shell(name, script, secrets={"TOKEN": "token"}, secret_names=("token",))


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_run_that_masks_what_it_should_is_green(tmp_path: Path) -> None:
    made = await run(tmp_path, holder("a", 'echo "$TOKEN"'), environ=ENVIRON, **PLAN)
    assert (made.outcome, told(made)) == ("succeeded", [])
    assert SECRET.encode() not in everything(made.folder.path)


async def test_a_secret_in_a_file_of_the_run_makes_it_red_and_the_file_is_named(tmp_path: Path) -> None:
    script = f'echo "$TOKEN" > {tmp_path}/.pipe/test/1/logs/notes.txt'
    made = await run(tmp_path, holder("a", script), environ=ENVIRON, **PLAN)
    assert made.outcomes() == {"a": "succeeded"}
    assert (made.outcome, told(made)) == ("failed", ["logs/notes.txt"])
    assert made.state.cause is not None
    assert made.state.cause.message == "a secret can be read in logs/notes.txt: change it"
    (made.folder.path / "logs/notes.txt").unlink()
    assert SECRET.encode() not in everything(made.folder.path)


async def test_a_secret_in_another_encoding_or_over_a_border_of_blocks_is_found_too(tmp_path: Path) -> None:
    place = f"{tmp_path}/.pipe/test/1/logs"
    script = (
        f'printf "x$TOKEN" | base64 > {place}/encoded; '
        f'head -c 1048570 /dev/zero > {place}/border; printf "$TOKEN" >> {place}/border'
    )
    made = await run(tmp_path, holder("a", script), environ=ENVIRON, **PLAN)
    assert sorted(told(made)) == ["logs/border", "logs/encoded"]


class Careless(Stage[NoOutputs]):
    """Gives a password to a program where everybody sees it."""

    starts_processes: ClassVar[bool] = True

    async def run(self, ctx: StageContext) -> NoOutputs:
        await ctx.exec(["true", f"--password={ctx.env['TOKEN']}"])
        return NoOutputs()


async def test_a_secret_among_the_arguments_of_a_program_is_found_as_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "kind", lambda name: Careless if name == "careless" else kind(name))
    careless = leaf("a", "careless", {}, secrets={"TOKEN": "token"}, secret_names=("token",))
    made = await run(tmp_path, careless, environ=ENVIRON, **PLAN)
    assert (made.outcome, made.outcomes()) == ("failed", {"a": "succeeded"})
    assert told(made) == ["the arguments of true, which every user of the machine can list"]
    assert made.state.leaks == ["a: the arguments of true, which every user of the machine can list"]
    assert SECRET.encode() not in everything(made.folder.path)


async def test_a_secret_that_is_a_name_in_the_plan_makes_no_run_red(tmp_path: Path) -> None:
    made = await run(tmp_path, holder("production", "true"), environ={"PIPE_SECRET_TOKEN": "production"}, **PLAN)
    assert (made.outcome, told(made)) == ("succeeded", [])


async def test_a_secret_so_short_that_digests_hold_it_by_chance_makes_no_run_red(tmp_path: Path) -> None:
    made = await run(
        tmp_path,
        holder("a", f"echo 1234 > {tmp_path}/.pipe/test/1/logs/notes.txt"),
        environ={"PIPE_SECRET_TOKEN": "1234"},
        **PLAN,
    )
    assert made.outcome == "succeeded"


def test_the_name_of_a_file_is_looked_at_and_not_told(tmp_path: Path) -> None:
    masker = Masker()
    masker.add(SECRET)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / SECRET).write_text("what stands in an artifact is the stage's own: " + SECRET)
    (tmp_path / "artifacts/other").write_text(SECRET)
    assert Look(RunFolder(tmp_path), masker, 10.0)() == ["the name of a file in artifacts"]


def test_links_and_pipes_in_the_folder_hold_up_nobody(tmp_path: Path) -> None:
    masker = Masker()
    masker.add(SECRET)
    (tmp_path / "other").write_text(SECRET)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    os.mkfifo(folder / "pipe")
    assert Look(RunFolder(folder), masker, 10.0)() == []


def test_what_there_was_no_time_for_is_counted(tmp_path: Path) -> None:
    masker = Masker()
    masker.add(SECRET)
    (tmp_path / "a").write_text(SECRET)
    look = Look(RunFolder(tmp_path), masker, 0.0)
    assert (look(), look.unread) == ([], 1)


FILE = """
name: leaky
secrets: {token: text}
stages:
  a:
    secrets: {TOKEN: token}
    run: |
      echo "$TOKEN" > .pipe/leaky/1/logs/notes.txt
"""


def test_the_console_and_the_exit_code_say_that_a_secret_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "leaky.yaml").write_text(FILE)
    ended = pipe(tmp_path, "run", "leaky.yaml", "-o", "plain", env=host(**ENVIRON))
    assert ended.returncode == 1
    assert "  a secret can be read in logs/notes.txt: change it, and remove what shows it" in ended.stdout
    assert SECRET not in ended.stdout + ended.stderr
    assert "failed" in (listed := pipe(tmp_path, "runs").stdout)
    assert "a secret can be read in logs/notes.txt" in listed
    folder = tmp_path / ".pipe/leaky/1"
    for name in ("junit.xml", "summary.html"):
        assert "a secret can be read in logs/notes.txt" in (folder / name).read_text().replace("<b>A", "a").replace(
            "</b>", ""
        )


@pytest.mark.parametrize("secret", ["correct-horse-battery", "q<u>o\"t&e'd secret"])
def test_nothing_that_a_run_writes_shows_its_secrets(tmp_path: Path, secret: str) -> None:
    """Logs, events, reports of tests, problems of compilers, the page, names and standard output."""
    (tmp_path / "noisy.yaml").write_text(NOISY)
    env = host(PIPE_SECRET_TOKEN=secret)
    ended = pipe(tmp_path, "run", "noisy.yaml", "-o", "plain", "--junit", "j.xml", "--summary", "s.html", env=env)
    assert ended.returncode == 1
    masker = Masker()
    masker.add(secret)
    written = [path for path in (tmp_path / ".pipe").rglob("*") if path.is_file()]
    assert {"junit.xml", "summary.html", "problems.sarif"} <= {path.name for path in written}
    for path in (*written, tmp_path / "j.xml", tmp_path / "s.html"):
        assert not masker.holds(path.read_bytes()), path
    assert not masker.holds((ended.stdout + ended.stderr).encode())


NOISY = """
name: noisy
secrets: {token: text}
stages:
  a:
    secrets: {TOKEN: token}
    reports: {junit: ["*.xml"]}
    run: |
      python3 - <<'X'
      import os
      from xml.sax.saxutils import escape, quoteattr
      t = os.environ["TOKEN"]
      open("a.xml", "w").write(f"<testsuite name={quoteattr(t)}><testcase classname={quoteattr(t)} name={quoteattr(t)}>"
          f"<failure message={quoteattr(t)} type={quoteattr(t)}>{escape(t)}</failure><system-out>{escape(t)}</system-out>"
          "</testcase></testsuite>")
      print(f"src/A.java:1:2: error: {t}")
      print(t)
      X
      exit 1
"""


def test_what_cannot_be_read_is_not_called_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "s.1.log").write_text("x")
    (tmp_path / "link").symlink_to("logs/s.1.log")
    masker = Masker()
    masker.add("correct-horse")
    opened = os.open

    def closed(path: Any, *words: Any, **more: Any) -> int:
        if str(path).endswith("s.1.log"):
            raise PermissionError(errno.EACCES, "no", str(path))
        return opened(path, *words, **more)

    monkeypatch.setattr("runner.leaks.os.open", closed)
    look = Look(folder, masker, 10)
    assert (look(), look.unread) == ([], 1)


async def test_a_script_that_hands_a_secret_to_a_program_as_an_argument_is_warned_once(tmp_path: Path) -> None:
    script = 'sh -c "sleep 30; true" "$TOKEN" >/dev/null 2>&1 & until grep -q warned $FOLDER/events.1.jsonl; do sleep 0.05; done; kill $!'
    folder = tmp_path / ".pipe/test/1"
    made = await run(tmp_path, holder("a", script.replace("$FOLDER", str(folder))), environ=ENVIRON, **PLAN)
    place = "the arguments of sh, which every user of the machine can list"
    assert made.state.warnings == [f"a: a secret stands among {place}: hand it over in a file or by standard input"]
    assert made.outcome == "succeeded"
    assert SECRET.encode() not in everything(made.folder.path)
