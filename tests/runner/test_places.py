"""Odd places to run in: without a terminal, a home, a name, a file system that can be written, and in folders with odd names."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import lockless
from tests.support.jenkins import Step
from tests.support.program import PIPE, host, pipe

pytestmark = pytest.mark.slow

ROOT = os.getuid() == 0

FILE = """name: demo
secrets: {key: file}
stages:
  one: {secrets: {KEY: key}, run: 'read x < $KEY; echo "in $PWD"; id -u > user'}
  two: {run: "echo no secret"}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a pipeline in it, that anybody may enter and change."""
    place = tmp_path / "a job@2"
    place.mkdir()
    (place / "p.yaml").write_text(FILE)
    (place / "key").write_text("correct-horse\n")
    shared = Path(tempfile.gettempdir())
    for folder in (place, *place.parents):
        if folder.is_relative_to(shared) and folder != shared:  # which keeps its own mode, and its stickiness
            folder.chmod(0o777 if folder == place else 0o755)
    return place


def env(workspace: Path, *without: str, **more: str) -> dict[str, str]:
    given = host(PIPE_SECRET_KEY_FILE=str(workspace / "key"), CI="true", **more)
    return {name: value for name, value in given.items() if name not in without}


def test_a_workspace_with_blanks_and_an_at_in_its_name(workspace: Path) -> None:
    done = pipe(workspace, "run", "p.yaml", env=env(workspace))
    assert (done.returncode, f"[one] in {workspace}\n" in done.stdout) == (0, True), done.stderr
    step = Step(workspace, f"{shlex.quote(str(PIPE))} run p.yaml", PIPE_SECRET_KEY_FILE=str(workspace / "key"))
    assert step.wait() == 0, step.log


def test_nohup_and_closed_streams(workspace: Path) -> None:
    words = f"{shlex.quote(str(PIPE))} run p.yaml"
    for closed in ("<&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["nohup", "sh", "-c", f"exec {words} {closed}"], cwd=workspace, env=env(workspace), check=False
        )
        assert done.returncode == 0, closed
    assert len(list((workspace / ".pipe/demo").iterdir())) == 4


def test_no_home(workspace: Path) -> None:
    done = pipe(workspace, "run", "p.yaml", env=env(workspace, "HOME"))
    assert done.returncode == 0, done.stderr
    assert not (workspace / "~").exists()


@pytest.mark.skipif(not ROOT, reason="only root can become somebody whom nobody knows")
@pytest.mark.parametrize("home", ["/", "/nonexistent", ""])
def test_a_random_user_without_a_home(workspace: Path, home: str) -> None:
    """As OpenShift gives every container: a uid without an entry in /etc/passwd, group 0."""
    (workspace / "key").chmod(0o644)
    given = env(workspace, "HOME", **({"HOME": home} if home else {}))
    argv = ["setpriv", "--reuid", "1000650000", "--regid", "0", "--clear-groups", str(PIPE), "run", "p.yaml"]
    done = subprocess.run(argv, cwd=workspace, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace / "user").read_text() == "1000650000\n"
    assert sorted(path.name for path in workspace.iterdir()) == [".pipe", "key", "p.yaml", "user"]


@pytest.mark.skipif(not ROOT, reason="only root can make the root file system unwritable")
@pytest.mark.parametrize("memory", ["", "mount -o remount,ro,bind /dev/shm; "], ids=["with /dev/shm", "without it"])
def test_a_root_file_system_that_cannot_be_written(workspace: Path, memory: str) -> None:
    inside = (
        f"cd {shlex.quote(str(workspace))}; mount --bind . .; mount -o remount,ro,bind /; {memory}"
        "cd .; ! touch /tmp/x 2>/dev/null || exit 99; "
        f"cd {shlex.quote(str(workspace))}; exec {shlex.quote(str(PIPE))} run p.yaml"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", inside], cwd="/", env=env(workspace), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[two] no secret" in done.stdout


def test_a_store_that_cannot_be_written_is_named_with_the_way_out(workspace: Path) -> None:
    done = pipe(workspace, "run", "p.yaml", env=env(workspace, PIPE_STORE="/proc/nowhere"))
    assert (done.returncode, "cannot write /proc/nowhere" in done.stderr, "PIPE_STORE" in done.stderr) == (
        2,
        True,
        True,
    )


WITHOUT_LOCKS = """name: demo
stages:
  one: {cache: kept, run: "mkdir -p kept; echo x >> kept/made; wc -l < kept/made"}
  two: {uses: maven, with: {goals: package}}
"""


def test_a_file_system_without_locks_keeps_caches_and_refuses_what_has_to_be_alone_with_the_way_out(
    workspace: Path,
) -> None:
    """As NFS that is mounted without them; here every flock(2) of the run is answered with ENOLCK."""
    (workspace / "p.yaml").write_text(WITHOUT_LOCKS)
    (workspace / "mvnw").write_text("#!/bin/sh\n")
    (workspace / "mvnw").chmod(0o755)

    def without_locks(*words: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, lockless.__file__, "ENOLCK", str(PIPE), *words]
        given = env(workspace, PIPE_CACHE=str(workspace / "cache"))
        return subprocess.run(argv, cwd=workspace, env=given, capture_output=True, text=True, check=False)

    told = "this file system has no locks: let PIPE_CACHE name a folder of its own on a disk that has them"
    for lines in ("1", "2"):
        done = without_locks("run", "p.yaml")
        if done.returncode == 77:
            pytest.skip("this host lets us filter no system calls")
        assert (done.returncode, f"[one] {lines}\n" in done.stdout) == (1, True), done.stdout + done.stderr
        assert f"[two] errored in 0.0s: {workspace}/cache/maven/repositories/0.lock: {told}" in done.stdout
        shutil.rmtree(workspace / "kept")
    cleared = without_locks("cache", "clear")
    assert (cleared.returncode, told in cleared.stderr) == (2, True)


def test_no_module_of_ours_needs_a_home_to_be_imported(workspace: Path) -> None:
    argv = [sys.executable, "-c", "import runner.cli, runner.commands.run"]
    assert subprocess.run(argv, cwd=workspace, env=env(workspace, "HOME"), check=False).returncode == 0
