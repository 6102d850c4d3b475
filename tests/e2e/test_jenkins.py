"""The five-line Jenkinsfile of the examples in a real world: it releases 尚医通, and an abort stops what it builds."""

import json
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.publish import publish
from sandbox.publish import sources as example_sources
from tests.e2e.conftest import World
from tests.support.jenkins import Step
from tests.support.program import PIPE
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parent.parent.parent


def of_agent(world: World, **more: str) -> dict[str, str]:
    """What the agent's pod and `withCredentials` give to the step."""
    env = world.env(**more)
    return {**env, "PATH": f"{PIPE.parent}:{env['PATH']}"}


def test_the_five_line_jenkinsfile_releases_shangyitong(world: World, tmp_path: Path) -> None:
    for source in example_sources():
        publish(source)
    lines = (ROOT / "examples/jenkins/Jenkinsfile").read_text().splitlines()
    (script,) = [line.split("'")[1] for line in lines if line.strip().startswith("sh ")]
    workspace = tmp_path / "shop_main@2"
    workspace.mkdir()
    (workspace / "examples").symlink_to(ROOT / "examples")  # what `checkout scm` brings
    step = Step(workspace, script, **of_agent(world))
    assert step.wait(1200) == 0, step.log[-6000:]
    assert "✔ backend#12" in step.log
    assert "✔ frontend#12" in step.log
    assert "\x1b" not in step.log
    ready = {
        item["metadata"]["name"] for item in world.objects("his", "deployments") if item["status"].get("readyReplicas")
    }
    assert {"server-gateway", "service-hosp", "yygh-admin", "yygh-site"} <= ready
    for secret in (world.sandbox.registry_password, world.sandbox.git_password):
        assert secret not in step.log


def containers(world: World, image: str) -> list[str]:
    """Running containers in which an image is built that begins with this one."""
    argv = ["docker", "ps", "--no-trunc", "--format", "{{.Command}}"]
    shown = subprocess.run(argv, env=world.env(), capture_output=True, text=True, check=True, timeout=30).stdout
    return [line for line in shown.splitlines() if image in line]


def test_an_abort_stops_the_image_that_the_engine_is_building(world: World, tmp_path: Path) -> None:
    mark = f"sleep 30{uuid4().int % 10**6:06}"
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "Dockerfile").write_text(f"FROM busybox:1\nRUN {mark}\n")
    (workspace / "pipeline.yaml").write_text(
        "name: demo\nstages:\n  image: {uses: image, with: {context: ., image: demo/aborted, tag: '1'}}\n"
    )
    step = Step(workspace, f"'{PIPE}' run pipeline.yaml", **of_agent(world))
    until(lambda: containers(world, mark), 60)
    aborted = step.abort()
    assert (aborted.code, aborted.seconds < 12) == (143, True), step.log
    until(lambda: not containers(world, mark), 5)
    last = json.loads((workspace / ".pipe/demo/12/events.1.jsonl").read_bytes().splitlines()[-1])
    assert last["outcome"] == "cancelled"


def test_the_pod_of_the_examples_is_one_that_kubernetes_takes(world: World) -> None:
    pod = ROOT / "examples/jenkins/pod.yaml"
    named = subprocess.run(
        ["kubectl", "create", "--dry-run=client", "-o", "json", "--validate=false", "-f", "-"],
        input=pod.read_text().replace("metadata:\n", "metadata:\n  name: agent\n"),
        env={**world.env(), "KUBECONFIG": str(world.sandbox.kubeconfig)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={world.sandbox.kubeconfig}", "create", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=named, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
