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
from tests.runner.server.conftest import Repository, Server
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
    assert (looked.found, looked.refs) == ((), {})
    assert f"file://{tmp_path}/x.git is empty" in looked.doubts[0]


def test_a_main_branch_that_there_is_not_is_told(repository: Repository) -> None:
    repository.commit("two", pipeline_yaml=GOOD)
    subprocess.run(["git", "-C", repository.bare, "symbolic-ref", "HEAD", "refs/heads/master"], check=True)
    looked = first_look(project(repository))
    assert "does not say which branch is its main one" in looked.doubts[0]
    assert list(looked.refs) == ["refs/heads/main"]


def test_a_host_that_does_not_answer_is_told_after_a_limit(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "ANSWER_WITHIN", 0.0)
    with pytest.raises(repositories.RepositoryError, match="does not answer: nothing came within 0 s"):
        first_look(project(repository))


@pytest.mark.slow
def test_a_repository_that_cannot_be_read_is_not_added_unless_somebody_says_so(tmp_path: Path) -> None:
    typo = ("projects", "add", "shop", f"file://{tmp_path}/nowhere")
    done = pipe(tmp_path, *typo)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"shop was not added, its repository cannot be read: file://{tmp_path}/nowhere: fatal: " in done.stderr
    assert "--no-check" in done.stderr
    assert pipe(tmp_path, "projects", "list").stdout == ""
    added = pipe(tmp_path, *typo, "--no-check")
    assert (added.returncode, added.stderr, "hooks/shop" in added.stdout) == (0, "", True)
    assert pipe(tmp_path, *typo).stderr == "there is a project 'shop' already\n", "without a look"


@pytest.mark.slow
def test_what_is_amiss_with_the_file_is_a_warning_with_the_way_back(tmp_path: Path, repository: Repository) -> None:
    added = pipe(tmp_path, "projects", "add", "shop", f"file://{repository.bare}", "--file", "pipe.yaml")
    assert (added.returncode, "hooks/shop" in added.stdout) == (0, True)
    assert added.stderr.startswith("pipe: shop was added, but there is no pipe.yaml at main")
    assert "`pipe projects remove shop` first" in added.stderr


@pytest.mark.slow
def test_the_url_of_the_hook_is_where_the_server_listens_or_said_to_be_assumed(server: Server) -> None:
    words = ("projects", "add", "other", server.url, "--no-check")
    told = pipe(server.folder, *words).stdout
    assert f"URL     http://127.0.0.1:{server.port}/hooks/other  (where this server listens; " in told
    told = pipe(server.folder, *words, "--state", "new").stdout
    assert "URL     http://127.0.0.1:8080/hooks/other  (assumed, for no server has run here yet: " in told
    told = pipe(server.folder, *words, "--state", "newer", "--hook-url", "https://ci.example/").stdout
    assert "URL     https://ci.example/hooks/other\n" in told


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
