"""Services of a real cluster that crash without what they need, while that is late, broken or absent."""

import re
import secrets
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from pipeline.stage import Severity, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.diagnosis import CRASHES
from stages.clients.kubernetes.objects import Ref
from tests.stages.kubernetes.support import Result, World, app, deploy, forget
from tests.stages.kubernetes.test_real_looks import look, make, only, space

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(420)]

SERVES = "mkdir /tmp/w; echo ok > /tmp/w/index.html; httpd -f -p 3306 -h /tmp/w"
PROBE = "readinessProbe: {tcpSocket: {port: 3306}, periodSeconds: 1}"
NEEDED = {
    "late": app("late", f"sleep 75; {SERVES}", container=PROBE),
    "idle": app("idle", SERVES, replicas=0, container=PROBE),
    "broken": app("broken", "echo no disk; exit 3", container=PROBE),
}
NEEDS: dict[str, dict[str, Any]] = {
    "late": {"wait": "5m", "waits_for": ["late"]},
    "idle": {"wait": "5m", "waits_for": ["service/idle"]},
    "broken": {"wait": "5m", "waits_for": ["broken"]},
    "absent": {"wait": "50s", "waits_for": ["absent"]},
    "imageless": {"wait": "5m", "waits_for": ["absent"], "images": ["{registry}/lib/busybox:nope"]},
}


def needy(name: str) -> str:
    """A service that ends when what it needs does not answer."""
    host = f"${name.upper()}_SERVICE_HOST"
    # what it says itself would stand before or after our line, as the two streams are not in order
    asked = (
        f"wget -q -O /dev/null http://{host}:3306/ 2>/dev/null || {{ echo connection refused to {name}:3306; exit 1; }}"
    )
    return app(f"needs-{name}", f"{asked}; sleep 3600")


def service(namespace: str, name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 3306}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def wake_up(world: World, namespace: str) -> None:
    """Scale `idle` up when its service has crashed three times."""
    async with world.cluster() as cluster:
        while not await _crashed_three_times(cluster, namespace):
            await anyio.sleep(1)
        await cluster.merge(Ref("apps/v1", "Deployment", namespace, "idle"), {"spec": {"replicas": 1}})


async def _crashed_three_times(cluster: Cluster, namespace: str) -> bool:
    pods, _ = await cluster.items(Collection("v1", "Pod", namespace, labels="app=needs-idle"))
    return any(status["restartCount"] >= 2 for pod in pods for status in pod["status"].get("containerStatuses") or ())


@pytest.fixture(scope="module")
def side_by_side(world: World) -> Iterator[dict[str, Result]]:
    """Every case at once in one namespace, by the name of what is deployed."""
    namespace = f"pipe-test-{secrets.token_hex(4)}"
    results: dict[str, Result] = {}

    async def one(name: str, text: str, fields: dict[str, Any]) -> None:
        images = [each.format(registry=world.registry) for each in fields.get("images", [world.image])]
        results[name] = await deploy(world, namespace, text, **{**fields, "images": images, "substitute": False})

    async def everything() -> None:
        await make(world, space(namespace), *(service(namespace, name) for name in NEEDED))
        async with anyio.create_task_group() as tasks:
            for name, text in NEEDED.items():
                tasks.start_soon(one, name, text, {"wait": "2m"})
            for name, fields in NEEDS.items():
                tasks.start_soon(one, f"needs-{name}", needy(name), fields)
            tasks.start_soon(wake_up, world, namespace)

    anyio.run(everything)
    yield results
    forget(world, namespace)


@pytest.mark.parametrize("name", ["late", "idle"])
def test_a_service_that_crashes_until_its_need_is_up_is_green_then(side_by_side: dict[str, Result], name: str) -> None:
    result = side_by_side[f"needs-{name}"]
    assert result.error is None, result.message
    assert result.seconds > 35, "by then it would have been red without a need"


def test_the_service_has_crashed_more_often_than_it_may(side_by_side: dict[str, Result]) -> None:
    found = re.findall(
        r"it crashed with exit code 1, (\d) times so far, 0 of them since late is up",
        side_by_side["needs-late"].ctx.text,
    )
    assert max(map(int, found)) > CRASHES


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("late", r"waiting for late \(Deployment \S+/late: 0 of 1 pods ready; .*\), without which pod needs-late-\S+ crashes"),
        ("idle", r"waiting for Service/idle \(Deployment \S+/idle: it is scaled to 0\), without which pod needs-idle-\S+ crashes"),
        ("absent", r"waiting for absent \(there is no workload or Service of that name\), without which"),
    ],
)  # fmt: skip
def test_meanwhile_one_line_says_for_whom_it_waits_and_why(
    side_by_side: dict[str, Result], name: str, words: str
) -> None:
    result = side_by_side[f"needs-{name}"]
    assert any(re.search(words, line) for line in result.ctx.text.splitlines()), result.ctx.text
    assert any(re.search(words, text) for text, _ in result.ctx.progressed)


def test_a_need_that_fails_is_the_cause_with_its_own_log(side_by_side: dict[str, Result]) -> None:
    result = side_by_side["needs-broken"]
    assert isinstance(result.error, StageFailed)
    assert re.match(
        r"Deployment \S+/needs-broken: its pods crash without broken: Deployment \S+/broken: pod broken-\S+, "
        r"container app, image \S+: it crashed with exit code 3, \d times so far; its last words: no disk",
        result.message,
    ), result.message
    assert "no disk" in result.evidence
    assert result.seconds < 90


def test_a_need_that_never_comes_is_the_cause_when_the_wait_is_over(side_by_side: dict[str, Result]) -> None:
    result = side_by_side["needs-absent"]
    assert isinstance(result.error, StageFailed)
    assert re.search(
        r"needs-absent: not done after \d+ s: its pods crash without absent: "
        r"there is no workload or Service of that name: pod needs-absent-\S+",
        result.message,
    ), result.message
    assert "connection refused to absent:3306" in result.message
    assert "correct the name in `waits_for:`" in result.error.cause.hint
    assert 45 <= result.seconds < 75


def test_only_a_crash_is_excused(side_by_side: dict[str, Result]) -> None:
    result = side_by_side["needs-imageless"]
    assert "there is no such image" in result.message
    assert result.seconds < 60


async def test_a_name_that_means_nothing_is_told_before(world: World, namespace: str) -> None:
    await make(world, space(namespace), service(namespace, "mysql"))
    finding = only(await look(world, namespace, app(), waits_for=["mysql", "deploy/web", "nacso"]))
    assert finding.severity is Severity.MAY_FAIL
    assert finding.cause.message == (
        f"`waits_for:` names nacso, and {namespace} has no workload or Service of that name"
    )
