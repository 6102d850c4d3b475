"""`pipe plan --live`, `--save` and `pipe run --plan` as a user sees them, without a cluster."""

import json
from pathlib import Path

import pytest

from tests.stages.test_checkout import commit, git
from tests.support.program import events_of, host, pipe

pytestmark = pytest.mark.slow

FILE = """\
name: shop
params:
  url: {{env: SHOP_URL}}
  word: {{default: hello}}
secrets: {{token: text}}
stages:
  checkout: {{uses: checkout, with: {{url: "${{params.url}}", ref: main}}}}
  compile: {{needs: checkout, run: cat file}}
  push: {{needs: compile, uses: probe, with: {{{push}}}, secrets: {{TOKEN: token}}}}
  note: {{needs: push, when: params.word == 'x', uses: probe, with: {{}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    source = tmp_path / "source"
    place.mkdir()
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    commit(source, "First", file="one\n")
    write(place)
    return place


def write(folder: Path, push: str = 'output: "x"') -> None:
    (folder / "shop.yaml").write_text(FILE.format(push=push))


def environment(folder: Path, **more: str) -> dict[str, str]:
    known = {"SHOP_URL": (folder.parent / "source").as_uri(), "PIPE_CACHE": str(folder.parent / "cache")}
    return host(**{"PIPE_SECRET_TOKEN": "correct-horse-battery", **known, **more})


def head(folder: Path) -> str:
    return git(folder.parent / "source", "rev-parse", "HEAD")


def test_it_says_of_every_stage_whether_it_runs_and_why_not_and_which_commit(folder: Path) -> None:
    done = pipe(folder, "plan", "--live", "shop.yaml", env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines() if "  run" in line] == [
        ["checkout", "checkout", "run"],
        ["compile", "shell", "run,"],
        ["push", "probe", "run,"],
    ]
    assert "skipped: when: params.word == 'x'" in done.stdout
    assert f"main: {head(folder)}" in done.stdout
    assert not (folder / ".pipe").exists()


def test_what_will_fail_is_exit_1_and_told_as_json_too(folder: Path) -> None:
    write(folder, 'finds: "401 for correct-horse-battery", evidence: [proof]')
    done = pipe(folder, "plan", "--live", "shop.yaml", env=environment(folder))
    assert done.returncode == 1
    assert "will fail: push: 401 for ****\n    proof\n" in done.stdout
    told = pipe(folder, "plan", "--live", "--json", "shop.yaml", env=environment(folder))
    found = json.loads(told.stdout)
    assert (told.returncode, found["will_fail"], found["findings"][0]["severity"]) == (1, True, "will fail")
    assert {stage["name"]: stage["verdict"] for stage in found["stages"]}["note"] == "skipped"
    assert "correct-horse" not in done.stdout + told.stdout


def test_a_ref_that_does_not_exist_is_found_and_what_needs_it_is_not_guessed(folder: Path) -> None:
    text = (folder / "shop.yaml").read_text().replace("ref: main", "ref: mian")
    (folder / "shop.yaml").write_text(text)
    done = pipe(folder, "plan", "--live", "shop.yaml", env=environment(folder))
    assert done.returncode == 1
    assert "will fail: checkout: git ls-remote" in done.stdout
    assert "there is no branch or tag 'mian'; near: main" in done.stdout
    assert "push  " in done.stdout
    assert "skipped: needs compile: checkout failed" in done.stdout


def test_a_missing_secret_is_a_finding_and_the_others_are_looked_at(folder: Path) -> None:
    done = pipe(folder, "plan", "--live", "shop.yaml", env=environment(folder, PIPE_SECRET_TOKEN=""))
    assert done.returncode == 1
    assert "will fail: the run: secret 'token' was not found" in done.stdout
    assert "could not be checked: push: the secret 'token' was not found" in done.stdout
    assert f"main: {head(folder)}" in done.stdout


def test_a_run_tells_it_before_it_compiles_and_runs_all_the_same_if_told_to(folder: Path) -> None:
    write(folder, "finds: no right to push, cause: config")
    done = pipe(folder, "run", "shop.yaml", env=environment(folder))
    assert done.returncode == 1
    kinds = [(event["type"], event.get("stage")) for event in events_of(folder, "shop")]
    assert ("stage.started", "compile") not in kinds
    shown = pipe(folder, "show", env=environment(folder)).stdout
    assert "will fail: push: no right to push" in shown
    again = pipe(folder, "rerun", "shop#1", "--failed", env=environment(folder))
    assert again.returncode == 1
    assert pipe(folder, "run", "shop.yaml", "--no-preflight", env=environment(folder)).returncode == 0
    assert pipe(folder, "rerun", "shop#2", env=environment(folder)).returncode == 0


# -- plans that were approved ----------------------------------------------------------------------


@pytest.fixture
def saved(folder: Path) -> Path:
    done = pipe(folder, "plan", "--save", "approved.json", "shop.yaml", "-p", "word=hi", env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "`pipe run --plan approved.json` runs exactly this" in done.stdout
    return folder / "approved.json"


def test_a_saved_plan_runs_with_its_parameters_and_its_commit_and_holds_no_secret(folder: Path, saved: Path) -> None:
    assert "correct-horse" not in saved.read_text()
    done = pipe(folder, "run", "--plan", saved, env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads((folder / ".pipe" / "shop" / "1" / "plan.json").read_text())
    assert plan["params"]["word"] == "hi"
    facts = [event for event in events_of(folder, "shop") if event["type"] == "fact.found" and "commit" in str(event)]
    assert [fact["value"]["commit"] for fact in facts] == [head(folder)]


def test_a_saved_plan_may_come_to_another_place_with_its_file_or_alone(folder: Path, saved: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    alone = elsewhere / "alone.json"
    alone.write_text(saved.read_text())
    assert pipe(folder, "run", "--plan", alone, env=environment(folder)).returncode == 0
    folder.rename(elsewhere / "there")
    moved = pipe(elsewhere, "run", "--plan", "there/approved.json", env=environment(folder))
    assert moved.returncode == 0, moved.stdout + moved.stderr


def test_a_plan_may_move_with_the_repository_that_it_checks_out(folder: Path) -> None:
    text = (folder / "shop.yaml").read_text().replace('{url: "${params.url}", ref: main}', "{}")
    here = folder / "repository"
    here.mkdir()
    git(here, "init", "-q", "-b", "main")
    commit(here, "First", file="one\n")
    (here / "shop.yaml").write_text(text)
    (here / "out").mkdir()
    words = ("plan", "--save", "out/plan.json", "shop.yaml")
    assert pipe(here, *words, env=environment(folder)).returncode == 0
    here.rename(folder / "moved")
    done = pipe(folder, "run", "--plan", "moved/out/plan.json", env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (begun,) = [event for event in events_of(folder, "shop") if event["type"] == "run.started"]
    assert begun["source"] == {"PIPE_SOURCE": str(folder / "moved")}


def test_a_plan_is_refused_with_a_list_of_what_is_not_as_it_was(folder: Path, saved: Path) -> None:
    before = head(folder)
    commit(folder.parent / "source", "Second", file="two\n")
    moved = pipe(folder, "run", "--plan", saved, env=environment(folder))
    assert moved.returncode == 2
    assert "was approved for another state of things; plan again:" in moved.stderr
    assert f"main was {before}, and is {head(folder)}" in moved.stderr
    other = pipe(folder, "run", "--plan", saved, env=environment(folder, SHOP_URL="file:///elsewhere"))
    assert 'the parameter url was "file:///' in other.stderr
    write(folder, "output: y")
    changed = pipe(folder, "run", "--plan", saved, env=environment(folder, SHOP_URL="file:///elsewhere"))
    assert changed.returncode == 2
    assert f"shop: the file {folder}/shop.yaml is not what shop.yaml was" in changed.stderr
    assert 'the parameter url was "file:///' in changed.stderr
    assert not (folder / ".pipe").exists()


def test_what_will_fail_is_not_saved(folder: Path) -> None:
    write(folder, "finds: bad")
    done = pipe(folder, "plan", "--save", "p.json", "shop.yaml", env=environment(folder))
    assert (done.returncode, (folder / "p.json").exists()) == (1, False)
    assert "not saved to p.json" in done.stderr


def test_a_plan_that_would_hold_a_secret_is_not_saved(folder: Path) -> None:
    done = pipe(
        folder, "plan", "--save", "p.json", "shop.yaml", "-p", "word=correct-horse-battery", env=environment(folder)
    )
    assert (done.returncode, (folder / "p.json").exists()) == (2, False)
    assert "a secret stands in the plan itself" in done.stderr


@pytest.mark.parametrize("content", ["", "{}", "[1]", "name: x"])
def test_another_file_is_no_saved_plan(folder: Path, content: str) -> None:
    (folder / "x.json").write_text(content)
    done = pipe(folder, "run", "--plan", "x.json", env=environment(folder))
    assert done.returncode == 2
    assert "--plan x.json is no file that this version of `pipe plan --save` wrote" in done.stderr


def test_a_plan_takes_no_file_and_no_parameters(folder: Path, saved: Path) -> None:
    for words in (["shop.yaml", "--plan", str(saved)], ["--plan", str(saved), "-p", "word=x"], []):
        assert pipe(folder, "run", *words, env=environment(folder)).returncode == 2
