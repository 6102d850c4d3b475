"""Secrets of projects: kept sealed, never shown, and given to runs of their project that declare them."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from pipeline.errors import PipeError
from pipeline.plan import SecretSource, Trigger
from pipeline.stage import Login, SecretFile, SecretText
from runner.handover import Handed, Received, offer, receive
from runner.server import secrets
from runner.server.database import Database, projects
from runner.server.database import secrets as table
from runner.server.sealing import Seal
from tests.runner.server.conftest import Repository, Server
from tests.runner.server.test_server import log
from tests.support.program import PIPE, host, pipe
from tests.support.wait import until

TEXT, LOGIN, FILE = (SecretSource(kind=kind) for kind in ("text", "login", "file"))
PUSH, FORK = Trigger(kind="push"), Trigger(kind="pull_request", fork=True)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Database, Seal]:
    database, seal = Database(tmp_path / "server.db"), Seal(tmp_path, {})
    for name in ("shop", "rival"):
        row = {"name": name, "place": name, "url": "", "file": "", "forge": "", "created": 0.0}
        sealed = {"secret": b"", "login": b"", "token": b""}
        database.write_now(lambda c, row={**row, **sealed}: c.execute(insert(projects).values(row)))  # type: ignore[misc]
    for project, name, secret in (
        ("shop", "token", Handed(kind="text", value="of the shop")),
        ("shop", "other", Handed(kind="text", value="not declared")),
        ("rival", "token", Handed(kind="text", value="of the rival")),
    ):
        database.write_now(lambda c, p=project, n=name, s=secret: secrets.put(c, seal, p, n, s))  # type: ignore[misc]
    return database, seal


def given(kept: tuple[Database, Seal], trigger: Trigger, *places: dict[str, str]) -> dict[str, str]:
    database, seal = kept
    declared = {"token": TEXT, "absent": TEXT, "git": LOGIN}
    found = database.read_now(lambda c: secrets.for_run(c, seal, "shop", trigger, declared, places))
    return {name: each.value for name, each in found.items()}


def test_a_run_is_given_what_its_pipeline_declares_of_its_own_project(kept: tuple[Database, Seal]) -> None:
    assert given(kept, PUSH) == {"token": "of the shop"}


def test_what_the_database_has_not_comes_from_the_places_before_it(kept: tuple[Database, Seal]) -> None:
    places = {"PIPE_SECRET_TOKEN": "x", "PIPE_SECRET_GIT_USERNAME": "ci", "PIPE_SECRET_GIT_PASSWORD": "pw"}
    assert given(kept, PUSH, {}, places) == {"token": "of the shop", "git": "pw"}


def test_a_pull_request_of_a_fork_is_given_nothing_from_nowhere(kept: tuple[Database, Seal]) -> None:
    assert given(kept, FORK, {"PIPE_SECRET_GIT_USERNAME": "ci", "PIPE_SECRET_GIT_PASSWORD": "pw"}) == {}


def test_values_lie_sealed_and_only_names_are_listed(kept: tuple[Database, Seal], tmp_path: Path) -> None:
    database, _ = kept
    assert [(each.name, each.kind) for each in database.read_now(lambda c: secrets.known(c, "shop"))] == [
        ("other", "text"),
        ("token", "text"),
    ]
    database.close()
    for file in tmp_path.iterdir():
        assert b"of the shop" not in file.read_bytes()


def test_what_is_handed_over_can_be_read_once() -> None:
    sent = {"t": Handed(kind="text", value="ü" * 100_000), "k": Handed(kind="file", value="AP8=")}
    descriptor = offer(sent)
    other = os.dup(descriptor)
    received = receive(descriptor)
    assert received is not None
    assert received.secrets == sent
    assert os.pread(other, 1, 0) == b""
    os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    file = received.secret("k", "file")
    assert isinstance(file, SecretFile)
    assert (file.path.read_bytes(), file.path.stat().st_mode & 0o777) == (b"\0\xff", 0o600)
    assert received.secret("t", "text") == SecretText("ü" * 100_000)
    with pytest.raises(PipeError, match="declared as login, and the server keeps a text"):
        received.secret("t", "login")
    assert Received({"l": Handed(kind="login", value="p", username="u")}).secret("l", "login") == Login("u", "p")


def test_a_descriptor_that_holds_no_secrets_is_told(tmp_path: Path) -> None:
    done = pipe(tmp_path, "run", "x.yaml", "--secrets-fd", "77")
    assert (done.returncode, "--secrets-fd 77: no secrets come from there" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("kind", "content", "username", "why"),
    [
        ("text", b"  \n", "", "the secret is empty"),
        ("text", b"\xff\xfe", "", "text in UTF-8"),
        ("login", b"pw", "", "a login has a user name"),
        ("text", b"pw", "ci", "no other kind has one"),
        ("file", b"x" * (secrets.LARGEST + 1), "", "no more than 256 KiB"),
    ],
)
def test_a_secret_that_cannot_be_is_refused(kind: str, content: bytes, username: str, why: str) -> None:
    with pytest.raises(PipeError, match=why):
        secrets.secret_of(kind, content, username)  # type: ignore[arg-type]


def test_the_end_of_the_line_is_no_part_of_a_text_and_stays_in_a_file() -> None:
    assert secrets.secret_of("text", b"pw\r\n").value == "pw"
    assert secrets.secret_of("login", b"pw\n", "ci").value == "pw"
    assert base64.b64decode(secrets.secret_of("ssh", b"key\n").value) == b"key\n"


def test_a_secrets_env_that_others_can_have_made_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("PIPE_SECRET_TOKEN=x\n")
    (tmp_path / "mine").chmod(0o600)
    file = tmp_path / "secrets.env"
    file.symlink_to(tmp_path / "mine")
    with pytest.raises(PipeError, match=r"secrets\.env"):
        secrets.places(tmp_path, {})
    file.unlink()
    (tmp_path / "mine").rename(file)
    assert secrets.places(tmp_path, {"A": "b"}) == [{"A": "b"}, {"PIPE_SECRET_TOKEN": "x"}]


DECLARING = """name: demo
triggers: {push: {}}
secrets: {token: text, git: login, config: file, later: {kind: text, env: LATER}}
stages:
  s:
    secrets: {T: token, U: git.username, P: git.password, F: config, L: later}
    run: |
      printf '%s' "$T" | wc -c; echo "$U"; printf '%s' "$P" | wc -c; wc -c < "$F"; printf '%s' "$L" | wc -c
      env -u T -u P -u L | grep -c hunter || true
      touch BEGAN; until test -e GO; do sleep 0.1; done
"""


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_secrets_reach_a_run_by_no_list_of_processes_no_environment_and_no_disk(
    server: Server, repository: Repository
) -> None:
    server.stop()
    server.env["LATER"] = "hunter-later"
    for words, value in (
        (("token",), "hunter-token\n"),
        (("git", "--kind", "login", "--username", "ci"), "hunter-pw"),
        (("config", "--kind", "file"), "apiVersion: v1\n"),
    ):
        argv: list[str | Path] = [PIPE, "secrets", "set", "shop", *words]
        subprocess.run(argv, input=value, cwd=server.folder, env=host(), text=True, check=True)
    server.start("--pass", "LATER")
    text = DECLARING.replace("BEGAN", f"{server.folder}/began").replace("GO", f"{server.folder}/go")
    server.push(repository.commit("two", pipeline_yaml=text))
    until((server.folder / "began").exists)
    guardian = Path(f"/proc/{server.runs()[0]['pid']}")
    engine = Path(f"/proc/{(guardian / f'task/{guardian.name}/children').read_text().split()[0]}")
    for process in (guardian, engine):
        assert b"hunter" not in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        held = [each for each in (process / "fd").iterdir() if "memfd:secrets" in str(each.readlink())]
        assert all(each.read_bytes() == b"" for each in held)
    (server.folder / "go").touch()
    (run,) = server.settled(1)
    assert (run["outcome"], log(server, run)) == ("succeeded", "12\nci\n9\n15\n12\n0\n"), run
    for file in (server.folder / ".pipe-server").rglob("*"):
        assert not file.is_file() or b"hunter-" not in file.read_bytes(), file


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_api_takes_secrets_and_shows_none(server: Server) -> None:
    def ask(path: str, method: str, body: object = None) -> tuple[int, str]:
        argv = ["curl", "-s", "-w", "\n%{http_code}", "-X", method, "-H", f"Authorization: Bearer {server.token}"]
        argv += ["-H", "Content-Type: application/json", "--data", json.dumps(body)] if body else []
        url = f"http://127.0.0.1:{server.port}/api/v1/projects/{path}"
        said = subprocess.run([*argv, url], capture_output=True, text=True, timeout=20, check=True).stdout
        text, _, code = said.rpartition("\n")
        return int(code), text

    assert ask("shop/secrets/key", "PUT", {"kind": "file", "base64": "AP8="}) == (204, "")
    code, text = ask("shop/secrets", "GET")
    assert (code, [(each["name"], each["kind"]) for each in json.loads(text)]) == (200, [("key", "file")])
    assert set(json.loads(text)[0]) == {"name", "kind", "changed"}
    assert ask("shop/secrets/key", "PUT", {"kind": "login", "value": "x"})[0] == 422
    assert ask("shop/secrets/a%20b", "PUT", {"value": "x"})[0] == 422
    assert ask("nobody/secrets/key", "PUT", {"value": "x"})[0] == 404
    assert [ask("shop/secrets/key", "DELETE")[0] for _ in range(2)] == [204, 404]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_removing_a_project_forgets_its_secrets(tmp_path: Path) -> None:
    assert pipe(tmp_path, "projects", "add", "shop", "https://git.example/shop.git", "--no-check").returncode == 0
    argv: list[str | Path] = [PIPE, "secrets", "set", "shop", "token"]
    for name, told in (("token", "token"), ("git", "git, token")):
        given = subprocess.run(
            [*argv[:-1], name], input="hunter2", cwd=tmp_path, env=host(), text=True, check=True, capture_output=True
        )
        assert given.stdout == f"shop: {name} is set (text); it has {told}\n", "which one, and never what it is"
    assert pipe(tmp_path, "secrets", "remove", "shop", "git").returncode == 0
    assert pipe(tmp_path, "secrets", "list", "shop").stdout.startswith("token  text  ")
    assert "did you mean 'token'?" in pipe(tmp_path, "secrets", "remove", "shop", "tokn").stderr
    assert "did you mean 'shop'?" in pipe(tmp_path, "secrets", "list", "shp").stderr
    assert pipe(tmp_path, "projects", "remove", "shop").returncode == 0
    database = Database(tmp_path / ".pipe-server/server.db")
    assert database.read_now(lambda c: c.execute(select(table)).all()) == []
    database.close()
