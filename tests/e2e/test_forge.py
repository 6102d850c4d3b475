"""A push to a real forge starts the right run through the server, and the commit shows how it went."""

import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from runner.folder import RunFolder
from sandbox.forge import PASSWORD, USER, Forge, forge
from sandbox.release import environment
from tests.e2e.conftest import World
from tests.runner.server.conftest import TEXT, Server
from tests.support.program import pipe
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(1200)]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def gitea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with forge(tmp_path_factory.mktemp("gitea")) as running:
        yield running


@dataclass
class Team:
    """A repository in the forge, a work tree of it, and a server that the forge tells of pushes."""

    gitea: Forge
    name: str
    tree: Path
    server: Server

    def git(self, *words: str) -> str:
        argv = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.com", *words]
        return subprocess.run(argv, cwd=self.tree, check=True, capture_output=True, text=True).stdout.strip()

    def push(self, message: str, branch: str = "main") -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        self.git("push", "-q", "origin", f"HEAD:{branch}")
        return self.git("rev-parse", "HEAD")

    def told(self, commit: str, context: str) -> str:
        return self.gitea.statuses(self.name, commit).get(context, "")


@pytest.fixture
def team(tmp_path: Path, gitea: Forge) -> Iterator[Team]:
    name = f"shop-{uuid4().hex[:6]}"
    url = gitea.repository(name)
    tree, folder = tmp_path / "tree", tmp_path / "server"
    tree.mkdir()
    folder.mkdir()
    server = Server(folder, url)
    words = ("shop", url, "--forge", "gitea", "--username", USER, "--hook-url", f"http://127.0.0.1:{server.port}")
    added = pipe(
        folder,
        "projects",
        "add",
        *words,
        env={**server.env, "PIPE_GIT_PASSWORD": PASSWORD, "PIPE_FORGE_TOKEN": gitea.token},
    )
    assert added.returncode == 0, added.stderr
    server.secret = added.stdout.split()[-1]
    made = Team(gitea, name, tree, server)
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    with_login = urllib.parse.urlsplit(url)._replace(netloc=f"{USER}:{PASSWORD}@{urllib.parse.urlsplit(url).netloc}")
    made.git("remote", "add", "origin", with_login.geturl())
    (tree / "README").write_text("hello\n")
    made.push("first")
    server.start()
    gitea.hook(name, f"http://127.0.0.1:{server.port}/hooks/shop", server.secret)
    yield made
    server.stop()


def allow_login(team: Team) -> None:
    """The login by which the runs of the project read its repository."""
    store = team.server.folder / ".pipe-server/projects/shop/runs"
    store.mkdir(parents=True, exist_ok=True)
    file = store / "secrets.env"
    file.touch(mode=0o600)
    file.write_text(f"PIPE_SECRET_GIT_USERNAME={USER}\nPIPE_SECRET_GIT_PASSWORD={PASSWORD}\n")


PRIVATE = TEXT.replace("stages:", "secrets: {git: login}\nstages:").replace("into: src}", "into: src, secret: git}")


def test_a_push_starts_a_run_and_the_commit_shows_how_it_went(team: Team) -> None:
    allow_login(team)
    (team.tree / "pipeline.yaml").write_text(PRIVATE)
    (team.tree / "src").mkdir()
    (team.tree / "src" / "a").write_text("one")
    good = team.push("good")
    (run,) = team.server.settled(1)
    assert (run["outcome"], run["commit"], run["trigger"]["author"]) == ("succeeded", good, USER)
    until(lambda: team.told(good, "pipe/demo") == "success")
    (team.tree / "src" / "a").unlink()
    bad = team.push("bad")
    team.server.settled(2)
    until(lambda: team.told(bad, "pipe/demo") == "failure")
    assert [each["state"] for each in team.server.deliveries()] == ["done"] * len(team.server.deliveries())


def test_a_tag_and_a_pull_request_start_what_their_triggers_say(team: Team) -> None:
    allow_login(team)
    text = PRIVATE.replace(
        "triggers: {push: {branches: [main],", "triggers: {pull_request: {}, push: {branches: [none],"
    )
    (team.tree / "pipeline.yaml").write_text(text)
    (team.tree / "src").mkdir()
    (team.tree / "src" / "a").write_text("one")
    tagged = team.push("tagged")
    team.git("tag", "-a", "v1", "-m", "one")
    team.git("push", "-q", "origin", "v1")
    (run,) = team.server.settled(1)
    assert (run["ref"], run["commit"], run["outcome"]) == ("refs/tags/v1", tagged, "succeeded")
    (team.tree / "src" / "a").write_text("two")
    asked = team.push("for a pull request", "topic")
    pull = {"title": "Please", "head": "topic", "base": "main"}
    team.gitea.call("POST", f"/repos/{USER}/{team.name}/pulls", pull)
    run = team.server.settled(2)[-1]
    assert (run["trigger"]["kind"], run["commit"], run["trigger"]["number"]) == ("pull_request", asked, "1")
    until(lambda: team.told(asked, "pipe/demo") == "success")


FORKS = TEXT.replace(
    "triggers: {push: {branches: [main],", "triggers: {pull_request: {forks: true}, push: {branches: [none],"
)


def test_a_fork_of_the_real_forge_is_approved_and_its_commit_shows_every_state(team: Team) -> None:
    gitea, name = team.gitea, team.name
    (team.tree / "pipeline.yaml").write_text(FORKS)
    (team.tree / "src").mkdir()
    (team.tree / "src" / "a").write_text("ours")
    team.push("base")
    gitea.call("PATCH", f"/repos/{USER}/{name}", {"private": False})
    eve = {
        "username": f"eve-{uuid4().hex[:6]}",
        "email": f"{uuid4().hex[:6]}@example.invalid",
        "password": "eve-password-1",
    }
    gitea.call("POST", "/admin/users", {**eve, "must_change_password": False})
    as_eve = replace(gitea, login=(eve["username"], eve["password"]))
    fork = as_eve.call("POST", f"/repos/{USER}/{name}/forks", {})
    url = urllib.parse.urlsplit(fork["clone_url"])
    theirs = url._replace(netloc=f"{eve['username']}:{eve['password']}@{url.netloc}").geturl()
    (team.tree / "src" / "a").write_text("theirs")
    (team.tree / "pipeline.yaml").write_text(FORKS.replace("cat src/src/a", "echo evil"))
    team.git("commit", "-qam", "of eve")
    team.git("push", "-q", theirs, "HEAD:topic")
    head = team.git("rev-parse", "HEAD")
    pull = {"title": "Please", "head": f"{eve['username']}:topic", "base": "main"}
    as_eve.call("POST", f"/repos/{USER}/{name}/pulls", pull)
    until(lambda: [run["state"] for run in team.server.runs()] == ["waiting"])
    (run,) = team.server.runs()
    assert (run["commit"], run["trigger"]["author"], run["ref"]) == (head, eve["username"], "refs/pull/1/head")
    until(lambda: gitea.described(name, head) == {"pipe/demo": ("pending", "waits for approval")})
    allowed = {"authorization": f"Bearer {team.server.token}"}
    assert team.server.ask(f"/api/v1/runs/{run['id']}/approve", b"", **allowed)[0] == 200
    (run,) = team.server.settled(1)
    folder = team.server.folder / ".pipe-server/projects/shop/runs/demo/1"
    assert (run["outcome"], RunFolder(folder).log("s", 1).read_text()) == ("succeeded", f"{head}\ntheirs")
    until(lambda: team.told(head, "pipe/demo") == "success")


def test_a_push_releases_the_back_end_of_the_example(team: Team, world: World) -> None:
    values = environment(world.sandbox.env)
    team.server.stop()
    team.server.env = {**team.server.env, "DOCKER_HOST": values["DOCKER_HOST"]}
    team.server.start()
    org = f"pushed-{uuid4().hex[:6]}"
    shutil.copytree(EXAMPLES / "sources" / "yygh-parent", team.tree, dirs_exist_ok=True)
    text = (EXAMPLES / "backend.yaml").read_text()
    given = {"BACKEND_GIT_URL": team.server.url, "REGISTRY": values["REGISTRY"]}
    text = re.sub(
        r"\{env: (\w+)", lambda match: f"{{default: '{given[match[1]]}'" if match[1] in given else match[0], text
    )
    text = text.replace("{default: master}", "{default: main}").replace("{default: lfy_hello}", f"{{default: {org}}}")
    (team.tree / "pipeline.yaml").write_text(
        text.replace("vars:\n", "triggers: {push: {branches: [main]}}\nvars:\n", 1)
    )
    store = team.server.folder / ".pipe-server/projects/shop/runs"
    store.mkdir(parents=True, exist_ok=True)
    secrets = {name: value for name, value in values.items() if name.startswith("PIPE_SECRET_")}
    secrets |= {"PIPE_SECRET_GITEE_USERNAME": USER, "PIPE_SECRET_GITEE_PASSWORD": PASSWORD}
    (store / "secrets.env").touch(mode=0o600)
    (store / "secrets.env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    commit = team.push("release")
    (run,) = team.server.settled(1, limit=400)
    console = (team.server.folder / f".pipe-server/projects/shop/{run['id']}.console").read_text()
    assert run["outcome"] == "succeeded", console[-5000:]
    until(lambda: team.told(commit, "pipe/backend") == "success")
    for name in ("service-hosp", "server-gateway"):
        assert world.registry(f"{org}/{name}/tags/list")["tags"] == ["SNAPSHOT-1"]
