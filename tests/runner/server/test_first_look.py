"""What is said of a repository when it is added: whether it can be read, and what its file will start."""

import subprocess
from functools import partial
from pathlib import Path

import pytest

from runner.server import repositories
from runner.server.database import Database
from runner.server.desk import _refs
from runner.server.first_look import first_look
from runner.server.projects import Project
from tests.runner.server.conftest import Repository
from tests.support.program import pipe

pytestmark = [pytest.mark.network]

GOOD = "name: demo\ntriggers: {push: {}}\nstages: {s: {run: 'true'}}\n"


def project(repository: Repository, file: str = "pipeline.yaml") -> Project:
    return Project("shop", f"file://{repository.bare}", file)


def test_the_main_branch_and_its_pipelines_are_told(repository: Repository) -> None:
    commit = repository.commit("two", pipeline_yaml=GOOD)
    looked = first_look(project(repository))
    assert looked.found == (f"its main branch is main, at {commit[:12]}", "pipeline.yaml at main has demo")
    assert looked.doubts == ()


def test_a_file_that_is_not_there_is_told_with_the_nearest(repository: Repository) -> None:
    (doubt,) = first_look(project(repository, "pipelines.yaml")).doubts
    assert doubt == "there is no pipelines.yaml at main (--file names another); did you mean 'pipeline.yaml'?"


def test_a_file_with_mistakes_is_told_with_all_of_them(repository: Repository) -> None:
    repository.commit("two", pipeline_yaml="name: demo\nstages: {s: {rnu: 'true'}}\n")
    (doubt,) = first_look(project(repository)).doubts
    assert doubt.startswith("pipeline.yaml at main has mistakes:\npipeline.yaml:2:")
    assert "did you mean 'run'?" in doubt


def test_a_pipeline_that_nothing_starts_is_told(repository: Repository) -> None:
    repository.commit("two", pipeline_yaml=GOOD.replace("triggers: {push: {}}\n", ""))
    assert first_look(project(repository)).doubts == ("pipeline.yaml at main: without `triggers:` no push starts demo",)


def test_an_empty_repository_is_told(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "x.git"], check=True)
    looked = first_look(Project("shop", f"file://{tmp_path}/x.git"))
    assert looked.found == ()
    assert "it is empty" in looked.doubts[0]


def test_a_host_that_does_not_answer_is_told_after_a_limit(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories.Repository._ask, "__defaults__", (0.0, ""))
    (doubt,) = first_look(project(repository)).doubts
    assert "does not answer: nothing came within 0 s" in doubt


@pytest.mark.slow
def test_what_is_amiss_is_a_warning_and_the_project_is_added(tmp_path: Path) -> None:
    added = pipe(tmp_path, "projects", "add", "shop", f"file://{tmp_path}/nowhere")
    assert (added.returncode, "hooks/shop" in added.stdout) == (0, True)
    assert added.stderr.startswith(f"pipe: shop was added, but file://{tmp_path}/nowhere: fatal: ")
    assert "`pipe projects remove` it" in added.stderr
    assert pipe(tmp_path, "projects", "add", "other", f"file://{tmp_path}/nowhere", "--no-check").stderr == ""
    assert pipe(tmp_path, "projects", "list").stdout.split()[0::4] == ["other", "shop"]


def test_what_is_pushed_after_a_project_was_added_is_found_however_late_the_first_poll_is(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit("two", pipeline_yaml=GOOD)
    assert pipe(tmp_path, "projects", "add", "shop", f"file://{repository.bare}").returncode == 0
    pushed = repository.commit("three", pipeline_yaml=GOOD + "# more\n")
    database = Database(tmp_path / ".pipe-server/server.db")
    noted = database.read_now(partial(_refs, project="shop"))
    database.close()
    assert noted["refs/heads/main"] not in ("", pushed)
