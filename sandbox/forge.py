"""A real forge on loopback: Gitea, which sends real webhooks and shows real commit statuses."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import needs
from sandbox.cache import bound_to_us
from sandbox.go_program import GoProgram
from sandbox.layout import SandboxError

__all__ = ["GITEA", "Forge", "forge"]

VERSION = "1.26.0"
USER, PASSWORD = "ci", "ci-password-1"
READY_WITHIN = 60.0
COMPILERS = {"go": "golang-go", "gcc": "gcc"}
"""Programs, and the Debian packages that have them."""

GITEA = GoProgram(
    name="gitea",
    version=VERSION,
    source=Path(__file__).parent / "gitea",
    package="code.gitea.io/gitea",
    flags=("-trimpath", "-tags", "sqlite sqlite_unlock_notify", "-ldflags", f"-s -w -X main.Version={VERSION}"),
    packages=1480,
    minutes=4,
    toolchain="1.26.2",
    cgo=True,
)


@dataclass(frozen=True)
class Forge:
    """A running Gitea, with the login of who calls it and the token of its first user."""

    url: str
    token: str
    login: tuple[str, str] = (USER, PASSWORD)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of its API."""
        data = None if body is None else json.dumps(body).encode()
        login = b64encode(":".join(self.login).encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def repository(self, name: str) -> str:
        """Make a private repository and return its URL."""
        made = self.call("POST", "/user/repos", {"name": name, "private": True, "default_branch": "main"})
        return str(made["clone_url"])

    def hook(self, name: str, url: str, secret: str) -> None:
        """Let it tell a URL of pushes, tags and pull requests."""
        config = {"url": url, "content_type": "json", "secret": secret}
        events = ["push", "create", "delete", "pull_request"]
        hook = {"type": "gitea", "active": True, "events": events, "branch_filter": "*", "config": config}
        self.call("POST", f"/repos/{USER}/{name}/hooks", hook)

    def statuses(self, name: str, commit: str) -> dict[str, str]:
        """What it shows beside a commit: context → state, the newest."""
        return {context: state for context, (state, _) in self.described(name, commit).items()}

    def described(self, name: str, commit: str) -> dict[str, tuple[str, str]]:
        """The same with the words beside it: context → state and description."""
        found: dict[str, tuple[str, str]] = {}
        for each in self.call("GET", f"/repos/{USER}/{name}/commits/{commit}/statuses?sort=oldest"):
            found[each["context"]] = (each["status"], each["description"])
        return found


@contextmanager
def forge(folder: Path) -> Iterator[Forge]:
    """Run one in a folder until the block is left; it is compiled if nobody has.

    Raises:
        SandboxError: it does not start.
    """
    if not GITEA.cached().exists():
        needs.install([package for program, package in COMPILERS.items() if not shutil.which(program)])
    binary = GITEA.ensure()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    config = _configure(folder, port)
    words = (str(binary), "--work-path", str(folder), "--config", str(config))
    _run(*words, "migrate")
    user = ("--username", USER, "--password", PASSWORD, "--email", "ci@example.invalid")
    _run(*words, "admin", "user", "create", *user, "--admin", "--must-change-password=false")
    said = _run(*words, "admin", "user", "generate-access-token", "--username", USER, "--scopes", "all", "--raw")
    token = next(line for line in reversed(said.split()) if len(line) == 40)
    with (folder / "gitea.log").open("w") as log:
        process = subprocess.Popen(bound_to_us([*words, "web"]), stdout=log, stderr=log, env=_environment(folder))
        try:
            _wait(url, process, folder)
            yield Forge(url, token)
        finally:
            process.terminate()
            process.wait(20)


def _configure(folder: Path, port: int) -> Path:
    config = folder / "app.ini"
    config.write_text(f"""RUN_USER = root
RUN_MODE = prod
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
STATIC_ROOT_PATH = {GITEA.module("code.gitea.io/gitea")}
OFFLINE_MODE = true
DISABLE_SSH = true
[database]
DB_TYPE = sqlite3
PATH = {folder}/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = only-for-tests
[webhook]
ALLOWED_HOST_LIST = loopback,private
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = false
[log]
LEVEL = Warn
""")
    return config


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "GITEA_WORK_DIR": str(folder)}


def _run(*words: str) -> str:
    folder = Path(words[2])
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=_environment(folder))
    if done.returncode:
        raise SandboxError(f"gitea {' '.join(words[5:])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _wait(url: str, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/healthz", timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SandboxError(f"gitea does not answer at {url}:\n{(folder / 'gitea.log').read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
