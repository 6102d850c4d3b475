"""Deploys to a real cluster, each in a namespace of its own that is deleted."""

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import docker
import yaml

import sandbox
from pipeline.stage import Login, Secret, SecretFile, StageErrored, StageFailed
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.objects import Ref
from stages.deploy import Deploy, DeployOutputs
from tests.support.context import FakeContext

APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{{name: pull}}]
      containers:
        - name: app
          image: busybox
          command: [sh, -c, {command!r}]
          {container}
      {pod}
"""


def app(
    name: str = "web", command: str = "sleep 3600", *, replicas: int = 1, container: str = "", pod: str = ""
) -> str:
    """A Deployment whose only container runs a shell command."""
    return APP.format(name=name, command=command, replicas=replicas, container=container, pod=pod)


@dataclass(frozen=True)
class World:
    """The sandbox, with an image that its cluster can pull when it logs in."""

    image: str
    login: Login
    kubeconfig: Path
    folder: Path

    @property
    def registry(self) -> str:
        """HOST:PORT of the sandbox's registry."""
        return self.image.partition("/")[0]

    def context(self, run: str = "", **secret: Secret) -> FakeContext:
        """A stage's context in a new folder, whose secrets are `kubeconfig` and `registry`."""
        ctx = FakeContext(self.folder / secrets.token_hex(4))
        ctx.run = replace(ctx.run, id=run or f"RUN{secrets.token_hex(6)}")
        ctx.secrets = {"kubeconfig": SecretFile(self.kubeconfig), "registry": self.login, **secret}
        return ctx

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[Cluster]:
        async with await connect(self.context(), "kubeconfig", "") as cluster:
            yield cluster

    async def get(self, kind: str, namespace: str, name: str, version: str = "v1") -> Any:
        async with self.cluster() as cluster:
            return await cluster.get(Ref(version, kind, namespace, name))


def real_world(folder: Path) -> World:
    """The sandbox, started if need be, with a busybox in its registry."""
    given = sandbox.ensure()
    engine = docker.APIClient(base_url=given.docker_host)
    engine.tag("busybox:1", f"{given.registry}/lib/busybox", "1")
    auth = {"username": given.registry_user, "password": given.registry_password}
    for line in engine.push(f"{given.registry}/lib/busybox", "1", auth_config=auth, stream=True, decode=True):
        assert "error" not in line, line
    engine.close()
    login = Login(given.registry_user, given.registry_password)
    return World(f"{given.registry}/lib/busybox:1", login, given.kubeconfig, folder)


def forget(world: World, namespace: str) -> None:
    """Delete a namespace; what is in it goes in the background."""

    async def delete() -> None:
        async with world.cluster() as cluster:
            await cluster.delete(Ref("v1", "Namespace", "", namespace))

    anyio.run(delete)


@dataclass
class Result:
    """How a deploy ended, and after how many seconds."""

    seconds: float
    ctx: FakeContext
    outputs: DeployOutputs | None = None
    error: StageFailed | StageErrored | None = None

    @property
    def message(self) -> str:
        return str(self.error)

    @property
    def evidence(self) -> str:
        assert self.error is not None
        return "\n".join(self.error.cause.evidence)


async def deploy(
    world: World,
    namespace: str,
    text: str,
    *,
    run: str = "",
    env: Mapping[str, str] | None = None,
    secret: Mapping[str, Secret] | None = None,
    **fields: Any,
) -> Result:
    ctx = world.context(run, **(secret or {}))
    ctx.manifest_env = env or {}
    (ctx.workspace / "deploy").mkdir()
    (ctx.workspace / "deploy" / "app.yml").write_text(text)
    images = [world.image] if "image: busybox" in text else []
    defaults = {"manifests": ["deploy/**"], "images": images, "namespace": namespace, "secret": "kubeconfig"}
    stage = Deploy.model_validate({**defaults, "pull_secret": "registry", "wait": "90s", **fields})
    began = time.monotonic()
    result = Result(0, ctx)
    try:
        result.outputs = await stage.run(ctx)
    except (StageFailed, StageErrored) as error:
        result.error = error
    result.seconds = time.monotonic() - began
    return result


async def green(world: World, namespace: str, text: str, **more: Any) -> Result:
    result = await deploy(world, namespace, text, **more)
    assert result.error is None, (result.message, result.evidence)
    return result


async def red(world: World, namespace: str, text: str, **more: Any) -> Result:
    result = await deploy(world, namespace, text, **more)
    assert result.error is not None, result.ctx.text
    return result


def kubeconfig(world: World, folder: Path, **changes: Any) -> SecretFile:
    config = yaml.safe_load(world.kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= changes.get("cluster", {})
    config["users"][0]["user"] = changes.get("user", config["users"][0]["user"])
    for name in changes.get("without", ()):
        config["clusters"][0]["cluster"].pop(name)
    path = folder / f"{secrets.token_hex(4)}.yaml"
    path.write_text(yaml.safe_dump(config))
    return SecretFile(path)
