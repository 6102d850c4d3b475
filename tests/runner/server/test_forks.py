"""What a stranger's pull request may do: run what the base says, without secrets, after somebody has looked at it."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from runner.folder import RunFolder
from sandbox.git_host import Handler
from tests.runner.server.conftest import Repository, Server, sqlite
from tests.support.program import host, pipe
from tests.support.receivers import Heard
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = """name: demo
secrets: {token: text, git: login}
triggers: {pull_request: {branches: [main, release], forks: true}, push: {}}
stages:
  co: {uses: checkout, with: {into: src, secret: git}}
  s: {needs: co, run: 'cat src/src/a; printf "%s|%s|%s" "$T" "$B" "$BRANCH_NAME"', env: {T: "${trigger.title}", B: "${trigger.branch}"}}
  ours: {needs: co, when: "!trigger.fork", run: "true"}
  signed: {needs: co, run: 'echo "$S"', secrets: {S: token}}
  out: {needs: co, uses: probe, with: {log: out}}
"""


@dataclass
class Pulls:
    """Pull requests of a fork, as a forge shows them: each head in a ref of the base's repository."""

    server: Server
    repository: Repository

    def commit(self, **files: str) -> str:
        """A commit of the fork, beside the main branch; it is in no branch of the base."""
        self.repository.git("checkout", "-q", "--detach", "main")
        for name, text in files.items():
            path = self.repository.tree / name.replace("__", "/").replace("_yaml", ".yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.repository.git("add", "-A")
        self.repository.git("commit", "-q", "--allow-empty", "-m", "of a stranger")
        commit = self.repository.git("rev-parse", "HEAD")
        self.repository.git("checkout", "-q", "main")
        return commit

    def show(self, number: int, commit: str) -> None:
        """What a forge does when a pull request is opened or pushed to."""
        self.repository.git("push", "-q", "--force", "origin", f"{commit}:refs/pull/{number}/head")

    def tell(self, number: int, commit: str, **told: Any) -> str:
        """What Gitea sends; the note of what became of it."""
        theirs: Any = {
            "full_name": "eve/shop",
            "id": 2,
            "clone_url": told.get("fork_url", "https://git.example/eve/shop"),
        }
        said = {
            "action": told.get("action", "synchronized"),
            "number": number,
            "pull_request": {
                "title": told.get("title", "Please"),
                "user": {"login": told.get("author", "eve")},
                "head": {"ref": told.get("branch", "topic"), "sha": commit, "repo": told.get("theirs", theirs)},
                "base": {"ref": told.get("base", "main"), "repo": {"full_name": "team/shop", "id": 1}},
            },
            "repository": {"clone_url": self.server.url},
            "sender": {"login": told.get("sender", told.get("author", "eve"))},
            "changes": told.get("changes"),
        }
        status, answer = self.server.deliver(json.dumps(said).encode(), id_=os.urandom(8).hex(), event="pull_request")
        assert status == 202
        until(lambda: self._note(answer["delivery"]) != "")
        return self._note(answer["delivery"])

    def _note(self, id_: str) -> str:
        return next(str(each["note"]) for each in self.server.deliveries() if each["id"] == id_)

    def open(self, number: int = 7, *, told: Any = None, **files: str) -> str:
        """Open one, or push to it."""
        commit = self.commit(**files)
        self.show(number, commit)
        self.tell(number, commit, **(told or {}))
        return commit

    def approve(self, run: dict[str, Any]) -> tuple[int, Any]:
        return self.server.ask(f"/api/v1/runs/{run['id']}/approve", b"", authorization=f"Bearer {self.server.token}")


@pytest.fixture
def pulls(server: Server, repository: Repository) -> Pulls:
    repository.commit("base", pipeline_yaml=TEXT)
    return Pulls(server, repository)


def folder(server: Server, run: dict[str, Any]) -> RunFolder:
    return RunFolder(server.folder / ".pipe-server/projects/shop/runs/demo" / str(run["number"]))


def leaves(server: Server, run: dict[str, Any]) -> dict[str, str]:
    return {leaf["name"]: leaf["outcome"] for leaf in server.get(f"/api/v1/runs/{run['id']}/leaves")}


# -- the way of a pull request -------------------------------------------------------------------------


def test_a_strangers_commit_waits_and_runs_without_secrets_once_it_is_approved(pulls: Pulls) -> None:
    base = pulls.repository.git("rev-parse", "main")
    head = pulls.open(src__a="theirs")
    (run,) = pulls.server.runs()
    assert (run["state"], run["commit"], run["file_commit"], run["ref"]) == ("waiting", head, base, "refs/pull/7/head")
    assert sqlite(pulls.server, "select state, description from statuses") == [("pending", "waits for approval")]
    assert pulls.approve(run) == (200, {"run": run["id"], "number": 1})
    (run,) = pulls.server.settled(1)
    assert (run["outcome"], run["approved_by"], run["trigger"]["fork"]) == ("succeeded", "token tests", True)
    assert folder(pulls.server, run).log("s", 1).read_text() == "theirsPlease|topic|topic"
    assert leaves(pulls.server, run) == {
        "co": "succeeded", "s": "succeeded", "ours": "skipped", "signed": "skipped", "out": "skipped",
    }  # fmt: skip
    assert "skipped" not in run["note"]
    assert run["note"] == "without signed, out: not in the run of a fork"


def test_who_wants_to_know_is_told_that_a_run_waits_and_how_to_let_it(pulls: Pulls, hook: Heard) -> None:
    env = host(PIPE_NOTIFY_URL=f"json://127.0.0.1:{hook.port}/")
    assert pipe(pulls.server.folder, "notify", "add", "shop", "ops", "--on", "waiting", env=env).returncode == 0
    pulls.open(src__a="theirs")
    until(lambda: hook.bodies)
    (told,) = hook.json()
    assert told["title"] == "waiting for approval: shop demo#1 (refs/pull/7/head)"
    assert told["message"].splitlines()[0] == "pipe approve 'shop/demo#1'"


def test_an_approval_is_for_one_commit_and_a_new_push_wants_another(pulls: Pulls) -> None:
    first = pulls.open(src__a="1")
    second = pulls.open(src__a="2")
    one, two = pulls.server.runs()
    assert (one["state"], one["outcome"]) == ("ended", "cancelled")
    assert one["note"] == f"the pull request has moved on to {second[:12]} for main"
    status, answer = pulls.approve(one)
    assert (status, "the pull request has moved on" in answer["detail"]) == (409, True)
    assert (two["state"], two["commit"]) == ("waiting", second)
    assert pulls.approve(two)[0] == 200
    assert pulls.approve(two)[0] == 409, "it is approved already"
    assert [run["commit"] for run in pulls.server.settled(2)] == [first, second]
    assert folder(pulls.server, two).log("s", 1).read_text().startswith("2")


@pytest.mark.parametrize("place", ["the machine of the server", "elsewhere"])
def test_who_may_sees_what_waits_and_approves_it_from(pulls: Pulls, tmp_path: Path, place: str) -> None:
    head = pulls.open(src__a="theirs", told={"title": "\x1b[31mred"})
    (run,) = pulls.server.runs()
    folder, env = pulls.server.folder, host()
    if place == "elsewhere":
        folder, env = tmp_path, host(PIPE_SERVER=f"http://127.0.0.1:{pulls.server.port}", PIPE_TOKEN=pulls.server.token)
        (line,) = pipe(folder, "runs", env=env).stdout.splitlines()
        assert (line.split()[:2], line.endswith("waits for approval")) == (["shop/demo#1", "waiting"], True)
    listed = pipe(folder, "approve", env=env).stdout
    assert listed == f"{run['id']}  shop  demo#1  {head[:12]}  pull request 7 of eve for main:  [31mred\n"
    refused = pipe(folder, "approve", "shop/demo#2", env=env)
    assert (refused.returncode, "there is no run 'shop/demo#2'" in refused.stderr) == (2, True)
    assert pipe(folder, "approve", "shop/demo#1", env=env).stdout == "shop/demo#1 may start\n"
    assert pulls.server.settled(1)[0]["outcome"] == "succeeded"
    assert pipe(folder, "approve", env=env).stdout == ""
    assert pipe(folder, "approve", run["id"], env=env).returncode == 2, "it has been let already"


def test_without_a_token_nobody_approves_and_whoever_refuses_cancels(pulls: Pulls) -> None:
    pulls.open()
    (run,) = pulls.server.runs()
    assert pulls.server.ask(f"/api/v1/runs/{run['id']}/approve", b"")[0] == 401
    pulls.server.ask(f"/api/v1/runs/{run['id']}/cancel", b"", authorization=f"Bearer {pulls.server.token}")
    (run,) = pulls.server.settled(1)
    assert (run["outcome"], pulls.approve(run)[0]) == ("cancelled", 409)


def test_what_nobody_approves_is_not_waited_for_for_ever(pulls: Pulls) -> None:
    pulls.open()
    pulls.server.stop()
    sqlite(pulls.server, "update runs set created = created - 8 * 86400")
    pulls.server.start()
    (run,) = pulls.server.settled(1)
    assert run["note"] == "nobody approved it within 7 days; a new push asks again"


def test_an_author_whom_the_project_trusts_waits_for_nobody_unless_somebody_else_pushed(pulls: Pulls) -> None:
    assert pipe(pulls.server.folder, "projects", "set", "shop", "--trust", "ann,bob").returncode == 0
    subprocess.run(["sleep", "2.1"], check=True)  # what is known of a project is known for two seconds
    pulls.open(7, src__a="1", told={"author": "ann", "sender": "eve"})
    pulls.open(8, src__a="2", told={"author": "eve", "sender": "ann"})
    pulls.open(9, src__a="3", told={"author": "ann", "sender": "bob"})
    until(lambda: pulls.server.runs()[2]["state"] == "ended")
    assert [run["state"] for run in pulls.server.runs()] == ["waiting", "waiting", "ended"]
    (_, _, run) = pulls.server.runs()
    assert leaves(pulls.server, run)["signed"] == "skipped", "trusted to be looked at no more, not with secrets"


def test_the_end_of_a_strangers_run_starts_nothing_more(pulls: Pulls) -> None:
    text = """pipelines:
  demo: {triggers: {pull_request: {forks: true}}, stages: {s: {run: "true"}}}
  after: {triggers: {pipeline: {name: demo}}, stages: {s: {run: "true"}}}
"""
    pulls.repository.commit("base", pipeline_yaml=text)
    pulls.open()
    pulls.approve(pulls.server.runs()[0])
    pulls.server.settled(1)
    until(lambda: sqlite(pulls.server, "select followed from runs") == [(1,)])
    assert len(pulls.server.runs()) == 1


def test_what_a_strangers_run_caches_is_for_strangers_alone(pulls: Pulls) -> None:
    text = "name: demo\ntriggers: {pull_request: {forks: true}}\nstages: {s: {run: 'echo $PIPE_CACHE'}}\n"
    pulls.repository.commit("base", pipeline_yaml=text)
    pulls.open()
    pulls.approve(pulls.server.runs()[0])
    (run,) = pulls.server.settled(1)
    assert folder(pulls.server, run).log("s", 1).read_text().endswith("/projects/shop/strangers-cache\n")


# -- attacks -------------------------------------------------------------------------------------------


def test_a_pipeline_file_that_a_stranger_changed_is_not_read(pulls: Pulls) -> None:
    evil = TEXT.replace("cat src/src/a", "echo evil").replace("forks: true", "forks: true, params: {}")
    pulls.open(pipeline_yaml=evil, src__a="theirs")
    pulls.approve(pulls.server.runs()[0])
    (run,) = pulls.server.settled(1)
    assert folder(pulls.server, run).log("s", 1).read_text().startswith("theirs")
    assert (folder(pulls.server, run).path / "work/src/pipeline.yaml").read_text() == evil, "it is there to be built"


def test_a_file_that_takes_no_forks_takes_none_whatever_the_stranger_writes(pulls: Pulls) -> None:
    pulls.repository.commit("base", pipeline_yaml=TEXT.replace(", forks: true", ""))
    commit = pulls.commit(pipeline_yaml=TEXT)
    pulls.show(7, commit)
    assert pulls.tell(7, commit) == "pull requests of forks are not taken (`forks: true`)"
    assert not [*pulls.server.folder.glob(".pipe-server/projects/shop/strangers-*.git")], "nothing of it is fetched"


def test_names_and_titles_are_texts_wherever_they_go(pulls: Pulls, tmp_path: Path) -> None:
    title, branch = "\x1b[2J${params.x} $(touch /tmp/pwned) `id`", 'x";touch${IFS}pwned;#'
    pulls.open(src__a="", told={"title": title, "branch": branch})
    pulls.approve(pulls.server.runs()[0])
    (run,) = pulls.server.settled(1)
    said = folder(pulls.server, run).log("s", 1).read_text()
    assert said == f" [2J${{params.x}} $(touch /tmp/pwned) `id`|{branch}|{branch}"
    assert not Path("/tmp/pwned").exists()
    assert not list(pulls.server.folder.rglob("pwned"))


def test_a_forks_branch_that_is_called_like_one_of_the_base_is_not_taken_for_it(pulls: Pulls) -> None:
    text = TEXT.replace("into: src, secret: git", f'into: src, url: "{pulls.server.url}", ref: main')
    pulls.repository.commit("base", pipeline_yaml=text, src__a="ours")
    pulls.open(src__a="theirs", told={"branch": "main"})
    pulls.approve(pulls.server.runs()[0])
    (run,) = pulls.server.settled(1)
    assert folder(pulls.server, run).log("s", 1).read_text().startswith("ours")


def test_a_pull_request_that_is_meant_for_another_base_by_now_is_approved_anew(pulls: Pulls) -> None:
    pulls.repository.git("branch", "release")
    pulls.repository.git("push", "-q", "origin", "release")
    pulls.repository.commit("newer", pipeline_yaml=TEXT + "  newer: {run: x}\n")
    head = pulls.open(src__a="theirs")
    note = pulls.tell(7, head, base="release", action="edited", changes={"ref": {"from": "main"}})
    assert note == "demo: #2 waits for approval"
    one, two = pulls.server.runs()
    assert (one["note"], pulls.approve(one)[0]) == (f"the pull request has moved on to {head[:12]} for release", 409)
    assert two["file_commit"] == pulls.repository.git("rev-parse", "release")
    assert (
        pulls.tell(7, head, base="main~1") == "the pull request is meant for main~1, which the repository does not have"
    )
    assert pulls.tell(7, head, base="release", action="edited") == "the pull request was edited, its commits were not"


@pytest.mark.parametrize(
    "theirs",
    [None, {}, {"full_name": "team/shop"}, {"full_name": "team/shop", "id": 2}, {"full_name": "Team/shop", "id": 1}],
)
def test_in_doubt_a_pull_request_is_a_forks(pulls: Pulls, theirs: Any) -> None:
    pulls.open(told={"theirs": theirs})
    (run,) = pulls.server.runs()
    assert (run["state"], run["trigger"]["fork"]) == ("waiting", True)


def test_a_commit_that_is_no_head_of_the_pull_request_is_not_run(pulls: Pulls) -> None:
    older = pulls.commit(src__a="older")
    pulls.show(7, older)
    pulls.tell(7, older)
    newer = pulls.commit(src__a="newer")
    pulls.show(7, newer)
    assert pulls.tell(7, older).startswith("it came late: pull request 7 has moved on to")
    assert pulls.tell(7, "--upload-pack=touch pwned") == "the delivery names no commit"
    assert pulls.tell(7, "HEAD") == "the delivery names no commit"
    assert "shows pull request 7 at" in pulls.tell(7, "a" * 40), "it may just not be shown yet"
    assert not list(pulls.server.folder.rglob("pwned"))


def test_a_push_that_claims_a_strangers_commit_starts_nothing(pulls: Pulls) -> None:
    head = pulls.open(src__a="theirs")
    _, answer = pulls.server.push(head)
    until(lambda: pulls._note(answer["delivery"]) != "")
    assert pulls._note(answer["delivery"]) == f"the repository has no commit {head} any more"
    ours = {"full_name": "team/shop", "id": 1}
    assert pulls.tell(7, head, theirs=ours) == f"the repository has no commit {head} any more"
    assert [run["state"] for run in pulls.server.runs()] == ["waiting"]


def test_a_link_out_of_the_workspace_leads_nowhere(pulls: Pulls) -> None:
    pulls.repository.commit("base", pipeline_yaml=TEXT.replace("s: {needs: co,", "s: {needs: co, dir: src/sub,"))
    (pulls.repository.tree / "sub").symlink_to("/etc")
    pulls.open()
    pulls.approve(pulls.server.runs()[0])
    (run,) = pulls.server.settled(1)
    assert (run["outcome"], run["note"]) == ("failed", "s: dir: src/sub leads out of the workspace")


# -- forges that show no head --------------------------------------------------------------------------


@dataclass
class Forge:
    """Repositories over HTTP: the base wants a login, forks are open to all."""

    folder: Path
    url: str
    asked: list[tuple[str, bool]]

    def fork(self, repository: Repository, commit: str, branch: str) -> str:
        bare = self.folder / "eve.git"
        subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
        repository.git("push", "-q", str(bare), f"{commit}:refs/heads/{branch}")
        return f"{self.url}/eve.git"


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    asked: list[tuple[str, bool]] = []

    class Host(Handler):
        folder = tmp_path
        password = "pw"

        def _authorized(self) -> bool:
            asked.append((self.path, "Authorization" in self.headers))
            return self.path.startswith("/eve.git/") or super()._authorized()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as host:
        thread = Thread(target=host.serve_forever)
        thread.start()
        yield Forge(tmp_path, f"http://127.0.0.1:{host.server_port}", asked)
        host.shutdown()
        thread.join()


def test_a_head_that_the_forge_shows_nowhere_is_fetched_from_the_fork_without_a_login(
    tmp_path: Path, repository: Repository, forge: Forge
) -> None:
    place = tmp_path / "server"
    place.mkdir()
    server = Server(place, f"{forge.url}/shop.git")
    words = ("projects", "add", "shop", server.url, "--forge", "gitea", "--username", "pipe")
    added = pipe(place, *words, env={**server.env, "PIPE_GIT_PASSWORD": "pw"})
    server.secret = added.stdout.split()[-1]
    server.start()
    try:
        repository.commit("base", pipeline_yaml=TEXT)
        pulls = Pulls(server, repository)
        head = pulls.commit(src__a="theirs")
        url = forge.fork(repository, head, "topic")
        assert pulls.tell(7, head, fork_url="http://127.0.0.1:1/eve.git").endswith("not where the project does")
        assert "'ext:' of the URL is not supported" in pulls.tell(7, head, fork_url="ext::sh -c id".replace(" ", "%20"))
        assert pulls.tell(7, head, fork_url=f"file://{forge.folder}/eve.git").endswith("not where the project does")
        assert pulls.tell(7, head, fork_url=url) == "demo: #1 waits for approval"
        pulls.approve(server.runs()[0])
        (run,) = server.settled(1)
        assert (run["outcome"], run["commit"]) == ("succeeded", head)
        assert folder(server, run).log("s", 1).read_text().startswith("theirs")
    finally:
        server.stop()
    assert {login for path, login in forge.asked if path.startswith("/eve.git/")} == {False}
