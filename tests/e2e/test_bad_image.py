"""A bad image in one of the ten services of 尚医通: one reason, everything put back, and nobody at the gateway notices.

The manifests are the example's own; a small web server stands in for the ten Java programs.
"""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import APIClient

from tests.e2e.conftest import World
from tests.e2e.test_release import EXAMPLES, SERVICES, polling
from tests.support.program import pipe
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]

PIPELINE = """
name: his
secrets: {{kubeconfig: file, registry: login}}
env: {{REGISTRY: unused, ALIYUNHUB_NAMESPACE: unused}}
release: {{on_failure: rollback}}
vars: {{services: {services}}}
stages:
  deploy:
    each: ${{vars.services}}
    uses: deploy
    with:
      manifests: ["${{each.name}}.yml"]
      images: ["${{each.image}}"]
      namespace: {namespace}
      secret: kubeconfig
      pull_secret: registry
      wait: 2m
"""
DOCKERFILE = """FROM busybox:1
RUN mkdir -p /www/actuator/health && echo {name} {version} > /www/index.html && echo UP > /www/actuator/health/readiness
USER 10001
ENTRYPOINT ["sh", "-c", "trap exit TERM; httpd -f -p 8080 -h /www & wait"]
"""


class His:
    """The ten services in a folder and a namespace of their own, in versions that greet differently."""

    def __init__(self, folder: Path, world: World, namespace: str) -> None:
        self.folder, self.world, self.namespace = folder, world, namespace
        self.sources = {
            path.parent.parent.name: path for path in (EXAMPLES / "sources" / "yygh-parent").rglob("deploy/deploy.yml")
        }
        assert sorted(self.sources) == sorted(SERVICES)

    def write(self, version: str, images: dict[str, str]) -> None:
        services = [{"name": name, "image": images[name]} for name in SERVICES]
        text = PIPELINE.format(services=json.dumps(services), namespace=self.namespace)
        (self.folder / "pipeline.yaml").write_text(text)
        for name, source in self.sources.items():
            (self.folder / f"{name}.yml").write_text(self._manifest(name, source, version))

    def _manifest(self, name: str, source: Path, version: str) -> str:
        """The example's manifest elsewhere: with a ConfigMap, and whatever node port is free."""
        objects = list(yaml.safe_load_all(re.sub(r"nodePort: \d+", "", source.read_text())))
        for each in objects:
            del each["metadata"]["namespace"]
        (container,) = objects[0]["spec"]["template"]["spec"]["containers"]
        container["envFrom"] = [{"configMapRef": {"name": name}}]
        container["resources"] = {"requests": {"cpu": "5m", "memory": "8Mi"}}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"greeting": version}}
        return yaml.safe_dump_all([config, *objects])

    def run(self) -> Any:
        return pipe(self.folder, "run", "pipeline.yaml", "-o", "plain", env=self.world.env(), limit=240)

    def objects(self, kind: str) -> dict[str, Any]:
        return {item["metadata"]["name"]: item for item in self.world.objects(self.namespace, kind)}

    def state(self) -> dict[str, tuple[str, str]]:
        """The image and the greeting of every service."""
        images, greetings = self.objects("deployments"), self.objects("configmaps")
        return {
            name: (
                images[name]["spec"]["template"]["spec"]["containers"][0]["image"],
                greetings[name]["data"]["greeting"],
            )
            for name in SERVICES
        }

    def served(self) -> set[str]:
        """The digests that the pods which are ready run."""
        pods = [pod for pod in self.objects("pods").values() if not pod["metadata"].get("deletionTimestamp")]
        return {status["imageID"].rpartition("@")[2] for pod in pods for status in pod["status"]["containerStatuses"]}


@pytest.fixture
def his(tmp_path: Path, world: World, namespace: str) -> His:
    return His(tmp_path, world, namespace)


@pytest.fixture
def pushed(world: World, namespace: str) -> Iterator[dict[str, dict[str, str]]]:
    """Version → service → image with its digest."""
    given = world.sandbox
    engine = APIClient(base_url=given.docker_host)
    login = {"username": given.registry_user, "password": given.registry_password}

    def push(name: str, version: str) -> str:
        repository = f"{given.registry}/{namespace}/{name}"
        dockerfile = BytesIO(DOCKERFILE.format(name=name, version=version).encode())
        for line in engine.build(fileobj=dockerfile, tag=f"{repository}:{version}", rm=True, decode=True):
            assert "error" not in line, line
        lines = list(engine.push(repository, version, auth_config=login, stream=True, decode=True))
        digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
        return f"{repository}:{version}@{digest}"

    yield {version: {name: push(name, version) for name in SERVICES} for version in ("one", "two")}
    engine.close()


def test_a_bad_image_in_one_of_ten_services_puts_all_back_and_no_request_fails(
    his: His, world: World, pushed: dict[str, dict[str, str]]
) -> None:
    his.write("one", pushed["one"])
    done = his.run()
    assert done.returncode == 0, done.stdout[-4000:]
    before, digests = his.state(), {image.rpartition("@")[2] for image in pushed["one"].values()}
    port = his.objects("services")["server-gateway"]["spec"]["ports"][0]["nodePort"]
    until(lambda: world.answers(port))

    repository = pushed["two"]["service-order"].partition(":two@")[0]
    bad = f"{repository}:three@sha256:{'0' * 64}"
    his.write("two", {**pushed["two"], "service-order": bad})
    with polling(world, port, "/") as poller:
        done = his.run()
    assert done.returncode == 1

    told = pipe(his.folder, "doctor", env=world.env()).stdout
    first = next(line for line in told.splitlines() if line.startswith("✖"))
    assert first.startswith("✖ deploy[service-order] failed: Deployment")
    assert "its image cannot be pulled: there is no such image" in first
    closing = done.stdout[done.stdout.index("---- ") :].splitlines()[0]
    assert "deploy[service-order] failed" in closing
    assert "there is no such image" in closing
    release = next(line for line in done.stdout.splitlines() if line.startswith("---- release"))
    assert release.index("no such image") < release.index("rolled back to his@1 as his@3: 10 deploys put back")
    assert "release  failed" in told[told.index("because of it") :]

    assert his.state() == before
    until(lambda: his.served() == digests, limit=30)
    assert poller.failures == []
    assert poller.answers > 50
