"""The main job: 尚医通 from git to a running Kubernetes, twice, and nobody who looks at it notices the second time."""

import json
import shutil
import subprocess
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sandbox.publish import publish, repository
from sandbox.publish import sources as example_sources
from tests.e2e.conftest import World
from tests.support.program import events_of, pipe
from tests.support.wait import until

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(1500)]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SERVICES = (
    *("hospital-manage", "server-gateway", "service-cmn", "service-hosp", "service-order", "service-oss"),
    *("service-sms", "service-statistics", "service-task", "service-user"),
)
SITES = ("yygh-admin", "yygh-site")
GATEWAY, ADMIN, SITE = 32607, 32248, 32070


@dataclass
class Release:
    folder: Path
    org: str
    mails_before: list[str]
    shown: str = ""

    def run(self, world: World) -> subprocess.CompletedProcess[str]:
        words = ("run", EXAMPLES / "shangyitong.pipeline.yaml", "-p", f"org={self.org}", "--jobs", "2")
        return pipe(self.folder, *words, env=world.env(), limit=1200)

    def events(self, pipeline: str, number: int = 1) -> list[dict[str, Any]]:
        return events_of(self.folder, pipeline, number)


@pytest.fixture(scope="module")
def release(world: World, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The first run of both pipelines."""
    for source in example_sources():
        publish(source)
    folder = tmp_path_factory.mktemp("release")
    made = Release(folder, f"e2e-{uuid4().hex[:8]}", world.mails())
    done = made.run(world)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    # Kubernetes calls a deployment available before the node's proxy has let its port through.
    for port in (GATEWAY, ADMIN, SITE):
        until(partial(world.answers, port))
    made.shown = done.stdout
    return made


@dataclass
class Poller:
    answers: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def polling(world: World, port: int, path: str) -> Iterator[Poller]:
    """Ask every 100 ms, as somebody who uses the site does."""
    poller, stop = Poller(), threading.Event()

    def ask() -> None:
        while not stop.wait(0.1):
            try:
                world.get(port, path, timeout=5)
                poller.answers += 1
            except (urllib.error.URLError, OSError) as error:
                poller.failures.append(f"{time.strftime('%X')} {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield poller
    finally:
        stop.set()
        thread.join()


def spans(events: list[dict[str, Any]], stage: str) -> list[tuple[float, float]]:
    """Start and end of every leaf of a stage."""
    starts = {e["stage"]: e["time"] for e in events if e["type"] == "stage.started"}
    ends = {e["stage"]: e["time"] for e in events if e["type"] == "stage.finished"}
    return sorted((starts[name], ends[name]) for name in starts if name.startswith(f"{stage}["))


def most_at_once(of: list[tuple[float, float]]) -> int:
    points = sorted([(start, 1) for start, _ in of] + [(end, -1) for _, end in of])
    running = most = 0
    for _, change in points:
        running += change
        most = max(most, running)
    return most


def test_the_site_shows_data_that_came_through_the_gateway(world: World, release: Release) -> None:
    hospitals = world.get(GATEWAY, "/api/hosp/hospitals")
    name = json.loads(hospitals)[0]["name"]
    assert name in world.get(SITE)
    assert name in world.get(ADMIN, "/api/hosp/hospitals")
    assert "<html" in world.get(ADMIN)


def test_ten_services_and_two_sites_are_available(world: World, release: Release) -> None:
    deployments = {item["metadata"]["name"]: item for item in world.objects("his", "deployments")}
    assert set(SERVICES + SITES) <= set(deployments)
    for name in SERVICES + SITES:
        assert deployments[name]["status"]["availableReplicas"] == deployments[name]["spec"]["replicas"]


def test_deployed_images_are_pinned_to_the_digests_that_the_registry_has(world: World, release: Release) -> None:
    pushed = {
        e["outputs"]["digest_ref"]
        for e in release.events("backend")
        if e["type"] == "stage.finished" and e["stage"].startswith("push[")
    }
    running = {
        container["image"]
        for item in world.objects("his", "deployments")
        if item["metadata"]["name"] in SERVICES
        for container in item["spec"]["template"]["spec"]["containers"]
    }
    assert running == pushed


def test_the_registry_holds_every_image_under_the_number_of_its_run(world: World, release: Release) -> None:
    for name in SERVICES + SITES:
        assert world.registry(f"{release.org}/{name}/tags/list")["tags"] == ["SNAPSHOT-1"]


def test_one_message_tells_the_number_and_the_outcome_of_each_run(world: World, release: Release) -> None:
    new = [mail for mail in world.mails() if mail not in release.mails_before]
    assert sum("backend #1 succeeded" in mail for mail in new) == 1
    assert sum("frontend #1 succeeded" in mail for mail in new) == 1


def test_only_the_gateway_and_the_sites_are_open_to_the_outside(world: World, release: Release) -> None:
    services = {item["metadata"]["name"]: item["spec"] for item in world.objects("his", "services")}
    open_ports = {name: spec["ports"][0]["nodePort"] for name, spec in services.items() if spec["type"] == "NodePort"}
    assert open_ports == {"server-gateway": GATEWAY, "yygh-admin": ADMIN, "yygh-site": SITE}


def test_image_builds_overlap_and_never_exceed_jobs(release: Release) -> None:
    of = spans(release.events("backend"), "image")
    assert len(of) == 10
    assert 1 < most_at_once(of) <= 2


def test_deploys_take_no_slot_of_jobs(release: Release) -> None:
    assert most_at_once(spans(release.events("backend"), "deploy")) == 10


def test_no_service_goes_out_before_every_image_is_pushed(release: Release) -> None:
    events = release.events("backend")
    assert max(end for _, end in spans(events, "push")) <= min(start for start, _ in spans(events, "deploy"))


def test_no_password_is_in_anything_that_the_run_wrote(world: World, release: Release) -> None:
    passwords = (world.sandbox.registry_password.encode(), world.sandbox.git_password.encode())
    for path in (release.folder / ".pipe").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [1 for password in passwords if password in data], path
    assert world.sandbox.git_password not in release.shown


def test_a_second_run_rolls_every_service_and_no_request_fails(world: World, release: Release) -> None:
    before = {item["metadata"]["name"]: item["metadata"]["generation"] for item in world.objects("his", "deployments")}
    with polling(world, GATEWAY, "/api/hosp/hospitals") as poller:
        done = release.run(world)
    assert done.returncode == 0, done.stdout[-6000:]
    after = {item["metadata"]["name"]: item for item in world.objects("his", "deployments")}
    for name in SERVICES + SITES:
        assert after[name]["metadata"]["generation"] > before[name]
        assert ":SNAPSHOT-2@" in after[name]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert poller.failures == []
    assert poller.answers > 100


def test_a_compile_error_is_red_builds_no_image_and_shows_the_compilers_lines_last(
    world: World, sources: Path, tmp_path: Path
) -> None:
    broken = sources / "yygh-broken"
    shutil.copytree(EXAMPLES / "sources" / "yygh-parent", broken, ignore=shutil.ignore_patterns("target"))
    main = next((broken / "service" / "service-hosp").rglob("*Application.java"))
    main.write_text(main.read_text().replace("class ", "clazz ", 1))
    publish(broken)
    try:
        env = world.env() | {"BACKEND_GIT_URL": f"{world.sandbox.git_url}/yygh-broken.git"}
        done = pipe(tmp_path, "run", EXAMPLES / "backend.yaml", "-p", "org=e2e", env=env, limit=600)
    finally:
        shutil.rmtree(repository("yygh-broken"))
    assert done.returncode == 1
    finished = {e["stage"]: e["outcome"] for e in events_of(tmp_path, "backend") if e["type"] == "stage.finished"}
    assert finished["compile"] == "failed"
    assert {outcome for name, outcome in finished.items() if name.startswith(("image", "push", "deploy"))} == {
        "skipped"
    }
    closing = done.stdout[done.stdout.index("---- compile failed") :]
    assert "[ERROR]" in closing
    assert main.name in closing
