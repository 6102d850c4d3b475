"""Events are heard by one watch a namespace, whatever happens to it; no list of them is ever read."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest

from pipeline.stage import StageFailed
from stages.clients.kubernetes import diagnosis, following, hearing, waiting
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.hearing import Hearing
from stages.clients.kubernetes.rollout import LATER
from stages.clients.kubernetes.transport import ApiError, Unreachable
from stages.clients.kubernetes.waiting import Allowance, wait_until_done
from tests.support.context import FakeContext


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "_AFTER_ERROR", 0.01)
    monkeypatch.setattr(following, "_PAUSE", 0.01)
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(following, "_NEVER_ALLOWED", 0.02)


def told(about: str, name: str, version: int, message: str = "") -> dict[str, Any]:
    metadata = {"uid": name, "name": name, "resourceVersion": str(version)}
    return {"type": "ADDED", "object": {"metadata": metadata, "involvedObject": {"uid": about}, "message": message}}


@dataclass
class FakeCluster:
    """Each round is what one watch does; after the last all is quiet."""

    rounds: list[list[Any]]
    watched: list[str] = field(default_factory=list)
    versions: int = 0
    refusal: ApiError | None = None
    server: str = "https://c"
    account: str = "a"

    async def version(self, what: Collection) -> str:
        self.versions += 1
        if self.refusal:
            raise self.refusal
        return "7"

    async def watch(self, what: Collection, version: str, seconds: int) -> AsyncIterator[Any]:
        self.watched.append(version)
        if not self.rounds:
            await anyio.sleep_forever()
        for event in self.rounds.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


async def heard(rounds: list[list[Any]], until: Callable[[FakeCluster], bool]) -> tuple[Hearing, FakeCluster]:
    fake = FakeCluster(rounds)
    made = Hearing(cast("Cluster", fake))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.listen, "his")
            while not until(fake):
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    return made, fake


async def test_a_watch_goes_on_where_the_one_before_ended() -> None:
    made, fake = await heard([[told("pod", "a", 8)], [told("pod", "b", 9)]], lambda fake: len(fake.watched) == 3)
    assert (fake.watched, fake.versions) == (["7", "8", "9"], 1)
    assert [event["metadata"]["name"] for event in made.events["pod"]] == ["a", "b"]


async def test_an_event_that_is_told_again_is_the_newest() -> None:
    rounds = [[told("pod", "a", 8, "one"), told("pod", "b", 9), told("pod", "a", 10, "two")]]
    made, _ = await heard(rounds, lambda fake: not fake.rounds and len(fake.watched) > 1)
    assert [event["metadata"]["name"] for event in made.events["pod"]] == ["b", "a"]
    assert made.events["pod"][-1]["message"] == "two"


@pytest.mark.parametrize("error", [ApiError(410, {}, "watch"), ApiError(500, {}, "watch"), Unreachable("s", "cut")])
async def test_after_an_error_it_listens_from_now_on(error: Exception) -> None:
    made, fake = await heard([[error], [told("pod", "a", 8)]], lambda fake: len(fake.watched) == 3)
    assert (fake.watched, fake.versions) == (["7", "7", "8"], 2)
    assert list(made.events) == ["pod"]


async def test_who_may_not_listen_does_not_ask_again_once_that_is_sure() -> None:
    fake = FakeCluster([], refusal=ApiError(403, {}, "list Event in his"))
    with anyio.fail_after(5):
        await Hearing(cast("Cluster", fake)).listen("his")
    assert (fake.watched, fake.versions > 1) == ([], True)


async def test_who_was_allowed_to_listen_asks_again_when_refused() -> None:
    rounds: list[list[Any]] = [[told("pod", "a", 8), ApiError(403, {}, "watch")], [told("pod", "b", 9)]]
    made, _ = await heard(rounds, lambda fake: len(fake.watched) == 3)
    assert [event["metadata"]["name"] for event in made.events["pod"]] == ["a", "b"]


async def test_of_a_chatty_object_the_newest_events_are_kept() -> None:
    made, _ = await heard([[told("pod", f"e{n}", n) for n in range(50)]], lambda fake: len(fake.watched) > 1)
    assert [event["metadata"]["name"] for event in made.events["pod"]] == [f"e{n}" for n in range(20, 50)]


async def test_who_listens_at_the_same_time_shares_one_watch_and_another_goes_on_with_it() -> None:
    fake = FakeCluster([[told("pod", "a", 8)]])
    first, second = (Hearing(cast("Cluster", fake)) for _ in range(2))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as early:
                early.start_soon(first.listen, "his")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(second.listen, "his")
                await anyio.wait_all_tasks_blocked()
                assert second.events.get("pod")
                early.cancel_scope.cancel()
            while len(fake.watched) < 2:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert [event["metadata"]["name"] for event in second.events["pod"]] == ["a"]
    assert (fake.watched[:2], fake.versions) == (["7", "8"], 1)
    assert not hearing._HEARD


# -- what is told too rarely -----------------------------------------------------------------------


def said(about: str, reason: str, at: str) -> dict[str, Any]:
    return {"involvedObject": {"uid": about}, "reason": reason, "lastTimestamp": at, "metadata": {"uid": at}}


@dataclass
class FakeStore:
    """Gives these answers to lists, one after the other, and tells nothing."""

    answers: list[Any]
    asked: list[str] = field(default_factory=list)
    server: str = "https://c"
    account: str = "a"

    async def items(self, what: Collection) -> tuple[list[Any], str]:
        self.asked.append(what.fields)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, "7"


async def test_the_last_event_of_an_object_is_recalled_if_its_reason_is_meant() -> None:
    events = [
        said("waits", "WaitForFirstConsumer", "2024-05-01T12:05:00Z"),
        said("waits", "Odd", "2024-05-01T12:00:00Z"),
        said("fails", "WaitForFirstConsumer", "2024-05-01T12:00:00Z"),
        said("fails", "ProvisioningFailed", "2024-05-01T12:05:00Z"),
    ]
    fake = FakeStore([Unreachable("https://c", "cut"), events])
    made = Hearing(cast("Cluster", fake))
    await made.recall("PersistentVolumeClaim", "his", LATER)
    assert {uid: [each["reason"] for each in told] for uid, told in made.events.items()} == {
        "waits": ["WaitForFirstConsumer"]
    }
    assert fake.asked == ["involvedObject.kind=PersistentVolumeClaim"] * 2


async def test_what_is_heard_counts_for_more_than_what_was_recalled() -> None:
    fake = FakeStore([[said("claim", "WaitForFirstConsumer", "2024-05-01T12:05:00Z")]])
    made = Hearing(cast("Cluster", fake))
    await made.recall("PersistentVolumeClaim", "his", LATER)
    made._heard.append(heard_now := hearing._Heard())
    heard_now.take(told("claim", "a", 8, "failing"))
    assert [each.get("message") for each in made.events["claim"]] == ["failing"]


async def test_who_may_not_list_events_recalls_nothing() -> None:
    made = Hearing(cast("Cluster", FakeStore([ApiError(403, {}, "list")])))
    await made.recall("PersistentVolumeClaim", "his", LATER)
    assert not made.events


async def test_of_a_young_object_every_last_event_is_recalled() -> None:
    events = [said("new", "ProvisioningFailed", "2024-05-01T12:05:00Z"), said("old", "ProvisioningFailed", "2024")]
    made = Hearing(cast("Cluster", FakeStore([events])))
    await made.recall("PersistentVolumeClaim", "his", LATER, {"new"})
    assert list(made.events) == ["new"]


class Pending(FakeCluster):
    """Has a claim that waits, made at a time; the last word on it, told before anybody listened, has this reason."""

    now = datetime(2024, 5, 1, 12, 5, 30, tzinfo=UTC)

    def __init__(self, made: str, reason: str) -> None:
        super().__init__([])
        metadata = {"name": "data", "namespace": "his", "uid": "claim", "resourceVersion": "5"}
        self.claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {**metadata, "creationTimestamp": made},
            "status": {"phase": "Pending"},
        }
        self.last = {**said("claim", reason, "2024-05-01T12:05:00Z"), "message": 'storageclass "gold" not found'}

    async def items(self, what: Collection) -> tuple[list[Any], str]:
        return [self.last if what.kind == "Event" else self.claim], "7"


async def wait_for(ctx: FakeContext, cluster: Pending, seconds: float) -> None:
    with anyio.fail_after(5):
        await wait_until_done(ctx, cast("Cluster", cluster), [cluster.claim], Allowance(seconds))


async def test_a_claim_that_has_waited_for_its_first_pod_for_long_is_done(ctx: FakeContext) -> None:
    await wait_for(ctx, Pending("2023-01-01T00:00:00Z", "WaitForFirstConsumer"), 60)
    assert "it is bound when a pod uses it" in ctx.text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("2024-05-01T12:05:00Z", '/data: it cannot be bound: storageclass "gold" not found'),
        ("2023-01-01T00:00:00Z", "not done after 1 s"),
    ],
)
async def test_what_was_told_of_a_claim_before_we_listened_counts_if_the_claim_is_new(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, made: str, said: str
) -> None:
    monkeypatch.setattr(diagnosis, "CONFIG", 0.1)
    monkeypatch.setattr(waiting, "_TICK", 0.02)
    with pytest.raises(StageFailed) as failed:
        await wait_for(ctx, Pending(made, "ProvisioningFailed"), 1)
    assert said in str(failed.value)
