"""Jenkins' `sh` step without Jenkins: the wrapper that its durable-task plugin starts, and the sweep of an abort.

The command line, the control folder and the cookie are those of BourneShellScript and FileMonitoringTask (durable-task of
2026-07), the sweep is that of ProcessTree (core): from every process that carries the cookie down to its children, one
SIGTERM each, and the next process has its turn only when this one is gone. A step that has no result 20 s after the abort
is given up (DurableTaskStep).
"""

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.program import host
from tests.support.wait import until

__all__ = ["GIVEN_UP", "SOFT_KILL", "Aborted", "Step", "carrying", "sweep"]

COOKIE = "JENKINS_SERVER_COOKIE"
GIVEN_UP = 20.0
"""Seconds after an abort when Jenkins forgets the step, whatever it still does."""
SOFT_KILL = 120.0
"""Seconds that a sweep waits for the processes below one of its roots (`SoftKillWaitSeconds`)."""
PROC = Path("/proc")

WRAPPER = (
    "({{ while [ -d '{control}' -a \\! -f '{result}' ]; do touch '{log}'; sleep 3; done }} & "
    "jsc={cookie}; {name}=$jsc 'sh' -xe '{script}' > '{log}' 2>&1; "
    "echo $? > '{result}.tmp'; mv '{result}.tmp' '{result}'; wait) >&- 2>&- &"
)


@dataclass(frozen=True)
class Aborted:
    """How a step took an abort: its exit code, None if Jenkins gave it up, and after how many seconds."""

    code: int | None
    seconds: float


class Step:
    """One `sh` step in a workspace; the script runs as soon as this is made."""

    def __init__(self, workspace: Path, script: str, **variables: str) -> None:
        self.workspace = workspace
        workspace.mkdir(parents=True, exist_ok=True)
        temporary = workspace.with_name(workspace.name + "@tmp")
        self.control = temporary / f"durable-{secrets.token_hex(4)}"
        self.control.mkdir(parents=True)
        self.cookie = f"durable-{hashlib.sha256(str(workspace).encode()).hexdigest()}"
        copy = self.control / "script.sh.copy"
        for file in (self.control / "script.sh", copy):
            file.write_text(script)
        names = {"control": self.control, "result": self._result, "log": self._log, "script": copy}
        words = WRAPPER.format(cookie=self.cookie, name=COOKIE, **names)
        subprocess.run(
            ["nohup", "sh", "-c", words],
            cwd=workspace,
            env={**agent(workspace, temporary), **variables, COOKIE: "please-do-not-kill-me"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )

    @property
    def _result(self) -> Path:
        return self.control / "jenkins-result.txt"

    @property
    def _log(self) -> Path:
        return self.control / "jenkins-log.txt"

    @property
    def code(self) -> int | None:
        """The exit code of the script, None as long as there is none."""
        with suppress(FileNotFoundError, ValueError):
            return int(self._result.read_text())
        return None

    @property
    def log(self) -> str:
        """What the step has said so far."""
        with suppress(FileNotFoundError):
            return self._log.read_text()
        return ""

    @property
    def processes(self) -> list[int]:
        """Who carries the cookie of this step."""
        return carrying(self.cookie)

    def wait(self, limit: float = 30) -> int:
        """The exit code, when there is one."""
        until(lambda: self.code is not None, limit)
        code = self.code
        assert code is not None
        return code

    def abort(self, soft_kill: float = SOFT_KILL) -> Aborted:
        """What Jenkins does when somebody presses the red button."""
        began = time.monotonic()
        threading.Thread(target=sweep, args=(self.cookie, soft_kill), daemon=True).start()
        while self.code is None and time.monotonic() < began + GIVEN_UP:
            time.sleep(0.02)
        took, code = time.monotonic() - began, self.code
        if code is None:
            shutil.rmtree(self.control)
        return Aborted(code, took)


def agent(workspace: Path, temporary: Path) -> dict[str, str]:
    """The environment that an agent gives to a step of a multibranch job."""
    return host(
        CI="true",
        JENKINS_URL="https://ci.example/",
        JENKINS_HOME="/var/jenkins_home",
        JENKINS_NODE_COOKIE="0d7c2a4e",
        JOB_NAME="shop/main",
        JOB_BASE_NAME="main",
        JOB_URL="https://ci.example/job/shop/job/main/",
        BUILD_NUMBER="12",
        BUILD_ID="12",
        BUILD_TAG="jenkins-shop-main-12",
        BUILD_URL="https://ci.example/job/shop/job/main/12/",
        BRANCH_NAME="main",
        NODE_NAME="agent-1",
        EXECUTOR_NUMBER="0",
        WORKSPACE=str(workspace),
        WORKSPACE_TMP=str(temporary),
    )


def carrying(cookie: str) -> list[int]:
    """Every living process that has the cookie in its environment."""
    return [pid for pid in _parents() if _matches(pid, cookie)]


def sweep(cookie: str, soft_kill: float = SOFT_KILL) -> None:
    """ProcessTree.killAll: blocks as long as Jenkins would."""
    parents = _parents()
    for pid in parents:
        if _matches(pid, cookie):
            _kill_recursively(pid, parents, time.monotonic() + soft_kill)


def _kill_recursively(pid: int, parents: Mapping[int, int], deadline: float) -> None:
    for child, parent in parents.items():
        if parent == pid:
            _kill_recursively(child, parents, deadline)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    pause = 0.01
    while (PROC / str(pid)).exists() and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _parents() -> dict[int, int]:
    """Pid → parent of all processes that are there now, in the order of the hash map that Jenkins keeps them in."""
    found: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if state[0] not in "ZX":
                    found[int(entry.name)] = int(state[1])
    buckets = 16
    while len(found) > 0.75 * buckets:
        buckets *= 2
    return dict(sorted(found.items(), key=lambda item: (item[0] ^ item[0] >> 16) & (buckets - 1)))


def _matches(pid: int, cookie: str) -> bool:
    with suppress(OSError):
        return f"{COOKIE}={cookie}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False
