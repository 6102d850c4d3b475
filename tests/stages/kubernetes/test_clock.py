"""Times on objects are compared with the cluster's clock, whatever ours says and however long ago the apply was."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, cast

import anyio
import pytest

from stages.clients.kubernetes import clock
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.clock import Clock
from stages.clients.kubernetes.waiting import Allowance, wait_until_done
from tests.support.context import FakeContext

pytestmark = pytest.mark.slow

THEN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class Ours:
    """Our clock that nobody sets, in the hands of a test."""

    at: float = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Ours:
    made = Ours()
    monkeypatch.setattr(clock, "time", made)
    return made


def told(seconds: float) -> str:
    return format_datetime(THEN + timedelta(seconds=seconds), usegmt=True)


def test_it_goes_on_from_what_an_answer_said_however_long_that_is_ago(ours: Ours) -> None:
    made = Clock()
    made.hear(told(0), asked=999.9)
    ours.at += 7200
    assert made.now == THEN + timedelta(hours=2)


def test_answers_that_agree_within_their_second_do_not_move_it(ours: Ours) -> None:
    made = Clock()
    made.hear(told(0), asked=999.9)
    for at, date in ((1000.9, 0), (1001.5, 1), (1003.2, 3)):
        ours.at = at
        made.hear(told(date), asked=at - 0.1)
        assert made.now == THEN + timedelta(seconds=at - 1000)


@pytest.mark.parametrize(("said", "expected"), [(3600, 3600.0), (-60, -58.9)])
def test_an_answer_that_proves_it_wrong_sets_it(ours: Ours, said: float, expected: float) -> None:
    made = Clock()
    made.hear(told(0), asked=999.9)
    made.hear(told(said), asked=ours.at - 0.1)
    assert (made.now - THEN).total_seconds() == pytest.approx(expected)


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_without_a_date_ours_is_taken(date: str | None) -> None:
    made = Clock()
    made.hear(date, asked=time.monotonic())
    assert abs((made.now - datetime.now(UTC)).total_seconds()) < 60


# -- in a wait -------------------------------------------------------------------------------------


def deployment(applied: datetime | None) -> dict[str, Any]:
    """As the cluster returned it from an apply, or without one, as Helm's are."""
    entry = {"manager": "pipe", "operation": "Apply", "time": text(applied)} if applied else {}
    template = {"spec": {"containers": [{"name": "app"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "his",
            "uid": "d",
            "generation": 1,
            "resourceVersion": "5",
            "managedFields": [entry],
        },
        "spec": {"replicas": 1, "template": template, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
    }


def text(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeCluster:
    """A Deployment that is done by its own words, and whose container runs since a moment of the cluster's clock."""

    now: datetime
    ran: float
    thing: dict[str, Any]
    server: str = "https://c"
    account: str = "a"

    async def items(self, what: Collection) -> tuple[list[Any], str]:
        owned = {"uid": what.kind, "name": "web-1", "labels": {"app": "web"}}
        metadata = {**owned, "ownerReferences": [{"uid": "ReplicaSet" if what.kind == "Pod" else "d"}]}
        running = {"running": {"startedAt": text(self.now - timedelta(seconds=self.ran))}}
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "ready": True, "restartCount": 0, "state": running}],
        }
        template = self.thing["spec"]["template"]
        spec = template["spec"] if what.kind == "Pod" else {"template": template}
        pod_or_set = {"apiVersion": "v1", "kind": what.kind, "metadata": metadata, "spec": spec, "status": status}
        return [self.thing if what.kind == "Deployment" else pod_or_set], "7"

    async def version(self, what: Collection) -> str:
        return "7"

    async def watch(self, what: Collection, version: str, seconds: int) -> AsyncIterator[Any]:
        await anyio.sleep_forever()
        yield {}


async def done_within(ctx: FakeContext, fake: FakeCluster, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        await wait_until_done(ctx, cast("Cluster", fake), [fake.thing], Allowance(60))
        return True
    return False


@pytest.mark.parametrize("skew", [-3600, 3600])
async def test_a_container_that_has_just_begun_is_not_trusted_by_an_agent_whose_clock_is_off(
    ctx: FakeContext, skew: float
) -> None:
    now = datetime.now(UTC) + timedelta(seconds=skew)
    assert not await done_within(ctx, FakeCluster(now, ran=1, thing=deployment(None)), 1.5)


@pytest.mark.parametrize(("skew", "since"), [(0, 3600), (3600, None)])
async def test_a_container_that_has_run_for_long_is_trusted_however_long_ago_the_apply_was_and_whatever_our_clock_says(
    ctx: FakeContext, skew: float, since: float | None
) -> None:
    now = datetime.now(UTC) + timedelta(seconds=skew)
    applied = None if since is None else now - timedelta(seconds=since)
    assert await done_within(ctx, FakeCluster(now, ran=330, thing=deployment(applied)), 5)
