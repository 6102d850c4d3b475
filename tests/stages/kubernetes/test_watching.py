"""The copy of a collection stays true whatever happens to its watch."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pytest

from pipeline.stage import StageErrored
from stages.clients.kubernetes import following, watching
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.pods import Family
from stages.clients.kubernetes.transport import ApiError, Unreachable
from stages.clients.kubernetes.waiting import collections_for
from stages.clients.kubernetes.watching import Mirror

PODS = Collection("v1", "Pod", "his")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PAUSE", 0.01)
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(following, "_NEVER_ALLOWED", 0.02)


def thing(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"uid": name, "name": name, "resourceVersion": str(version)}}


def owned(name: str, owner: str) -> dict[str, Any]:
    made = thing(name)
    made["metadata"]["ownerReferences"] = [{"uid": owner}]
    return made


def gone() -> ApiError:
    return ApiError(410, {"reason": "Expired"}, "watch Pod in his")


asleep = object()
"""In place of an event: the watch stays open, and nothing more is told."""


@dataclass
class FakeCluster:
    """Each round is what a list gives and what its watch then does; after the last all is quiet."""

    rounds: list[tuple[list[Any] | Exception, list[Any]]]
    asked: list[str] = field(default_factory=list)
    slow: bool = False
    """Its lists take longer than anybody waits, though it answers."""
    server: str = "https://c"
    account: str = "a"

    async def version(self, what: Collection) -> str:
        if self.rounds and isinstance(error := self.rounds[0][0], Exception):
            raise error
        return "7"

    async def items(self, what: Collection) -> tuple[list[Any], str]:
        self.asked.append("list")
        if not self.rounds or self.slow:
            await anyio.sleep_forever()
        listed, _ = self.rounds[0]
        if isinstance(listed, Exception):
            self.rounds.pop(0)
            raise listed
        return listed, "7"

    async def watch(self, what: Collection, version: str, seconds: int) -> AsyncIterator[Any]:
        assert version == "7"
        events = self.rounds[0][1]
        for event in events:
            if event is asleep:
                await anyio.sleep_forever()
            if isinstance(event, Exception):
                self.rounds.pop(0)
                raise event
            yield event
        self.rounds.pop(0)


async def followed(rounds: list[Any], until: Callable[[Mirror, FakeCluster], bool]) -> tuple[Mirror, FakeCluster]:
    fake = FakeCluster(rounds)
    mirror = Mirror(cast("Cluster", fake))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mirror.follow, PODS)
            while not until(mirror, fake):
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    return mirror, fake


def names(mirror: Mirror) -> list[str]:
    return [each["metadata"]["name"] for each in mirror.objects(PODS) or []]


async def test_before_the_first_list_nothing_is_known() -> None:
    mirror, _ = await followed([], lambda _, fake: bool(fake.asked))
    assert mirror.objects(PODS) is None


async def test_events_change_the_copy() -> None:
    events = [
        {"type": "ADDED", "object": thing("b")},
        {"type": "DELETED", "object": thing("a")},
        {"type": "MODIFIED", "object": thing("b", 2)},
    ]
    mirror, _ = await followed([([thing("a")], events)], lambda _, fake: not fake.rounds)
    assert names(mirror) == ["b"]
    assert (mirror.objects(PODS) or [])[0]["metadata"]["resourceVersion"] == "2"


async def test_the_first_object_of_an_empty_collection_is_seen() -> None:
    rounds: list[Any] = [([], [{"type": "ADDED", "object": thing("a")}])]
    mirror, _ = await followed(rounds, lambda _, fake: not fake.rounds)
    assert names(mirror) == ["a"]


@pytest.mark.parametrize(
    "error",
    [
        gone(),
        Unreachable("https://c", "cut"),
        ApiError(500, {}, "watch"),
    ],
)
async def test_after_any_error_of_a_watch_a_list_makes_good_what_was_missed(error: Exception) -> None:
    rounds = [([thing("a")], [error]), ([thing("b")], [])]
    mirror, fake = await followed(rounds, lambda _, fake: not fake.rounds)
    assert names(mirror) == ["b"]
    assert fake.asked.count("list") >= 2


async def test_a_410_of_a_list_is_asked_again_at_once() -> None:
    mirror, _ = await followed([(gone(), []), ([thing("a")], [])], lambda _, fake: not fake.rounds)
    assert names(mirror) == ["a"]


async def test_a_quiet_watch_is_followed_by_a_list() -> None:
    mirror, _ = await followed([([thing("a")], []), ([thing("a"), thing("b")], [])], lambda _, fake: not fake.rounds)
    assert names(mirror) == ["a", "b"]


REFUSAL = ApiError(403, {"message": "no"}, "list Pod in his")


async def test_what_we_may_not_see_is_not_asked_for_again_once_that_is_sure() -> None:
    mirror, fake = await followed([(REFUSAL, [])] * 50, lambda mirror, _: PODS in mirror.refused)
    assert mirror.refused[PODS] is REFUSAL
    assert 2 <= fake.asked.count("list") < 50


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_what_was_allowed_before_is_not_believed_at_once(status: int) -> None:
    """A server that has just been started refuses what it has not read its rules for yet."""
    refusal = ApiError(status, {"message": "RBAC: clusterrole not found"}, "watch Pod in his")
    rounds = [([thing("a")], [refusal]), *([(refusal, [])] * 9), ([thing("b")], [asleep])]
    mirror, _ = await followed(rounds, lambda mirror, _: names(mirror) == ["b"])
    assert mirror.refused == {}


@pytest.mark.parametrize("then", [(REFUSAL, []), ([thing("a")], [REFUSAL])])
async def test_a_refusal_that_stays_is_believed_of_the_watch_alone_too(
    monkeypatch: pytest.MonkeyPatch, then: Any
) -> None:
    monkeypatch.setattr(following, "_BELIEVED_AFTER", 0.05)
    mirror, _ = await followed([([thing("a")], [REFUSAL]), *[then] * 200], lambda mirror, _: PODS in mirror.refused)
    assert mirror.refused[PODS] is REFUSAL


async def test_who_begins_to_look_later_asks_anew_for_what_was_refused() -> None:
    fake = FakeCluster([(REFUSAL, [])] * 50)
    first, second = (Mirror(cast("Cluster", fake)) for _ in range(2))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            copy = watching._COPIES.setdefault(("https://c", "a", PODS), watching._Copy())
            copy.readers.append(first)  # who goes by what else there is
            tasks.start_soon(first.follow, PODS)
            while PODS not in first.refused:
                await anyio.sleep(0.01)
            fake.rounds[:] = [([thing("a")], [asleep])]
            tasks.start_soon(second.follow, PODS)
            while not names(second):
                await anyio.sleep(0.01)
            assert first.refused == {}
            tasks.cancel_scope.cancel()
    watching._COPIES.clear()


# -- sparing the cluster ---------------------------------------------------------------------------


@pytest.mark.parametrize("end", [[], [gone()], [ApiError(500, {}, "watch")]])
async def test_watches_that_come_to_nothing_are_begun_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch, end: list[Any]
) -> None:
    slept: list[float] = []
    sleep = anyio.sleep

    async def short(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(following, "_PAUSE", 1.0)
    monkeypatch.setattr(following, "_LONGEST_PAUSE", 5.0)
    fake = FakeCluster([([thing("a")], end)] * 6)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            mirror = Mirror(cast("Cluster", fake))
            tasks.start_soon(mirror.follow, PODS)
            monkeypatch.setattr(anyio, "sleep", short)
            while fake.rounds:
                await sleep(0)
            tasks.cancel_scope.cancel()
    assert slept[:5] == [1, 2, 4, 5, 5]


async def test_silence_is_dated_until_the_cluster_answers_again() -> None:
    down: StageErrored = Unreachable("https://c", "refused")
    mirror, _ = await followed([(down, [])], lambda mirror, _: PODS in mirror.silent)
    assert "refused" in mirror.silent[PODS][1]
    mirror, _ = await followed([(down, []), ([thing("a")], [])], lambda _, fake: not fake.rounds)
    assert mirror.silent == {}


# -- shared copies ---------------------------------------------------------------------------------


async def test_waits_at_the_same_time_share_one_list_and_one_watch() -> None:
    fake = FakeCluster([([thing("a")], [{"type": "ADDED", "object": thing("b")}])])
    mirrors = [Mirror(cast("Cluster", fake)) for _ in range(5)]
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for mirror in mirrors:
                tasks.start_soon(mirror.follow, PODS)
            while any(len(mirror.objects(PODS) or ()) < 2 for mirror in mirrors):
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert fake.asked.count("list") <= 2, "the second one follows the end of the watch"
    assert not watching._COPIES


async def test_when_the_one_who_watches_leaves_another_goes_on_from_there() -> None:
    fake = FakeCluster([([thing("a")], [asleep]), ([thing("never")], [])])
    first, second = (Mirror(cast("Cluster", fake)) for _ in range(2))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as early:
                early.start_soon(first.follow, PODS)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(second.follow, PODS)
                await anyio.wait_all_tasks_blocked()
                assert names(second) == ["a"]
                fake.rounds[0] = ([], [{"type": "ADDED", "object": thing("b")}, asleep])
                early.cancel_scope.cancel()
            while names(second) != ["a", "b"]:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert fake.asked == ["list"]


async def test_a_copy_that_is_older_than_what_was_applied_says_nothing_yet() -> None:
    rounds = [([thing("a")], [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}, asleep])]
    mirror, _ = await followed(rounds, lambda mirror, _: mirror.objects(PODS, since="9") is not None)
    assert mirror.objects(PODS, since="10") is None
    assert len(mirror.objects(PODS, since="8") or ()) == 1


async def test_only_those_whom_a_change_concerns_look_again() -> None:
    fake = FakeCluster([([thing("a")], [asleep])])
    family = Family(["d"])
    family.learn([owned("set", "d"), owned("other-set", "other")])
    mirror = Mirror(cast("Cluster", fake), family.includes)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mirror.follow, PODS)
            await anyio.wait_all_tasks_blocked()
            (copy,) = watching._COPIES.values()
            for changed, looks in (("other-set", False), ("set", True), ("d", True)):
                mirror.changed = anyio.Event()
                copy.take({"type": "ADDED", "object": owned(f"of-{changed}", changed)})
                assert mirror.changed.is_set() is looks, changed
            mirror.changed = anyio.Event()
            copy.take({"type": "DELETED", "object": thing("d", 8)})
            assert mirror.changed.is_set()
            tasks.cancel_scope.cancel()


async def test_a_last_look_brings_what_no_watch_told_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_RENEWED_WITHIN", 0.02)
    fake = FakeCluster([([], [asleep])])
    mirror, other = Mirror(cast("Cluster", fake)), Mirror(cast("Cluster", fake))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            began = anyio.current_time()
            tasks.start_soon(mirror.follow, PODS)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(other.follow, PODS)
            fake.rounds[0] = ([thing("a")], [])
            assert await mirror.renew(PODS)
            assert names(mirror) == ["a"]
            fake.slow = True
            assert await mirror.renew(PODS)
            assert mirror.silent == {}, "a long list takes its time, and the watch lives"
            fake.slow, fake.rounds[:] = False, [(Unreachable("https://c", "refused"), [])] * 2
            assert not await mirror.renew(PODS)
            since, reason = mirror.silent[PODS]
            assert "refused" in reason
            assert began <= since <= anyio.current_time(), "since the cluster last said something"
            assert other.silent == {}, "what one could not renew says nothing of how another's watch is"
            tasks.cancel_scope.cancel()


def workload(kind: str, name: str, namespace: str = "his", version: str = "apps/v1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    spec = {"selector": {"matchLabels": {"app": name}}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def test_a_workload_is_followed_with_its_pods_and_what_tells_which_of_them_are_new() -> None:
    ((_, found),) = collections_for([workload("Deployment", "web")]).items()
    assert list(map(str, found)) == ["Deployment in his", "Pod in his", "ReplicaSet in his"]
    ((_, found),) = collections_for([workload("DaemonSet", "web")]).items()
    assert list(map(str, found)) == ["DaemonSet in his", "Pod in his", "ControllerRevision in his"]


def test_several_share_one_watch_a_namespace_and_kind() -> None:
    things = [
        workload("Deployment", "a"),
        workload("Deployment", "b"),
        workload("StatefulSet", "c"),
        workload("Deployment", "d", "other"),
        workload("PersistentVolumeClaim", "e", version="v1"),
    ]
    assert sorted({str(each) for some in collections_for(things).values() for each in some}) == [
        "Deployment in his",
        "Deployment in other",
        "PersistentVolumeClaim in his",
        "Pod in his",
        "Pod in other",
        "ReplicaSet in his",
        "ReplicaSet in other",
        "StatefulSet in his",
    ]
