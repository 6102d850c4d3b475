"""The API server of the sandbox's cluster, to be taken away and brought back."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest

from sandbox.layout import HERE
from sandbox.world import book, order, problems
from tests.support.wait import until

__all__ = ["Orders", "api_server_orders"]

Orders: TypeAlias = Callable[[str], None]
"""`stop`, `kill` or `pause`, and the way back: `start` or `resume`. All of them block."""

_NAME = "kube-apiserver"
_CLIENTS = ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns")
_BACK = {"stopped": "start", "died": "start", "paused": "resume"}


@contextmanager
def api_server_orders() -> Iterator[Orders]:
    """Orders to it until the end of the block, after which the cluster works as before."""
    if _NAME not in book(HERE):
        pytest.skip("the cluster is somebody else's")
    yield _obeyed
    state = book(HERE)[_NAME]["state"]
    if state in _BACK:
        _obeyed(_BACK[state])
    until(lambda: not problems(HERE), limit=90)
    _see_it_work()


def _obeyed(verb: str) -> None:
    _order(verb, _NAME)
    if verb == "start":
        # By themselves they look for it again after up to half a minute, one after the other.
        for client in _CLIENTS:
            _order("kill", client)
            _order("start", client)


def _order(verb: str, part: str) -> None:
    answer = order(HERE, verb, part)
    assert answer == "ok", f"{verb} {part}: {answer}"


def _see_it_work() -> None:
    """Return when a Deployment that is made now has got as far as a node."""
    name = f"probe-{secrets.token_hex(4)}"
    _kubectl("create", "deployment", name, "--image=none.invalid/none:1")
    try:
        until(lambda: _said_by_node(name), limit=120)
    finally:
        _kubectl("delete", "deployment", name)


def _said_by_node(name: str) -> bool:
    pods = json.loads(_kubectl("get", "pods", f"--selector=app={name}", "-o", "json"))["items"]
    return any("waiting" in each["state"] for pod in pods for each in pod["status"].get("containerStatuses", ()))


def _kubectl(*words: str) -> str:
    argv = ["kubectl", f"--kubeconfig={HERE.state / 'kubeconfig'}", "-n", "default", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
