"""Logins to chart repositories and registries: in files that no disk sees and that end with this process.

Helm takes a password for a chart by its arguments, which everybody on the machine can read, or by its configuration. So
it is given a configuration of its own, which lies in memory and is reached by a path of this process (memfd_create(2)).
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.stage import Login

__all__ = ["Sources", "sources"]

_OCI = "oci://"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where charts come from: what is laid over Helm's environment, and how Helm calls the repository."""

    env: dict[str, str]
    repository: str = ""


@contextmanager
def sources(chart: str, repository: str, login: Login | None) -> Iterator[Sources]:
    """Make a repository known to Helm by a name of its own, or a login to the registry of an `oci://` chart."""
    if repository:
        name = f"pipe-{hashlib.sha256(repository.encode()).hexdigest()[:16]}"
        pair = {"username": login.username, "password": login.password} if login else {}
        content: JsonValue = {"apiVersion": "", "repositories": [{"name": name, "url": repository, **pair}]}
        with _in_memory(content) as path:
            yield Sources({"HELM_REPOSITORY_CONFIG": path}, name)
    elif login and chart.startswith(_OCI):
        host = chart.removeprefix(_OCI).partition("/")[0]
        pair_text = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        with _in_memory({"auths": {host: {"auth": pair_text}}}) as path:
            yield Sources({"HELM_REGISTRY_CONFIG": path})
    else:
        yield Sources({})


@contextmanager
def _in_memory(content: JsonValue) -> Iterator[str]:
    descriptor = os.memfd_create("helm", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, json.dumps(content).encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
