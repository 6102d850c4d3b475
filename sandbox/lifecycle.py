"""Bring a sandbox up, and hand it to whoever needs one."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from sandbox import images, needs, parts, publish, world
from sandbox.given import Given
from sandbox.kubernetes_binary import KUBERNETES
from sandbox.layout import CACHE, HERE, Layout, SandboxError, locked
from sandbox.probes import UnixConnection, connectable
from sandbox.progress import activity, say

LOAD_LIMIT = 300.0


@dataclass(frozen=True)
class Sandbox:
    """Where the parts of a sandbox are and how one logs in."""

    docker_host: str
    kubeconfig: Path
    registry: str
    registry_user: str
    registry_password: str
    git_url: str
    git_user: str
    git_password: str
    smtp: str
    mail_dir: Path
    node: str
    state: Path

    @property
    def env(self) -> dict[str, str]:
        """The same as environment variables."""
        return read_env(HERE)


def read_env(layout: Layout) -> dict[str, str]:
    """Return the variables of the sandbox of `layout`; raises SandboxError if there is none."""
    if not layout.env_file.exists():
        raise SandboxError("there is no sandbox yet: run `make up`")
    return dict(line.split("=", 1) for line in layout.env_file.read_text().splitlines())


def running() -> Sandbox | None:
    """Return the healthy sandbox of this checkout, None if there is none."""
    return _sandbox() if world.healthy(HERE) else None


def ensure() -> Sandbox:
    """Return the sandbox of this checkout, starting it if needed; raises SandboxError if that fails."""
    up()
    return _sandbox()


def up() -> bool:
    """Start the sandbox of this checkout unless a healthy one runs; returns whether it had to be started.

    Raises SandboxError with what went wrong.
    """
    if world.healthy(HERE):
        return False
    given = Given.read(os.environ, HERE)
    needs.check(HERE, given)
    CACHE.mkdir(parents=True, exist_ok=True)
    HERE.state.mkdir(exist_ok=True)
    with locked(HERE.state / "lock"):
        if world.healthy(HERE):
            return False
        _up(given)
        return True


def down() -> None:
    """End the sandbox of this checkout and remove everything but its logs."""
    if not HERE.state.exists() and not HERE.sockets.exists():
        return
    HERE.state.mkdir(exist_ok=True)
    with locked(HERE.state / "lock"):
        world.destroy(HERE)


def _up(given: Given) -> None:
    if world.record(HERE):
        say(f"sandbox: starting anew, because {'; '.join(world.problems(HERE)) or 'it was left half-made'}")
    world.destroy(HERE)
    needs.install(needs.missing_packages(given))
    with ThreadPoolExecutor() as pool:
        making = [pool.submit(images.ensure)] if not given.engine else []
        making += [pool.submit(images.ensure_pause)] if not given.kubeconfig else []
        kubernetes = KUBERNETES.ensure() if not given.kubeconfig else None
        for made in making:
            made.result()
    try:
        with world.create(HERE, given, kubernetes) as lifeline:
            _fill(given)
            world.complete(HERE, lifeline)
        if given.engine and not given.registry:
            registry = world.blueprint(HERE).registry_address
            say(f"sandbox: your docker engine must have {registry} among its insecure-registries to push there")
    except BaseException:
        # Nothing half-made stays; the logs do.
        world.destroy(HERE)
        raise


def _fill(given: Given) -> None:
    """Wait until all is ready; what a part is to contain goes in as soon as that part is."""
    with ThreadPoolExecutor() as pool:
        loading = [pool.submit(_load, images.cached())] if not given.engine else []
        loading += [pool.submit(_import_pause, images.cached("pause"))] if not given.kubeconfig else []
        publishing = [pool.submit(publish.publish, source) for source in publish.sources()]
        world.await_ready(HERE)
        for future in loading:
            future.result()
        for published in publishing:
            published.result()


def _sandbox() -> Sandbox:
    env = read_env(HERE)
    return Sandbox(
        docker_host=env["DOCKER_HOST"],
        kubeconfig=Path(env["PIPE_KUBECONFIG"]),
        registry=env["PIPE_REGISTRY"],
        registry_user=env["PIPE_REGISTRY_USER"],
        registry_password=env["PIPE_REGISTRY_PASSWORD"],
        git_url=env["PIPE_GIT_URL"],
        git_user=env["PIPE_GIT_USER"],
        git_password=env["PIPE_GIT_PASSWORD"],
        smtp=env["PIPE_SMTP"],
        mail_dir=Path(env["PIPE_MAIL_DIR"]),
        node=env["PIPE_NODE"],
        state=HERE.state,
    )


def _import_pause(file: Path) -> None:
    """Give the cluster the image that holds a pod's namespaces: the registry must stay empty."""
    pid = str(world.record(HERE)["pid"])
    world.await_part(HERE, "containerd", lambda: connectable(Path(f"/proc/{pid}/root{parts.CONTAINERD}")))
    command = [
        "nsenter",
        "--target",
        pid,
        "--mount",
        "--pid",
        "--net",
        "--root",
        "ctr",
        "--address",
        str(parts.CONTAINERD),
    ]
    command += ["--namespace", "k8s.io", "images", "import", "-"]
    with file.open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, timeout=LOAD_LIMIT)
    if done.returncode:
        raise SandboxError(f"the pause image could not be imported: {done.stderr.strip()}")


def _load(file: Path) -> None:
    """Give the docker engine the base images."""
    engine = HERE.sockets / "docker.sock"
    world.await_part(HERE, "dockerd", lambda: connectable(engine))
    connection = UnixConnection(engine, LOAD_LIMIT)
    with activity("base images: loading into docker"), file.open("rb") as body:
        connection.request("POST", "/images/load?quiet=1", body, {"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        words = answer.read().decode()
    if answer.status != HTTPStatus.OK or '"error"' in words:
        raise SandboxError(f"the base images could not be loaded: {words}")
