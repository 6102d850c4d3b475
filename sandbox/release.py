"""The main job: publish the example's sources, release both pipelines onto the sandbox, and look at the result."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from sandbox import lifecycle
from sandbox.layout import HERE
from sandbox.publish import publish, sources

__all__ = ["environment", "release"]

PIPELINES = "examples/shangyitong.pipeline.yaml"
ADDRESSES = {"gateway": 32607, "admin": 32248, "site": 32070}
ANSWERS_WITHIN = 30.0
"""Seconds: a NodePort answers a moment after its rollout is done."""


def environment(sandbox: Mapping[str, str]) -> dict[str, str]:
    """The variables by which the example's pipelines learn of this sandbox."""
    return {
        "BACKEND_GIT_URL": f"{sandbox['PIPE_GIT_URL']}/yygh-parent.git",
        "FRONTEND_GIT_BASE": sandbox["PIPE_GIT_URL"],
        "REGISTRY": sandbox["PIPE_REGISTRY"],
        "DOCKER_HOST": sandbox["DOCKER_HOST"],
        "PIPE_SMTP": sandbox["PIPE_SMTP"],
        "PIPE_SECRET_GITEE_USERNAME": sandbox["PIPE_GIT_USER"],
        "PIPE_SECRET_GITEE_PASSWORD": sandbox["PIPE_GIT_PASSWORD"],
        "PIPE_SECRET_REGISTRY_USERNAME": sandbox["PIPE_REGISTRY_USER"],
        "PIPE_SECRET_REGISTRY_PASSWORD": sandbox["PIPE_REGISTRY_PASSWORD"],
        "PIPE_SECRET_KUBECONFIG_FILE": sandbox["PIPE_KUBECONFIG"],
    }


def release(arguments: list[str]) -> int:
    """Run both pipelines and say where the site answers; the exit code is the run's, or 1 if an address is silent."""
    lifecycle.up()
    env = lifecycle.read_env(HERE)
    for folder in sources():
        publish(folder)
    command = [str(Path(sys.executable).with_name("pipe")), "run", PIPELINES, *arguments]
    code = subprocess.run(command, env={**os.environ, **environment(env)}, check=False).returncode
    if code:
        return code
    urls = {name: f"http://{env['PIPE_NODE']}:{port}/" for name, port in ADDRESSES.items()}
    silent = [name for name, url in urls.items() if not _answers(url)]
    for name, url in urls.items():
        print(f"  {name:<8} {url}{'  does not answer' if name in silent else ''}")
    return 1 if silent else 0


def _answers(url: str) -> bool:
    deadline = time.monotonic() + ANSWERS_WITHIN
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http address
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(release(sys.argv[1:]))
