"""What is told before a deploy about what its pods need, and about their registry."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from aiohttp import web

from pipeline.stage import Severity
from stages.clients.kubernetes import beside
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.beside import look_at_needs, look_at_registry
from stages.clients.kubernetes.needs import parse_need
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.registered_in import InNacos
from stages.clients.kubernetes.transport import ApiError
from tests.stages.kubernetes.test_registration import manifest
from tests.stages.test_nacos import HOST, answer, saying, serving
from tests.support.context import FakeContext

PARTS = [manifest("web"), manifest("db", "StatefulSet"), manifest("web", "Service")]


class FakeCluster:
    """Has a Service `mysql` and a Deployment `nacos`; jobs are nobody's business."""

    server = "https://c"
    transport = SimpleNamespace(credentials="the kubeconfig 'k'")

    async def get(self, ref: Ref) -> Object | None:
        if ref.kind == "Job":
            raise ApiError(403, {"message": "no"}, "get")
        return {"kind": ref.kind} if (ref.kind, ref.name) in {("Service", "mysql"), ("Deployment", "nacos")} else None


async def told(*needs: str, makers: str = "") -> list[tuple[Severity, str, str]]:
    cluster = cast("Cluster", FakeCluster())
    found = await look_at_needs(cluster, [parse_need(text) for text in needs], PARTS, makers)
    return [(each.severity, each.cause.message, each.hint) for each in found]


async def test_what_is_there_or_part_of_the_deploy_is_well() -> None:
    assert await told("mysql", "deploy/nacos", "db", "svc/web") == []


async def test_what_is_not_there_may_still_come() -> None:
    assert await told("service/nacso") == [
        (
            Severity.MAY_FAIL,
            "`waits_for:` names Service/nacso, and his has no workload or Service of that name",
            "correct the name, or see that it is deployed too",
        )
    ]
    ((_, _, hint),) = await told("sts/mysql", makers="database")
    assert hint == "well if database makes it"


async def test_where_we_may_not_look_nothing_is_guessed() -> None:
    ((severity, message, _),) = await told("import")
    assert (severity, message) == (Severity.UNKNOWN, "the kubeconfig 'k' may not see whether import is there")


# -- the registry ----------------------------------------------------------------------------------


async def looked(tmp_path: Path, url: str, makers: str = "") -> Any:
    return await look_at_registry(FakeContext(tmp_path), InNacos(server=url), PARTS, makers)


@pytest.mark.network
async def test_a_registry_that_answers_is_well_whatever_it_knows(tmp_path: Path) -> None:
    async with serving(saying(200, answer(HOST).decode())) as server:
        found = await looked(tmp_path, server.url)
    assert found.findings == ()
    assert found.checked == [f"Nacos {server.url} (namespace public, group DEFAULT_GROUP) knows 2 of 2 services"]


@pytest.mark.network
@pytest.mark.parametrize(
    ("status", "makers", "severity", "hint"),
    [
        (403, "", Severity.FAILS, "declare one and name it: `registered_in: {nacos: {secret: NAME}}`"),
        (403, "nacos", Severity.MAY_FAIL, "well if nacos mends it"),
        (500, "", Severity.MAY_FAIL, "name it as this machine reaches it, and see that it runs"),
        (500, "nacos", Severity.MAY_FAIL, "well if nacos starts it"),
    ],
)
async def test_a_registry_that_refuses_or_fails_is_told_as_sure_as_that_is(
    tmp_path: Path, status: int, makers: str, severity: Severity, hint: str
) -> None:
    async with serving(saying(status, "")) as server:
        (finding,) = (await looked(tmp_path, server.url, makers)).findings
    assert (finding.severity, finding.hint) == (severity, hint)


@pytest.mark.network
async def test_a_registry_that_hangs_costs_the_look_only_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await anyio.sleep(30)
        return web.Response()

    monkeypatch.setattr(beside, "_SECONDS", 0.2)
    async with serving(hang) as server:
        (finding,) = (await looked(tmp_path, server.url)).findings
    assert (finding.severity, finding.cause.message) == (
        Severity.UNKNOWN,
        f"Nacos {server.url}: no answer within 0.2 s",
    )
