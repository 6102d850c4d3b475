"""Deploys to a real cluster whose pods register in a real server that speaks Nacos' API."""

import re
import secrets
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

import sandbox
from pipeline.stage import CauseKind, Login, Severity, StageErrored, StageFailed
from sandbox.nacos import PASSWORD, RNACOS, USER, RunningNacos, nacos
from stages.clients.kubernetes.api import Collection
from tests.stages.kubernetes.support import Result, World, app, deploy, green, red
from tests.stages.kubernetes.test_real_looks import look, only

pytestmark = [pytest.mark.sandbox, pytest.mark.long, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Rust takes its time, and no test's."""
    RNACOS.ensure()


def host() -> str:
    """The address of this machine that pods reach: its end of the link into the sandbox."""
    outer, _ = IPv4Network(f"{sandbox.ensure().node}/30", strict=False).hosts()
    return str(outer)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNacos]:
    with nacos(tmp_path_factory.mktemp("nacos"), host()) as running:
        yield running


def registering(registry: RunningNacos, service: str, *, replicas: int = 1, again: str = "", ip: str = "$IP") -> str:
    """Pods that register and go on saying so, as Nacos' clients do; a probe says that they are well at once."""
    fields = f"ip={ip}&port=9200&serviceName={service}"
    post = f'wget -q -O /dev/null --post-data "" "{registry.url}/v1/ns/instance?{fields}"'
    container = (
        "readinessProbe: {exec: {command: ['true']}, periodSeconds: 1}\n"
        "          env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"
    )
    return app(service, f"while true; do {post}; sleep 4; done {again}", replicas=replicas, container=container)


def fields(registry: RunningNacos, **more: Any) -> dict[str, Any]:
    return {"substitute": False, "registered_in": {"nacos": {"server": registry.url, **more}}}


def registered(registry: RunningNacos, service: str) -> list[str]:
    found = registry.call("GET", "/ns/instance/list", serviceName=service, healthyOnly="false")
    return sorted(each["ip"] for each in found["hosts"])


async def ips(world: World, namespace: str, name: str) -> list[str]:
    async with world.cluster() as cluster:
        pods, _ = await cluster.items(Collection("v1", "Pod", namespace, labels=f"app={name}"))
    return sorted(pod["status"]["podIP"] for pod in pods if not pod["metadata"].get("deletionTimestamp"))


def unique() -> str:
    return f"web-{secrets.token_hex(3)}"


async def test_a_deploy_is_done_when_the_new_pods_are_registered_and_the_old_ones_are_gone(
    world: World, namespace: str, registry: RunningNacos
) -> None:
    name = unique()
    first = await green(world, namespace, registering(registry, name, replicas=2), **fields(registry, port=9200))
    assert f"registered as {name} in Nacos {registry.url}" in first.ctx.text
    before = await ips(world, namespace, name)
    assert registered(registry, name) == before
    second = registering(registry, name, replicas=2, again="# again")
    result = await green(world, namespace, second, **fields(registry))
    after = await ips(world, namespace, name)
    assert not set(before) & set(after)
    assert registered(registry, name) == after
    assert re.search(r"2 of 2 new pods are registered .*; .* of old pods (is|are) still there", result.ctx.text)
    assert result.seconds > 10, "it takes Nacos so long to forget"


async def test_a_deploy_that_changes_nothing_finds_its_pods_registered(
    world: World, namespace: str, registry: RunningNacos
) -> None:
    text, name = registering(registry, unique()), unique()
    text = registering(registry, name)
    await green(world, namespace, text, **fields(registry))
    again = await green(world, namespace, text, **fields(registry))
    assert again.seconds < 10


async def test_pods_that_register_elsewhere_are_red_with_what_is_there_instead(
    world: World, namespace: str, registry: RunningNacos
) -> None:
    name = unique()
    text = registering(registry, name, ip="172.17.0.9")
    result = await red(world, namespace, text, **fields(registry), wait="20s")
    assert isinstance(result.error, StageFailed)
    assert re.search(
        rf"{name}: not done after \d+ s: pod {name}-\S+, container app, image \S+: it is not registered as {name} in Nacos "
        rf"{registry.url} \(namespace public, group DEFAULT_GROUP\): \S+ is missing",
        result.message,
    ), result.message
    assert f"has as {name}: 172.17.0.9:9200 (healthy)" in result.evidence
    assert "spring.cloud.nacos.discovery" in result.error.cause.hint


async def test_a_service_of_another_name_is_told_with_the_names_there_are(
    world: World, namespace: str, registry: RunningNacos
) -> None:
    name = unique()
    given = fields(registry, service="other")
    result = await red(world, namespace, registering(registry, name), **given, wait="20s")
    assert re.search(rf"has no service other; there are: .*{name}", result.evidence), result.evidence


async def test_a_login_is_used_and_a_wrong_one_is_red_at_once_and_before(
    world: World, namespace: str, tmp_path: Path
) -> None:
    with nacos(tmp_path, host(), guarded=True) as guarded:
        token = guarded.call("POST", "/auth/login", username=USER, password=PASSWORD)["accessToken"]
        name = unique()
        text = registering(guarded, name).replace("port=9200", f"port=9200&accessToken={token}")
        given = fields(guarded, secret="nacos")
        result = await green(world, namespace, text, **given, secret={"nacos": Login(USER, PASSWORD)})
        assert PASSWORD not in result.ctx.text
        assert token not in result.ctx.text
        wrong = {"nacos": Login(USER, "wrong")}
        ctx = world.context()
        ctx.secrets = {**ctx.secrets, **wrong}
        finding = only(await look(world, namespace, text, ctx, **given))
        assert (finding.severity, finding.cause.kind) == (Severity.FAILS, CauseKind.CONFIG)
        assert finding.cause.message == (
            f"Nacos {guarded.url} refused the login 'pipe' of the secret 'nacos' (403: unknown user!)"
        )
        failed = await red(world, namespace, text, **given, secret=wrong)
        assert failed.message == finding.cause.message
        assert failed.seconds < 45


async def test_a_server_that_is_gone_is_errored_for_nobody_knows(world: World, namespace: str, tmp_path: Path) -> None:
    with nacos(tmp_path, host()) as gone:
        text, given = registering(gone, unique()), fields(gone)
    result: Result = await deploy(world, namespace, text, **given, wait="25s")
    assert isinstance(result.error, StageErrored)
    assert re.search(r"nobody knows whether its pods are registered: Nacos \S+ does not answer: ", result.message)
