"""The end of a run in one project starts what waits for it in another one that it lets, once, and never in a circle."""

import subprocess
from pathlib import Path

import pytest

from tests.runner.server.conftest import Repository, Server, sqlite
from tests.support.program import pipe
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

SHOP = "name: shop\ntriggers: {pipeline: {repo: OTHER, name: base}}\nparams: {tag: {default: none}}\nstages: {s: {run: 'true'}}\n"
BASE = "name: base\ntriggers: {push: {}PIPELINE}\nstages: {s: {run: 'exit CODE'}}\n"


@pytest.fixture
def base(tmp_path: Path, server: Server, repository: Repository) -> Repository:
    """A second project beside `shop`, in a repository of its own."""
    made = Repository(tmp_path / "base.git", tmp_path / "base")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", made.bare], check=True)
    subprocess.run(["git", "clone", "-q", made.bare, made.tree], check=True, capture_output=True)
    made.git("checkout", "-q", "-b", "main")
    made.commit("first", README="x")
    assert pipe(server.folder, "projects", "add", "base", f"file://{made.bare}").returncode == 0
    text = SHOP.replace("OTHER", f"file://{made.bare}").replace(
        "name: base}", "name: base, params: {tag: 'n${trigger.number}'}}"
    )
    repository.commit("waits", pipeline_yaml=text)
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(distinct project) from refs") == [(2,)])
    return made


def let(server: Server, project: str, followers: str) -> None:
    assert pipe(server.folder, "projects", "set", project, "--followers", followers).returncode == 0
    subprocess.run(["sleep", "2.1"], check=True)  # what is known of a project is known for two seconds


def told(server: Server) -> str:
    return (server.folder / "server.err").read_text()


def names(server: Server) -> list[str]:
    return [run["pipeline"] for run in server.runs()]


def test_an_end_starts_what_waits_for_it_elsewhere_on_the_main_branch_there(
    server: Server, base: Repository, repository: Repository
) -> None:
    let(server, "base", "shop")
    base.commit("go", pipeline_yaml=BASE.replace("PIPELINE", "").replace("CODE", "0"))
    one, two = server.settled(2)
    assert (one["pipeline"], one["project"], two["pipeline"], two["project"]) == ("base", "base", "shop", "shop")
    assert (two["commit"], two["ref"]) == (repository.git("rev-parse", "main"), "refs/heads/main")
    assert (two["found_by"], two["params"]) == ("run", {"tag": "n1"})
    assert (two["trigger"]["kind"], two["trigger"]["title"]) == ("pipeline", "base/base#1 succeeded")
    until(lambda: sqlite(server, "select count(*) from runs where followed = 0") == [(0,)])
    sqlite(server, "update runs set followed = 0")  # as if the server had died before it could note that
    until(lambda: sqlite(server, "select count(*) from runs where followed = 0") == [(0,)])
    assert names(server) == ["base", "shop"]


def test_a_project_that_is_not_let_is_told_what_it_wants(server: Server, base: Repository) -> None:
    base.commit("go", pipeline_yaml=BASE.replace("PIPELINE", "").replace("CODE", "0"))
    hint = "shop: the ends of base: they start nothing here until `pipe projects set base --followers shop`"
    until(lambda: hint in told(server))
    server.settled(1)
    until(lambda: sqlite(server, "select followed from runs") == [(1,)])
    assert names(server) == ["base"]


def test_another_outcome_starts_nothing_elsewhere(server: Server, base: Repository) -> None:
    let(server, "base", "*")
    base.commit("go", pipeline_yaml=BASE.replace("PIPELINE", "").replace("CODE", "1"))
    until(lambda: "shop: after base/base#1: shop: it waits for base succeeded" in told(server))
    assert names(server) == ["base"]


def test_projects_that_start_each_other_go_round_once_and_it_is_said(server: Server, base: Repository) -> None:
    let(server, "base", "shop")
    let(server, "shop", "base")
    back = f", pipeline: {{repo: {server.url}, name: shop}}"
    base.commit("go", pipeline_yaml=BASE.replace("PIPELINE", back).replace("CODE", "0"))
    until(lambda: "it would go round for ever: base/base → shop/shop → base/base" in told(server))
    assert names(server) == ["base", "shop"]


def test_what_cannot_be_started_now_is_started_later(server: Server, base: Repository, repository: Repository) -> None:
    let(server, "base", "shop")
    away = repository.bare.rename(repository.bare.with_name("away.git"))
    base.commit("go", pipeline_yaml=BASE.replace("PIPELINE", "").replace("CODE", "0"))
    until(lambda: sqlite(server, "select followed, follow_at > 0 from runs") == [(0, 1)])
    assert "base: what follows its runs: shop: " in told(server)
    away.rename(repository.bare)
    sqlite(server, "update runs set follow_at = 0")
    assert [run["project"] for run in server.settled(2)] == ["base", "shop"]


def test_a_follower_must_be_a_project(server: Server) -> None:
    done = pipe(server.folder, "projects", "set", "shop", "--followers", "shp")
    assert (done.returncode, "there is no project 'shp'; did you mean 'shop'?" in done.stderr) == (2, True)
    assert pipe(server.folder, "projects", "set", "shp").returncode == 2
    told = pipe(server.folder, "projects", "set", "shop", "--trust", "ann").stdout
    assert told == "shop: trusted authors of forks: ann\nshop: projects that its ends may start: none\n"


def test_two_projects_that_fail_are_told_once_each(tmp_path: Path, server: Server) -> None:
    for name in ("one", "two"):
        words = ("projects", "add", name, f"file://{tmp_path}/nowhere-{name}", "--no-check")
        assert pipe(server.folder, *words).returncode == 0
    server.stop()
    server.start("--poll", "1")
    until(lambda: "nowhere-one" in told(server) and "nowhere-two" in told(server))
    before = told(server)
    subprocess.run(["sleep", "4"], check=True)
    assert told(server) == before
