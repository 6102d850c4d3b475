"""What being part of a release costs a deploy, on a real API server."""

from dataclasses import replace
from typing import Any

import anyio.lowlevel
import pytest

from pipeline.stage import ReleasePart
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import RUN, Ref
from stages.clients.kubernetes.records import Terms
from stages.clients.kubernetes.restore import Plan, Service, restore
from stages.clients.kubernetes.transport import Transport
from stages.deploy import Deploy
from stages.release import Release
from stages.ticket import Ticket
from tests.stages.kubernetes.support import World

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox, pytest.mark.timeout(120, func_only=True)]

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: b}\n"
SERVICES = [f"s{number}" for number in range(10)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every request that is sent: method and path."""
    seen: list[tuple[str, str]] = []
    send = Transport.send

    async def counted(self: Transport, request: Any) -> Any:
        seen.append((request.method, request.path))
        return await send(self, request)

    monkeypatch.setattr(Transport, "send", counted)
    return seen


async def deployed(world: World, namespace: str, run: str, release: ReleasePart | None) -> None:
    """Ten deploys of one run, one after the other."""
    for name in SERVICES:
        ctx = world.context(run)
        ctx.run = replace(ctx.run, stage=f"deploy[{name}]")
        (ctx.workspace / "app.yml").write_text(CONFIG.replace("NAME", name))
        fields = {"manifests": ["*.yml"], "namespace": namespace, "secret": "kubeconfig"}
        await Deploy.model_validate({**fields, "release": release}).run(ctx)


async def test_a_release_of_ten_services_costs_two_requests_a_service_and_a_handful_more(
    world: World, namespace: str, asked: list[tuple[str, str]]
) -> None:
    await deployed(world, namespace, "RUN0", None)  # makes the namespace, and looks the kinds up
    asked.clear()
    await deployed(world, namespace, "RUN1", None)
    plain = len(asked)
    assert not any("leases" in path or "secrets" in path for _, path in asked)

    asked.clear()
    here = {"target": "t", "namespace": namespace, "secret": "kubeconfig"}
    names = [f"deploy[{name}]" for name in SERVICES]
    drawn = await Ticket.model_validate({**here, "parts": names}).run(world.context("RUN2"))
    before = len(asked)
    part = ReleasePart(target="t", namespace=namespace, number=drawn.number)
    await deployed(world, namespace, "RUN2", part)
    deploys = len(asked) - before
    ends = {name: {"outcome": "succeeded"} for name in names}
    await Release.model_validate({**here, "number": drawn.number, "parts": ends}).run(world.context("RUN2"))
    lease = sum("leases" in path for _, path in asked)
    assert deploys - plain <= 2 * len(SERVICES) + 3 + lease
    assert len(asked) - deploys <= 16
    async with world.cluster() as cluster:
        ledger = Ledger(cluster, namespace, "t")
        (head,) = (await ledger.heads()).values()
        assert (head.outcome, head.turn, set(head.state)) == ("complete", 1, set(names))
        assert [part.outcome for part in await ledger.parts([1])] == ["succeeded"] * 10


async def test_a_deploy_that_is_tried_again_remembers_what_its_first_attempt_made(world: World, namespace: str) -> None:
    here = {"target": "t", "namespace": namespace, "secret": "kubeconfig"}
    drawn = await Ticket.model_validate({**here, "parts": ["stage"]}).run(world.context("RUN1"))
    part = ReleasePart(target="t", namespace=namespace, number=drawn.number)
    terms = {"on_conflict": "force", "waits_for": ("mysql",), "wait": "90s"}
    for attempt in (1, 2):
        ctx = world.context("RUN1")
        ctx.run = replace(ctx.run, attempt=attempt)
        (ctx.workspace / "app.yml").write_text(CONFIG.replace("NAME", "c"))
        fields = {"manifests": ["*.yml"], "namespace": namespace, "secret": "kubeconfig", "release": part, **terms}
        await Deploy.model_validate(fields).run(ctx)
    async with world.cluster() as cluster:
        (kept,) = await Ledger(cluster, namespace, "t").parts([1])
    assert kept.created == (("v1", "ConfigMap", namespace, "c"),)
    assert (kept.on_conflict, kept.waits_for, kept.wait) == ("force", ("mysql",), 90), "on which a rollback goes back"


async def test_what_cannot_go_back_is_named_the_rest_does_and_nothing_is_removed_that_it_may_need(
    world: World, namespace: str
) -> None:
    def config(name: str, **more: Any) -> Manifest:
        metadata = {"name": name, "namespace": namespace, "annotations": {RUN: "RUN1"}, **more}
        return Manifest({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}, "t@1", 0)

    gone = Manifest({**config("old").object, "apiVersion": "example.org/v1", "kind": "Gone"}, "t@1", 0)
    refused = config("refused", uid="no-such-uid")
    services = (Service("d[a]", (gone,), Terms()), Service("d[b]", (refused, config("good")), Terms(wait=30)))
    newer = Ref("v1", "ConfigMap", namespace, "newer")
    plan = Plan(services, (newer,), frozenset({"RUN1"}), ())
    async with world.cluster() as cluster:
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        await cluster.apply(config("newer").object)
        done = await restore(world.context("RUN1"), cluster, plan, Guard(anyio.lowlevel.checkpoint))
        assert await cluster.get(Ref("v1", "ConfigMap", namespace, "good"))
        assert await cluster.get(newer)
        assert (done.objects, done.removed, done.services) == (1, [], ["d[b]"])
        assert (
            done.failure
            == f"Gone {namespace}/old does not go back: the cluster serves no Gone of example.org/v1 any more"
        )
        assert any("refused" in word for word in done.words), done.words
        assert done.words[-1].startswith(f"ConfigMap {namespace}/newer stays, as not everything went back")
        mended = replace(plan, services=(Service("d[b]", (config("good"),), Terms()),))
        done = await restore(world.context("RUN1"), cluster, mended, Guard(anyio.lowlevel.checkpoint))
        assert (done.failure, done.removed) == ("", [newer])
