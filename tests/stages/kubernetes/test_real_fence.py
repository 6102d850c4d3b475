"""Who may write to a target: tickets, the Lease, and writes that hold to what was seen, on a real API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from pipeline.stage import CauseKind, ReleasePart, StageErrored, StageFailed
from stages.clients.kubernetes import fence
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.applier import Applier
from stages.clients.kubernetes.apply import check, write
from stages.clients.kubernetes.fence import Superseded, Tenure, draw, lease_ref, tenure
from stages.clients.kubernetes.guard import Guard
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import RUN, Object, Ref
from stages.clients.kubernetes.records import Head
from tests.stages.kubernetes.support import World

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox, pytest.mark.timeout(120, func_only=True)]


@pytest.fixture
async def cluster(world: World, namespace: str) -> AsyncIterator[Cluster]:
    async with world.cluster() as cluster:
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        yield cluster


def part(namespace: str, number: int) -> ReleasePart:
    return ReleasePart(target="t", namespace=namespace, number=number)


@asynccontextmanager
async def held(world: World, cluster: Cluster, namespace: str, number: int) -> AsyncIterator[Tenure]:
    async with tenure(world.context(), cluster, part(namespace, number)) as tenant:
        yield tenant


async def lease(cluster: Cluster, namespace: str) -> Object:
    found = await cluster.get(lease_ref(namespace, "t"))
    assert found is not None
    return found


async def take_over(cluster: Cluster, namespace: str) -> None:
    """What a newer run does to the Lease."""
    thing = await lease(cluster, namespace)
    thing["metadata"]["annotations"] |= {"pipe-ci/applied": "9", "pipe-ci/applied-by": "other#1"}
    thing["spec"]["holderIdentity"] = "other#1 (x)"
    await cluster.replace(thing)


# -- tickets ---------------------------------------------------------------------------------------


async def test_no_two_who_draw_at_once_get_one_number(cluster: Cluster, namespace: str) -> None:
    numbers: list[int] = []

    async def one() -> None:
        numbers.append(await draw(cluster, namespace, "t"))

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(one)
    assert sorted(numbers) == list(range(1, 13))


async def test_numbers_go_on_when_somebody_has_deleted_the_lease(cluster: Cluster, namespace: str) -> None:
    assert await draw(cluster, namespace, "t") == 1
    await Ledger(cluster, namespace, "t").open(Head(target="t", number=7, run="p#1", run_id="r"))
    await cluster.delete(lease_ref(namespace, "t"))
    assert await draw(cluster, namespace, "t") == 8


async def test_a_new_lease_knows_what_was_applied_and_what_was_gone_back_from(
    world: World, cluster: Cluster, namespace: str
) -> None:
    ledger = Ledger(cluster, namespace, "t")
    for number, outcome in ((6, "complete"), (7, "rolled back")):
        await ledger.open(Head(target="t", number=number, run=f"p#{number}", run_id="r", outcome=outcome))
        await ledger.note_turn(number, number - 4)
    assert await draw(cluster, namespace, "t") == 8
    thing = await lease(cluster, namespace)
    assert thing["spec"]["leaseTransitions"] == 3
    with pytest.raises(Superseded, match=r"superseded by p#7: t@7 went there"):
        async with held(world, cluster, namespace, 5):
            pytest.fail("it got the target")
    with pytest.raises(StageFailed, match="t@7 was rolled back"):
        async with held(world, cluster, namespace, 7):
            pytest.fail("it got the target")


async def test_targets_of_one_namespace_count_by_themselves(cluster: Cluster, namespace: str) -> None:
    assert [await draw(cluster, namespace, name) for name in ("t", "u", "t")] == [1, 1, 2]


# -- the Lease -------------------------------------------------------------------------------------


async def test_a_lower_ticket_than_the_last_applied_is_superseded_and_told_by_whom(
    world: World, cluster: Cluster, namespace: str
) -> None:
    old, new = [await draw(cluster, namespace, "t") for _ in range(2)]
    async with held(world, cluster, namespace, new) as tenant:
        await tenant.leave(cluster)
    with pytest.raises(Superseded, match=r"superseded by sample#7: t@2 went there") as caught:
        async with held(world, cluster, namespace, old):
            pytest.fail("it got the target")
    assert caught.value.cause.kind is CauseKind.SUPERSEDED_BY


async def test_stages_of_one_run_share_one_hold(
    world: World, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, ctx = await draw(cluster, namespace, "t"), world.context()
    asked: list[str] = []
    send = type(cluster.transport).send

    async def counted(self: Any, request: Any) -> Any:
        asked.append(request.method)
        return await send(self, request)

    monkeypatch.setattr(type(cluster.transport), "send", counted)

    async def one() -> None:
        async with tenure(ctx, cluster, part(namespace, number)):
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    assert asked == ["GET", "PUT"]


async def test_another_run_waits_until_the_holder_lets_go(world: World, cluster: Cluster, namespace: str) -> None:
    first, second = [await draw(cluster, namespace, "t") for _ in range(2)]
    order: list[str] = []
    ctx = world.context()

    async def later() -> None:
        async with tenure(ctx, cluster, part(namespace, second)):
            order.append("second")

    async with anyio.create_task_group() as tasks, held(world, cluster, namespace, first) as tenant:
        tasks.start_soon(later)
        await anyio.sleep(1.5)
        order.append("first")
        await tenant.leave(cluster)
    assert order == ["first", "second"]
    assert any(text.startswith("waiting for sample#7 on") for text, _ in ctx.progressed)


async def test_a_dead_holder_is_believed_for_as_long_as_its_lease_says(
    world: World, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_SECONDS", 3)
    first, second = [await draw(cluster, namespace, "t") for _ in range(2)]
    async with held(world, cluster, namespace, first):
        pass
    began = anyio.current_time()
    async with held(world, cluster, namespace, second):
        assert 2.5 < anyio.current_time() - began < 20


async def test_a_hold_is_renewed_while_somebody_works_under_it(
    world: World, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_RENEWED_EVERY", 0.4)
    async with held(world, cluster, namespace, await draw(cluster, namespace, "t")):
        before = (await lease(cluster, namespace))["spec"]["renewTime"]
        await anyio.sleep(1.5)
        assert (await lease(cluster, namespace))["spec"]["renewTime"] > before


async def test_a_wait_for_another_holder_has_an_end(
    world: World, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_WAIT", 1.0)
    first, second = [await draw(cluster, namespace, "t") for _ in range(2)]
    async with held(world, cluster, namespace, first):
        with pytest.raises(StageErrored, match="was still deploying to t"):
            async with held(world, cluster, namespace, second):
                pytest.fail("it got the target")


async def test_who_lost_the_hold_is_stopped_in_the_middle(
    world: World, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_RENEWED_EVERY", 0.4)
    number = await draw(cluster, namespace, "t")

    async def work() -> None:
        async with held(world, cluster, namespace, number):
            await take_over(cluster, namespace)
            await anyio.sleep(20)
            pytest.fail("it went on")

    with pytest.raises(Superseded):
        await work()


async def test_a_machine_that_slept_learns_from_the_cluster_that_it_has_lost_its_hold(
    world: World, cluster: Cluster, namespace: str
) -> None:
    """Its clock stood still meanwhile, so that by it the hold has just been renewed."""
    number = await draw(cluster, namespace, "t")

    async def work() -> None:
        async with held(world, cluster, namespace, number) as tenant:
            await tenant.confirm(cluster)
            await take_over(cluster, namespace)
            await tenant.ensure(cluster)
            await tenant.confirm(cluster)
            pytest.fail("it went on")

    with pytest.raises(Superseded):
        await work()


# -- writes ----------------------------------------------------------------------------------------


def config(namespace: str, value: str, name: str = "c") -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return Manifest({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": value}}, "f", 1)


async def value(cluster: Cluster, namespace: str, name: str = "c") -> str | None:
    found = await cluster.get(Ref("v1", "ConfigMap", namespace, name))
    return found["data"]["k"] if found else None


async def guarded(cluster: Cluster, manifest: Manifest, *, lost: bool) -> Guard:
    """A guard that has seen an object, and whose hold is gone by the time it is asked for again."""

    async def ensure() -> None:
        if lost:
            raise Superseded("t", 1, "other#1", 2)

    guard = Guard(ensure)
    for ref, thing in (await check(Applier(cluster), [manifest])).seen.items():
        guard.take_in(ref, thing)
    return guard


@pytest.mark.parametrize("there", [True, False])
async def test_nothing_is_written_over_what_a_newer_run_wrote_meanwhile(
    world: World, cluster: Cluster, namespace: str, *, there: bool
) -> None:
    if there:
        await cluster.apply(config(namespace, "before").object)
    guard = await guarded(cluster, config(namespace, "old"), lost=True)
    await cluster.apply(config(namespace, "new").object)
    with pytest.raises(StageFailed, match="superseded"):
        await write(world.context(), Applier(cluster, guard=guard), "configuration", [config(namespace, "old")])
    assert await value(cluster, namespace) == "new"


async def test_what_a_newer_run_deleted_meanwhile_is_not_made_again(
    world: World, cluster: Cluster, namespace: str
) -> None:
    await cluster.apply(config(namespace, "before").object)
    guard = await guarded(cluster, config(namespace, "old"), lost=True)
    await cluster.delete(Ref("v1", "ConfigMap", namespace, "c"))
    with pytest.raises(StageFailed, match="superseded"):
        await write(world.context(), Applier(cluster, guard=guard), "configuration", [config(namespace, "old")])
    assert await value(cluster, namespace) is None


async def test_what_only_the_older_run_makes_is_taken_back_when_its_hold_was_lost(
    world: World, cluster: Cluster, namespace: str
) -> None:
    guard = await guarded(cluster, config(namespace, "old"), lost=True)
    with pytest.raises(StageFailed, match="superseded"):
        await write(world.context(), Applier(cluster, guard=guard), "configuration", [config(namespace, "old")])
    assert await value(cluster, namespace) is None


async def test_it_is_taken_back_also_when_another_object_of_the_batch_has_lost(
    world: World, cluster: Cluster, namespace: str
) -> None:
    await cluster.apply(config(namespace, "before").object)
    both = [config(namespace, "old"), config(namespace, "old", "only-old")]
    guard = await guarded(cluster, both[0], lost=True)
    for ref, thing in (await check(Applier(cluster), both)).seen.items():
        guard.take_in(ref, thing)
    await cluster.apply(config(namespace, "new").object)
    with pytest.raises(StageFailed, match="superseded"):
        await write(world.context(), Applier(cluster, guard=guard), "configuration", both)
    assert (await value(cluster, namespace), await value(cluster, namespace, "only-old")) == ("new", None)


async def test_what_a_newer_run_has_applied_over_is_not_taken_back(
    world: World, cluster: Cluster, namespace: str
) -> None:
    newer = config(namespace, "new").object
    newer["metadata"]["annotations"] = {RUN: "newer"}

    async def ensure() -> None:
        await cluster.apply(newer)
        raise Superseded("t", 1, "other#1", 2)

    guard = Guard(ensure)
    for ref, thing in (await check(Applier(cluster), [config(namespace, "old")])).seen.items():
        guard.take_in(ref, thing)
    with pytest.raises(StageFailed, match="superseded"):
        await write(world.context(), Applier(cluster, guard=guard), "configuration", [config(namespace, "old")])
    assert await value(cluster, namespace) == "new"


async def test_a_controller_that_changes_an_object_meanwhile_holds_up_no_deploy(
    world: World, cluster: Cluster, namespace: str
) -> None:
    await cluster.apply(config(namespace, "before").object)
    guard = await guarded(cluster, config(namespace, "new"), lost=False)
    labelled = {"metadata": {"labels": {"by": "a-controller"}}}
    await cluster.merge(Ref("v1", "ConfigMap", namespace, "c"), labelled)
    await write(world.context(), Applier(cluster, guard=guard), "configuration", [config(namespace, "new")])
    assert await value(cluster, namespace) == "new"


# -- records ---------------------------------------------------------------------------------------


async def test_of_two_who_end_a_release_at_once_none_is_lost(cluster: Cluster, namespace: str) -> None:
    ledger = Ledger(cluster, namespace, "t")
    await ledger.open(Head(target="t", number=1, run="p#1", run_id="r"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ledger.change(1, undone_by=5))
        tasks.start_soon(lambda: ledger.close(1, "partial", "why"))
    head = (await ledger.heads())[1]
    assert (head.outcome, head.undone_by, head.message) == ("partial", 5, "why")


async def test_old_releases_are_forgotten_but_not_what_they_still_hold(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.clients.kubernetes import ledger as module
    from stages.clients.kubernetes.records import Part, write_part

    monkeypatch.setattr(module, "KEPT", 2)
    ledger = Ledger(cluster, namespace, "t")
    for number in (1, 2, 3, 4):
        state = {"d[a]": number, "d[b]": 1}
        head = Head(target="t", number=number, run="p#1", run_id="r", outcome="complete", state=state)
        await ledger.open(head)
        for name in ("d[a]", "d[b]") if number == 1 else ("d[a]",):
            thing = config(namespace, "x").object
            await ledger.write(write_part(Part(name=name, number=number, objects=(thing,)), head, namespace, chunk=50))
    await ledger.forget(await ledger.heads())
    assert list(await ledger.heads()) == [3, 4]
    assert [(part.name, part.number) for part in await ledger.parts([1, 2, 3, 4])] == [
        ("d[b]", 1),
        ("d[a]", 3),
        ("d[a]", 4),
    ]
