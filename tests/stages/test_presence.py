"""Which docker engine a machine has: each way to have none is told apart, and what follows is said."""

import os
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from stages.clients.docker.presence import look
from tests.support.program import PIPE, host

ROOT = os.getuid() == 0


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A folder whose sockets have names that fit, and that everybody may enter."""
    for folder in tmp_path.parents[:3]:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    return tmp_path


def test_no_engine_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.clients.docker.engine.DEFAULT_HOST", f"unix://{tmp_path}/docker.sock")
    found = look({}, tmp_path)
    assert (found.state, "DOCKER_HOST is not set" in found.said) == ("none", True)
    assert "`image` and `push` cannot run here" in found.follows[0]


def test_an_engine_that_was_named_and_is_not_there(tmp_path: Path) -> None:
    found = look({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}, tmp_path)
    assert (found.state, "there is no such socket" in found.said) == ("silent", True)


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_a_socket_that_is_closed_to_us_names_the_group_that_it_is_for(short: Path) -> None:
    place = short / "d.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        door.listen()
        place.chmod(0o660)
        os.chown(place, 0, 998)
        argv = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", str(PIPE), "doctor", "--host"]
        env = host(DOCKER_HOST=f"unix://{place}")
        shown = subprocess.run(argv, cwd=short, env=env, capture_output=True, text=True, check=True).stdout
    assert f"docker  closed: no permission on {place}" in shown
    assert "supplementalGroups: [998]" in shown


def test_an_engine_that_does_not_answer_yet_is_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))  # and nobody listens
        found = look({"DOCKER_HOST": f"unix://{place}"}, tmp_path, wait=0.2)
        assert (found.state, "wait for it before" in found.follows[0]) == ("not ready", True)


def test_one_that_answers_after_a_while_is_no_longer_not_ready(tmp_path: Path) -> None:
    place = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))

        def begin() -> None:
            time.sleep(0.3)
            door.listen()
            for _ in range(2):
                door.accept()[0].close()

        thread = threading.Thread(target=begin, daemon=True)
        thread.start()
        assert look({"DOCKER_HOST": f"unix://{place}"}, tmp_path, wait=20).state == "silent"
        thread.join(10)


@pytest.mark.sandbox
def test_an_engine_that_sees_the_workspace_and_one_that_does_not(tmp_path: Path) -> None:
    import sandbox

    env = host(DOCKER_HOST=sandbox.ensure().env["DOCKER_HOST"])
    before = containers(env)
    assert look(env, tmp_path).state == "near"
    # a file system that is mounted for us alone, as the workspace of a pod is for its containers
    inside = f"mount -t tmpfs tmpfs {shlex.quote(str(tmp_path))}; cd {shlex.quote(str(tmp_path))}; {PIPE} doctor --host"
    shown = subprocess.run(["unshare", "-m", "sh", "-ec", inside], env=env, capture_output=True, text=True, check=True)
    assert f"it does not see {tmp_path}" in shown.stdout
    assert "docker run -v" in shown.stdout
    assert (containers(env), list(tmp_path.iterdir())) == (before, [])


def containers(env: dict[str, str]) -> list[str]:
    argv = ["docker", "ps", "-aq"]
    return sorted(subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.split())
