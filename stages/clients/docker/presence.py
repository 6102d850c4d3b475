"""Which docker engine a machine has, as its scripts and stages will find it: none, a closed one, or one that sees what.

Whether it sees a folder is asked of the engine itself: it looks for the source of a bind mount before it looks for the
image (moby, validateHostConfig), so asking for a container of an image that nobody has answers it and makes nothing.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.stage import StageErrored
from stages.clients.docker.engine import Engine, causes

if TYPE_CHECKING:  # importing it takes longer than a start of pipe may
    from docker import APIClient

__all__ = ["READY_WITHIN", "Presence", "look"]

READY_WITHIN = 10.0
"""Seconds that an engine beside us, which is started when we are, is given to answer."""
_NOWHERE = "pipe-doctor-asks-for-an-image-that-nobody-has:0"

State = Literal["none", "closed", "not ready", "silent", "near", "far"]


@dataclass(frozen=True, slots=True)
class Presence:
    """What there is: `near` sees the folder, `far` does not; the others are no engines that we could use."""

    state: State
    host: str
    said: str
    follows: tuple[str, ...]


def look(env: Mapping[str, str], folder: Path, *, wait: float = READY_WITHIN) -> Presence:
    """What the engine is that `env` names, and whether it sees `folder`; one that is not ready is waited for.

    Blocks, for `wait` seconds and the time of one answer.
    """
    engine = Engine(env)
    deadline = time.monotonic() + wait
    while True:
        try:
            with engine.connect() as client:
                return _met(engine, client, folder)
        except StageErrored as error:
            found = _missed(engine.host, error, named="DOCKER_HOST" in env)
        if found.state != "not ready" or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _met(engine: Engine, client: "APIClient", folder: Path) -> Presence:
    version = f"docker {client.version().get('Version', '')}, API {client.api_version}"
    if _sees(client, folder):
        said = f"{version}; it sees {folder}"
        return Presence("near", engine.host, said, ("images can be built, and scripts can mount the workspace",))
    return Presence(
        "far",
        engine.host,
        f"{version}; it does not see {folder}: it has files of its own",
        (
            "images can be built: `uses: image` sends their files",
            "a `docker run -v` in scripts finds it empty: mount the workspace's volume over there, at the same path",
        ),
    )


def _sees(client: "APIClient", folder: Path) -> bool:
    from docker.errors import APIError, ImageNotFound
    from docker.types import Mount

    with _new_in(folder) as here:
        mount = Mount(target="/workspace", source=str(here), type="bind", read_only=True)
        try:
            client.create_container(image=_NOWHERE, host_config=client.create_host_config(mounts=[mount]))
        except APIError as error:
            if error.response is not None:
                error.response.close()  # or its connection stays open for as long as the error lives
            if isinstance(error, ImageNotFound):
                return True
            if "bind source path does not exist" in str(error):
                return False
            raise
    return True


@contextmanager
def _new_in(folder: Path) -> Iterator[Path]:
    """A folder that is there since now: one of an old name over there would be taken for ours."""
    try:
        here = tempfile.TemporaryDirectory(prefix=".pipe-doctor-", dir=folder)
    except OSError:  # it cannot be written
        yield folder
        return
    with here as path:
        yield Path(path)


def _missed(host: str, error: StageErrored, *, named: bool) -> Presence:
    """Why there is none. `named`: somebody said that there is one."""
    behind = causes(error)
    path = Path(host.removeprefix("unix://"))
    if any(isinstance(link, PermissionError) for link in behind):
        return Presence("closed", host, f"no permission on {path}", (_group(path),))
    if any(isinstance(link, ConnectionRefusedError) for link in behind):
        again = "an engine that was started with us may need longer: wait for it before `pipe run`, or look at its log"
        return Presence("not ready", host, "nobody answers there yet: the connection is refused", (again,))
    if not named and any(isinstance(link, FileNotFoundError) for link in behind):
        return Presence("none", host, "there is none: no socket, and DOCKER_HOST is not set", _WITHOUT)
    return Presence("silent", host, str(error), _WITHOUT)


_WITHOUT = (
    "stages of the kinds `image` and `push` cannot run here; all others can",
    "give the agent one: an engine beside it in its pod and DOCKER_HOST, as in examples/jenkins/pod.yaml",
    "the socket of its node would do as well, and make every script root there",
)


def _group(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "let this user reach it, or set DOCKER_HOST"
    return (
        f"the socket is for group {found.st_gid}, and this is user {os.getuid()} in {sorted(os.getgroups())}: "
        f"add it to that group (in a pod: `securityContext: {{supplementalGroups: [{found.st_gid}]}}`)"
    )
