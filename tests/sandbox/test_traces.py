"""What is left of a sandbox after its end, however it ended: nothing."""

import os
import signal
import subprocess
from http.client import HTTPConnection
from pathlib import Path

import pytest

from sandbox import network, probes, world
from tests.sandbox.conftest import Copy, clean, leftovers, pid_namespace, within

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(900)]


def test_down_leaves_nothing_and_two_sandboxes_do_not_meet(world_copy: Copy, copy: Copy) -> None:
    copy.up()
    assert copy.env["PIPE_NODE"] != world_copy.env["PIPE_NODE"]
    namespace = pid_namespace(copy.layout)
    assert world_copy.run("status").returncode == 0
    assert copy.run("down").returncode == 0
    assert leftovers(copy.layout, namespace) == []
    assert {path.name for path in copy.layout.state.iterdir()} == {"logs", "lock"}
    assert world_copy.run("status").returncode == 0
    assert copy.run("down").returncode == 0


def test_the_first_process_takes_everything_with_it(copy: Copy) -> None:
    copy.up()
    namespace = pid_namespace(copy.layout)
    os.kill(world.record(copy.layout)["pid"], signal.SIGKILL)
    assert within(10, lambda: not [one for one in leftovers(copy.layout, namespace) if one.startswith("process")])
    assert "it does not run" in copy.run("status").stdout
    assert copy.run("down").returncode == 0
    assert leftovers(copy.layout, namespace) == []


def test_a_crashed_up_ends_its_world_and_the_next_one_cleans_up(copy: Copy) -> None:
    up = subprocess.Popen(copy.command("up"), cwd=copy.layout.checkout, env=clean(), stderr=subprocess.DEVNULL)
    assert within(60, lambda: len(world.book(copy.layout)) > 6)
    namespace = pid_namespace(copy.layout)
    up.kill()
    up.wait()
    assert within(10, lambda: not [one for one in leftovers(copy.layout, namespace) if one.startswith("process")])
    copy.up()
    assert copy.run("status").returncode == 0
    assert copy.run("down").returncode == 0
    assert leftovers(copy.layout, namespace) == []


def test_a_deleted_state_folder_does_not_hide_a_running_sandbox(copy: Copy) -> None:
    copy.up()
    namespace = pid_namespace(copy.layout)
    for path in copy.layout.state.glob("*.json"):
        path.unlink()
    assert "was deleted" in copy.run("status").stdout
    assert copy.run("down").returncode == 0
    assert leftovers(copy.layout, namespace) == []


def test_a_part_that_cannot_start_is_named_with_its_log_and_nothing_stays(copy: Copy) -> None:
    source = copy.layout.checkout / "sandbox" / "mail_sink.py"
    source.write_text("raise RuntimeError('no mail today')\n")
    done = copy.run("up")
    assert done.returncode == 1
    assert "mail-sink died with code 1, see" in done.stderr
    assert "no mail today" in done.stderr
    assert "Traceback" not in done.stderr.partition("mail-sink died")[0]
    assert leftovers(copy.layout) == []


def test_with_everything_brought_only_the_small_servers_run_without_namespaces(copy: Copy, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch()
    own = {"DOCKER_HOST": "unix:///own.sock", "PIPE_KUBECONFIG": str(kubeconfig), "PIPE_REGISTRY": "registry.invalid"}
    missing = copy.run("up", env=own)
    assert missing.returncode == 1
    assert "PIPE_REGISTRY_USER" in missing.stderr
    done = copy.run("up", env={**own, "PIPE_REGISTRY_USER": "u", "PIPE_REGISTRY_PASSWORD": "p"})
    assert done.returncode == 0, done.stderr
    env = copy.env
    assert (env["DOCKER_HOST"], env["PIPE_NODE"]) == ("unix:///own.sock", "127.0.0.1")
    assert probes.status(HTTPConnection(env["PIPE_GIT_URL"].removeprefix("http://"), timeout=3), "/") == 401
    assert network.marked_rules(copy.layout, "nat") == []
    assert copy.run("status").returncode == 0
    assert copy.run("down").returncode == 0
    assert leftovers(copy.layout) == []
