"""Runs of a project are a user of their own: they reach neither another project nor the server."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan import Limits
from runner.cgroups import Group, NoGroup, named
from runner.folder import RunFolder
from runner.server.users import as_owner
from tests.runner.server.conftest import Repository, Server
from tests.support.control_groups import control_groups
from tests.support.program import pipe
from tests.support.wait import until

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes as other users"),
]

ROOT = Path(__file__).parents[3]
NOBODY = 65534


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user may go through, with a `pipe` in it that every user may run."""
    folder = Path(tempfile.mkdtemp(prefix="pipe-open-"))
    folder.chmod(0o755)
    python = Path("/usr/bin/python3")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        if not python.exists() or version not in subprocess.check_output([python, "-V"], text=True):
            pytest.skip(f"there is no {python} of version {version} for other users")
        subprocess.run([python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        packages = [path for path in sys.path if path.endswith("site-packages")]
        own = folder / f"venv/lib/python{version}/site-packages/open.pth"
        own.write_text("\n".join([str(ROOT), *packages]) + "\n")
        pipe_ = folder / "venv/bin/pipe"
        pipe_.write_text(f"#!{folder}/venv/bin/python\nfrom runner.launch import main\nmain()\n")
        pipe_.chmod(0o755)
        can = subprocess.run(
            [folder / "venv/bin/python", "-c", "import runner.cli"], user=NOBODY, group=NOBODY, capture_output=True,
            text=True, cwd="/", check=False,
        )  # fmt: skip
        if can.returncode:
            pytest.skip(f"other users cannot read this working tree: {can.stderr.splitlines()[-1:]}")
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def team(place: Path, repository: Repository) -> Iterator[Server]:
    """A server with two projects, `shop` and `rival`, of one repository."""
    folder = Path(tempfile.mkdtemp(dir=place))
    folder.chmod(0o755)
    made = Server(folder, f"file://{repository.bare}", program=place / "venv/bin/pipe")
    made.add()
    made.add(name="rival")
    yield made
    if made.process and made.process.poll() is None:
        made.stop()


def start(server: Server, project: str, pipeline: str) -> str:
    return str(server.call(f"/api/v1/projects/{project}/runs", pipeline=pipeline)["run"])


def ended(server: Server, run: str) -> dict[str, Any]:
    until(lambda: server.get(f"/api/v1/runs/{run}")["state"] == "ended", 60)
    found: dict[str, Any] = server.get(f"/api/v1/runs/{run}")
    return found


def console(server: Server, project: str, run: str) -> str:
    return (server.folder / f".pipe-server/projects/{project}/{run}.console").read_text()


VICTIM = """
  victim:
    secrets: {token: text}
    stages: {s: {secrets: {T: token}, run: "echo private > left; touch $HOME/began; sleep 60"}}
"""
THIEF = """
  thief:
    stages:
      s:
        run: |
          id -u
          try() { if "$@" > /dev/null 2>&1; then echo "REACHED $*"; else echo "refused"; fi; }
          try cat STATE/key
          try cat STATE/server.db
          try cat STATE/server.db-wal
          try cat STATE/first-token
          try ls STATE
          try ls STATE/projects/rival
          try ls STATE/projects/rival/runs
          try cat STATE/projects/rival/runs/victim/1/plan.json
          try ls STATE/projects/rival/scratch/VICTIM
          try ls STATE/projects/rival/home
          try cat STATE/projects/rival/COPY/HEAD
          try cat /proc/SERVER/environ
          try cat /proc/RIVAL/environ
          try kill RIVAL
          try kill SERVER
          try touch STATE/projects/shop/COPY/config
          try mv STATE/projects/shop/COPY STATE/projects/shop/other
"""


def test_a_run_reaches_neither_another_project_nor_the_server(team: Server, repository: Repository) -> None:
    given = subprocess.run(
        [team.program, "secrets", "set", "rival", "token"],
        input="hunter2hunter2",
        cwd=team.folder,
        text=True,
        check=False,
    )
    assert given.returncode == 0
    repository.commit("victim", pipeline_yaml=f"pipelines:{VICTIM}")
    team.start()
    assert "not isolated" not in (team.folder / "server.err").read_text()
    assert team.process is not None
    victim = start(team, "rival", "victim")
    until((team.folder / ".pipe-server/projects/rival/home/began").exists, 60)
    pid = team.get(f"/api/v1/runs/{victim}")["pid"]
    state = team.folder / ".pipe-server"
    (copy,) = {place.name for place in state.glob("projects/*/repository-*.git")}
    words = {"STATE": state, "VICTIM": victim, "SERVER": team.process.pid, "RIVAL": pid, "COPY": copy}
    text = THIEF
    for name, value in words.items():
        text = text.replace(name, str(value))
    repository.commit("thief", pipeline_yaml=f"pipelines:{text}{VICTIM}")
    thief = ended(team, start(team, "shop", "thief"))
    assert thief["outcome"] == "succeeded", thief
    said = console(team, "shop", thief["id"])
    tries = [line.removeprefix("[s] ") for line in said.splitlines() if "refused" in line or "REACHED" in line]
    assert tries == ["refused"] * THIEF.count("          try "), said
    uids = {(team.folder / f".pipe-server/projects/{name}/runs").stat().st_uid for name in ("shop", "rival")}
    assert uids == {200000, 200001}
    assert "hunter2" not in said
    team.call(f"/api/v1/runs/{victim}/cancel")
    assert ended(team, victim)["outcome"] == "cancelled"


def test_a_link_of_a_run_shows_nothing_of_the_server(team: Server, repository: Repository) -> None:
    key = team.folder / ".pipe-server/key"
    steal = f"ln -sf {key} $PWD/../../runs/demo/1/logs/s.2.log; ln -s {key} $PWD/../../runs/demo/1/logs/t.1.log"
    repository.commit("link", pipeline_yaml=f"name: demo\nstages: {{s: {{run: '{steal}'}}}}\n")
    team.start()
    run = ended(team, start(team, "shop", "demo"))
    assert run["outcome"] == "succeeded", run
    assert (team.folder / ".pipe-server/projects/shop/runs/demo/1/logs/t.1.log").is_symlink()
    for path in ("logs/t", "logs/s?attempt=2"):
        assert team.ask(f"/api/v1/runs/{run['id']}/{path}", authorization=f"Bearer {team.token}")[0] == 404


def test_a_run_goes_on_as_the_same_user_with_its_secrets_again(team: Server, repository: Repository) -> None:
    text = """name: demo
secrets: {token: text}
stages:
  s: {secrets: {T: token}, run: 'id -u; printf %s "$T" | wc -c; touch $HOME/began; until test -e $HOME/go; do sleep 0.1; done'}
"""
    subprocess.run(
        [team.program, "secrets", "set", "shop", "token"], input=b"hunter2hunter2\n", cwd=team.folder, check=True
    )
    repository.commit("slow", pipeline_yaml=text)
    team.start()
    run = start(team, "shop", "demo")
    home = team.folder / ".pipe-server/projects/shop/home"
    until((home / "began").exists, 60)
    pid = team.get(f"/api/v1/runs/{run}")["pid"]
    (home / "go").touch()
    os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), 9)
    found = ended(team, run)
    assert (found["outcome"], found["revived"]) == ("succeeded", 1)
    folder = RunFolder(team.folder / ".pipe-server/projects/shop/runs/demo/1")
    assert folder.log("s", 2).read_text() == "200000\n14\n"
    for file in folder.path.rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes()


def test_what_was_asked_for_and_cannot_be_is_refused_at_the_start(team: Server) -> None:
    closed = Path(tempfile.mkdtemp(dir=team.folder))
    done = subprocess.run(
        [team.program, "serve", "--port", str(team.port), "--uids", "300000-300009"], cwd=closed, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    why = f"user 300000 cannot run pipe here: it may not go through {closed}, on the way to {closed}/.pipe-server/projects"
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    for words, why in (("root", "that is whom runs are kept from"), ("nobody-here", "no such user")):
        done = pipe(team.folder, "serve", "--port", str(team.port), "--uids", words)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr


def test_a_server_that_cannot_isolate_says_so(team: Server) -> None:
    team.start("--uids", "none")
    assert "pipe: projects are not isolated" in (team.folder / "server.err").read_text()
    assert (team.folder / ".pipe-server").stat().st_mode & 0o077 == 0


def test_a_run_is_held_to_its_memory_its_processes_and_its_place(team: Server, repository: Repository) -> None:
    try:
        Group(f"pipe-test-{os.getpid()}", Limits(memory=1 << 28)).close()
    except NoGroup as reason:
        pytest.skip(f"no control groups here: {reason}")
    hungry = "/usr/bin/python3 -c 'x = bytearray(600 << 20)' || echo \"ended with $?\""
    text = f"name: demo\nstages:\n  s:\n    run: |\n      nice; bash -c 'ulimit -u'\n      {hungry}\n"
    repository.commit("hungry", pipeline_yaml=text)
    team.start("--run-memory", "400Mi", "--nice", "7", "--run-processes", "300")
    run = ended(team, start(team, "shop", "demo"))
    folder = RunFolder(team.folder / ".pipe-server/projects/shop/runs/demo/1")
    nicer = str(min(19, os.nice(0) + 7))
    assert (run["outcome"], folder.log("s", 1).read_text().split()[:2]) == ("succeeded", [nicer, "300"])
    assert "ended with 137" in folder.log("s", 1).read_text()
    group = named(run["id"], "", 0)
    until(lambda: not control_groups(group))


def test_files_are_reached_with_no_more_rights_than_their_owner_has(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.write_text("secret")
    ours.chmod(0o600)
    os.chown(theirs, 200000, 200000)
    tmp_path.chmod(0o755)
    with as_owner(theirs), pytest.raises(PermissionError):
        ours.read_text()
    assert ours.read_text() == "secret"


def test_what_a_run_puts_in_its_folder_ends_no_server(team: Server, repository: Repository) -> None:
    spoil = "cd ../../runs/demo/1; rm -rf events.* plan.json logs; ln -s /root logs; ln -s /root/x plan.json; mkdir events.1.jsonl events.2.jsonl; kill -9 $PPID"
    repository.commit("bad", pipeline_yaml=f"name: demo\nstages: {{s: {{run: '{spoil}'}}}}\n")
    team.start()
    first = ended(team, start(team, "shop", "demo"))
    repository.commit("good", pipeline_yaml="name: demo\nstages: {s: {run: 'true'}}\n")
    other = ended(team, start(team, "rival", "demo"))
    assert (first["outcome"], other["outcome"], other["number"]) == ("errored", "succeeded", 1)
