"""The `pipe` command speaks to a server as it does to runs on its own machine, whatever happens to the connection."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runner.events import encode
from runner.folder import RunFolder
from runner.remote import streams
from runner.remote.connection import Lost, connect
from runner.remote.connection import Server as Connection
from runner.remote.runs import ServerRun, ServerRuns
from tests.runner.server.conftest import Repository, Server
from tests.support.program import PIPE, host, pipe
from tests.support.proxy import cutting
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]

TEXT = """name: demo
params: {word: {default: hello}}
triggers: {push: {}}
stages:
  say: {run: "echo saying $W; until test -e GO; do sleep 0.05; done", env: {W: "${params.word}"}}
  bad: {needs: say, run: "echo oh no; exit 3", when: params.word == 'bye'}
"""
LINES = 150
TALK = """name: demo
triggers: {push: {}}
stages:
  a: {run: "for i in $(seq LINES); do echo $i zwölf; sleep 0.005; done"}
  b: {run: "for i in $(seq LINES); do echo $i 日本; sleep 0.005; done"}
  c: {needs: [a, b], run: "echo c", retry: {times: 1, on: user}}
"""


@dataclass
class There:
    """A server whose runs end when they are let go."""

    server: Server
    folder: Path
    connected: list[Connection] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def env(self) -> dict[str, str]:
        return host(PIPE_TOKEN=self.server.token, PIPE_SERVER=self.url, XDG_CONFIG_HOME=str(self.folder))

    def pipe(self, *words: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = pipe(self.folder, *words, env={**self.env, **env}, limit=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def runs(self, port: int = 0) -> ServerRuns:
        url = f"http://127.0.0.1:{port or self.server.port}"
        self.connected.append(connect(url, {"PIPE_TOKEN": self.server.token}))
        return ServerRuns(self.connected[-1])

    def kept(self, number: int = 1) -> RunFolder:
        return RunFolder(self.server.folder / f".pipe-server/projects/shop/runs/demo/{number}")


@pytest.fixture
def there(server: Server, repository: Repository, tmp_path: Path) -> Iterator[There]:
    made = There(server, tmp_path / "laptop")
    made.folder.mkdir()
    repository.commit("two", pipeline_yaml=TEXT.replace("GO", str(made.folder / "go")))
    yield made
    made.let_go()
    for each in made.connected:
        each.close()


# -- commands --------------------------------------------------------------------------------------


def test_a_run_on_a_server_is_started_shown_and_ends_with_its_own_exit_code(there: There) -> None:
    there.let_go()
    red = there.pipe("run", "shop", "-p", "word=bye", "--follow", code=1)
    assert "[say] saying bye\n" in red.stdout
    assert "[bad] failed in 0.0s: the script ended with exit code 3\n" in red.stdout
    assert "---- bad failed: the script ended with exit code 3\n  oh no\n" in red.stdout
    green = there.pipe("run", "shop", "demo", "--follow", "-o", "json")
    assert [json.loads(line)["type"] for line in green.stdout.splitlines()][-1] == "run.finished"
    listed = there.pipe("runs").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["shop/demo#2", "succeeded"], ["shop/demo#1", "failed"]]
    assert listed[1].endswith("bad: the script ended with exit code 3")
    assert "✖ bad" in there.pipe("show", "demo#1").stdout
    row, shown = (json.loads(there.pipe(*words, "--json").stdout) for words in (("runs", "-n", "1"), ("show", "2")))
    assert [row[each] for each in ("started", "finished")] == [shown[each] for each in ("started", "finished")]
    assert json.loads(there.pipe("show", "1", "--json").stdout)["leaves"]["bad"]["outcome"] == "failed"
    why = json.loads(there.pipe("doctor", "--json").stdout)["run"]
    assert (why["run"], why["cause"]["leaf"], why["log"]) == ("shop/demo#1", "bad", ["oh no"])
    assert there.pipe("logs", "shop/demo#1", "bad").stdout == "oh no\n"
    assert "[say] saying bye\n" in there.pipe("logs", "1").stdout
    assert "param word: bye → hello" in there.pipe("diff", "1", "2").stdout


def test_ctrl_c_leaves_a_run_on_a_server_alone_and_says_how_to_end_it(there: There) -> None:
    argv = [str(PIPE), "run", "shop", "--follow"]
    follow = subprocess.Popen(argv, cwd=there.folder, env=there.env, stdout=-1, stderr=-1, text=True)
    until(lambda: there.kept().log("say", 1).exists())
    assert follow.stdout is not None
    while "saying hello" not in follow.stdout.readline():
        pass
    follow.send_signal(signal.SIGINT)
    _, errors = follow.communicate(timeout=20)
    assert follow.returncode == 130
    assert f"`pipe cancel --server {there.url} 'shop/demo#1'` ends it" in errors
    assert "shop/demo#1  running" in there.pipe("runs").stdout
    assert "running:" not in there.pipe("show").stdout, "nothing is to be added"
    assert there.pipe("cancel").stdout == "shop/demo#1: asked to end\nshop/demo#1: cancelled\n"
    assert "is not running: cancelled" in there.pipe("cancel", "1", code=2).stderr


def test_a_run_that_waits_for_its_start_can_be_followed_and_cancelled(there: There) -> None:
    there.server.stop()
    there.server.start("--runs", "1")
    assert there.pipe("run", "shop").stdout == "shop/demo#1\n"
    until(lambda: there.kept().log("say", 1).exists())
    there.pipe("run", "shop")
    assert "shop/demo#2  queued" in there.pipe("runs").stdout
    assert "has not begun" in there.pipe("show", "2", code=2).stderr
    follow = subprocess.Popen([PIPE, "logs", "2", "say", "-f"], cwd=there.folder, env=there.env, stdout=-1, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        follow.wait(1.5)
    assert "which run do you mean: shop/demo#1, shop/demo#2?" in there.pipe("cancel", code=2).stderr
    there.let_go()
    assert (follow.communicate(timeout=30)[0], follow.returncode) == ("saying hello\n", 0)


def test_a_run_that_could_not_begin_says_why_to_who_follows(there: There, repository: Repository) -> None:
    text = TEXT.replace("stages:", "secrets: {token: text}\nstages:").replace("say: {", "say: {secrets: {T: token}, ")
    repository.commit("three", pipeline_yaml=text)
    done = there.pipe("run", "shop", "--follow", code=1)
    assert "shop/demo#1 never began: errored; " in done.stderr
    assert "secret 'token' was not found" in done.stderr
    for command in ("show", "doctor"):
        why = there.pipe(command, code=2).stderr
        assert "is errored and never began: " in why
        assert "secret 'token' was not found" in why


def test_all_that_is_wrong_with_a_start_is_told_and_nothing_is_started(there: There) -> None:
    (there.folder / "pipeline.yaml").write_text("name: x\nstages: {s: {run: 'true'}}\n")
    wrong = there.pipe("run", "pipeline.yaml", code=2).stderr
    assert "has no project 'pipeline.yaml'; known: shop; to run that file here say --server ''" in wrong
    wrong = there.pipe("run", "shop", "demo", "demi", "-p", "wort=x", "-p", "word", code=2).stderr
    assert wrong.splitlines() == [
        "shop has no pipeline 'demi'; did you mean 'demo'?",
        "-p wort=x: there is no parameter 'wort'; did you mean 'word'?",
        "-p word: write -p NAME=VALUE",
    ]
    assert "no branch, tag or commit 'nope'" in there.pipe("run", "shop", "--ref", "nope", code=2).stderr
    assert "--jobs: of runs on this machine alone" in there.pipe("run", "shop", "-j", "2", code=2).stderr
    assert there.server.runs() == []
    assert "x#1 started" in there.pipe("run", "pipeline.yaml", "--server", "").stdout


def test_the_same_key_again_starts_nothing_new(there: There) -> None:
    server = there.runs().server
    body = {"pipeline": "demo", "key": "k"}
    made = [server.post("projects", "shop", "runs", body=body) for _ in range(3)]
    assert [each["number"] for each in made] == [1, 1, 1]
    assert server.post("projects", "shop", "runs", body={"pipeline": "demo"})["number"] == 2


def test_logging_in_keeps_a_token_for_this_user_alone(there: There) -> None:
    file = there.folder / "pipe-ci/tokens.json"
    bare = {**host(XDG_CONFIG_HOME=str(there.folder)), "PIPE_SERVER": there.url}

    def login(token: str) -> subprocess.CompletedProcess[str]:
        argv = [str(PIPE), "login"]
        return subprocess.run(argv, input=token, env=bare, capture_output=True, text=True, timeout=20, check=False)

    wrong = login("wrong\n")
    assert (wrong.returncode, "does not know this token" in wrong.stderr, file.exists()) == (2, True, False)
    assert "wants a token: `pipe login http" in pipe(there.folder, "runs", env=bare).stderr
    done = login(f"{there.server.token}\n")
    assert (done.returncode, there.server.token in done.stdout + done.stderr) == (0, False)
    assert [oct(path.stat().st_mode & 0o777) for path in (file, file.parent)] == ["0o600", "0o700"]
    assert "there are no runs in http" in pipe(there.folder, "runs", env=bare).stderr
    file.chmod(0o640)
    assert f"others may read the tokens in {file}" in pipe(there.folder, "runs", env=bare).stderr
    file.chmod(0o600)
    assert pipe(there.folder, "logout", there.url.upper().replace("HTTP", "http"), env=bare).returncode == 0
    assert file.read_text() == "{}"


# -- connections that break ------------------------------------------------------------------------


@pytest.fixture
def talking(there: There, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(streams, "LONGEST_PAUSE", 0.05)
    repository.commit("talk", pipeline_yaml=TALK.replace("LINES", str(LINES)))
    yield there
    until(lambda: there.kept().ended() is not None, 60)


def begun(there: There, port: int = 0) -> ServerRun:
    made = there.runs().server.post("projects", "shop", "runs", body={"pipeline": "demo"})
    until(there.kept(made["number"]).plan.exists)
    known = there.runs(port)
    return ServerRun(known.server, there.runs().server.get("runs", made["run"]))


def follow(run: ServerRun) -> tuple[list[bytes], dict[str, bytes]]:
    """All records as they came, and the logs of the first attempts."""
    spools = {leaf: run.logs.blocks(leaf, 1) for leaf in "abc"}
    said, got = [], dict.fromkeys(spools, b"")
    for record in run.follow(logs=True):
        if record is not None:
            said.append(encode(record))
        for leaf, spool in spools.items():
            got[leaf] += spool.read()
    return said, got


def kept(there: There) -> tuple[list[bytes], dict[str, bytes]]:
    folder = there.kept()
    return [encode(record) for record in folder.records()], {leaf: folder.log(leaf, 1).read_bytes() for leaf in "abc"}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_or_doubled_when_connections_are_cut_at_random_places(talking: There, seed: int) -> None:
    with cutting(talking.server.port, seed, 2500) as (port, cuts):
        found = follow(begun(talking, port))
        assert cuts() > 2
    assert found == kept(talking)


def test_the_bytes_of_a_log_are_whole_when_connections_are_cut(talking: There) -> None:
    with cutting(talking.server.port, 7, 3000) as (port, cuts):
        run = begun(talking, port)
        until(lambda: talking.kept().log("a", 1).exists())
        assert b"".join(run.log("a", 1, follow=True)) == talking.kept().log("a", 1).read_bytes()
        assert cuts() > 1
    assert len(talking.kept().log("a", 1).read_bytes().splitlines()) == LINES


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restart_of_the_server_is_survived_by_who_follows(talking: There, how: str) -> None:
    run = begun(talking)
    found: list[tuple[list[bytes], dict[str, bytes]]] = []
    thread = threading.Thread(target=lambda: found.append(follow(run)))
    thread.start()
    until(lambda: talking.kept().log("b", 1).exists())
    getattr(talking.server, how)()
    talking.server.start()
    thread.join(60)
    assert found == [kept(talking)]
    if how == "stop":
        assert "Traceback" not in (talking.server.folder / "server.err").read_text()


def test_who_waits_in_vain_for_a_server_is_told(talking: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GIVES_UP_AFTER", 0.2)
    run = begun(talking)
    talking.server.kill()
    with pytest.raises(Lost, match="there is no server at http"):
        list(run.follow())
    talking.server.start()
