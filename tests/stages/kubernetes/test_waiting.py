"""How much time waits may take, whatever is done between them, and what they end with."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes import following, waiting, watching
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.transport import ApiError, Unreachable
from stages.clients.kubernetes.waiting import Allowance, wait_until_done
from tests.support.context import FakeContext


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, until a test says otherwise."""
    now = [100.0]
    monkeypatch.setattr(anyio, "current_time", lambda: now[0])
    return now


def test_a_limit_is_for_all_waits_together_and_not_for_what_is_done_between_them(clock: list[float]) -> None:
    allowance = Allowance(10)
    clock[0] += 60
    with allowance.spending() as first:
        clock[0] += 4
    clock[0] += 60
    with allowance.spending() as second:
        assert (first, second) == (10, 6)


def test_when_all_is_spent_there_is_time_for_one_more_look(clock: list[float]) -> None:
    allowance = Allowance(10)
    with allowance.spending():
        clock[0] += 30
    with allowance.spending() as left:
        assert left == 1


def test_a_wait_that_fails_has_cost_its_time_too(clock: list[float]) -> None:
    allowance = Allowance(10)

    def fail() -> None:
        with allowance.spending():
            clock[0] += 3
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - whatever it is
        fail()
    with allowance.spending() as left:
        assert left == 7


# -- in a cluster ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    for module, name, value in (
        (following, "_PAUSE", 0.01),
        (following, "_LONGEST_PAUSE", 0.01),
        (watching, "_SETTLE", 0.0),
        (waiting, "_TICK", 0.01),
        (waiting, "_LEAST", 0.1),
        (waiting, "_TOLD_LATE", 0.2),
        (waiting, "_GENERIC_SECONDS", 0.3),
        (waiting, "_SILENT_SECONDS", 0.1),
        (waiting, "_OPEN_SECONDS", 0.2),
    ):
        monkeypatch.setattr(module, name, value)


@dataclass
class FakeCluster:
    """Has objects by their kind, tells these events, and answers nothing while it is down."""

    there: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    answering: Callable[[str], object] = lambda _: None
    """Is called with the kind of each list that is asked for."""
    now: datetime = datetime(2024, 5, 1, tzinfo=UTC)
    server: str = "https://c"
    account: str = "a"

    def answer(self, kind: str) -> None:
        if kind in self.down:
            raise Unreachable(self.server, "refused")

    async def items(self, what: Collection) -> tuple[list[Any], str]:
        self.asked.append(what.kind)
        self.answering(what.kind)
        self.answer(what.kind)
        return [dict(each) for each in self.there.get(what.kind, [])], "7"

    async def version(self, what: Collection) -> str:
        self.answer(what.kind)
        return "7"

    async def watch(self, what: Collection, version: str, seconds: int) -> AsyncIterator[Any]:
        for event in self.told if what.kind == "Event" else ():
            metadata = {"uid": event["reason"], "resourceVersion": "8"}
            yield {"type": "ADDED", "object": {"metadata": metadata, "involvedObject": {"uid": "x"}, **event}}
        await anyio.sleep_forever()


def thing(kind: str, version: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "his", "uid": "x", "resourceVersion": "5", **more.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def job(status: dict[str, Any] | None = None, *, ttl: int | None = 0) -> dict[str, Any]:
    spec = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    return thing("Job", "batch/v1", spec=spec, status=status or {})


COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


async def wait_for(
    ctx: FakeContext, fake: FakeCluster, applied: dict[str, Any], allowance: Allowance | None = None
) -> None:
    with anyio.fail_after(5):
        await wait_until_done(ctx, cast("Cluster", fake), [applied], allowance or Allowance(3))


@pytest.mark.usefixtures("quick")
async def test_a_job_that_has_deleted_itself_is_done_when_it_was_told_to_have_completed(ctx: FakeContext) -> None:
    await wait_for(ctx, FakeCluster(told=[{"reason": "SuccessfulCreate"}, {"reason": "Completed"}]), job())
    assert "Job his/x: it has completed" in ctx.text


@pytest.mark.usefixtures("quick")
async def test_what_was_told_of_a_job_before_we_listened_says_how_it_ended(ctx: FakeContext) -> None:
    said = {"reason": "Completed", "involvedObject": {"uid": "x"}, "metadata": {"uid": "e"}}
    await wait_for(ctx, FakeCluster({"Event": [said]}), job())


@pytest.mark.usefixtures("quick")
async def test_a_job_that_has_deleted_itself_has_failed_when_that_was_told(ctx: FakeContext) -> None:
    fake = FakeCluster(told=[{"reason": "BackoffLimitExceeded", "message": "too often"}])
    with pytest.raises(StageFailed, match="it has failed: BackoffLimitExceeded: too often"):
        await wait_for(ctx, fake, job())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seconds", [3, 0.05])
async def test_nobody_knows_how_a_job_ended_that_is_gone_without_a_word(ctx: FakeContext, seconds: float) -> None:
    with pytest.raises(StageErrored, match="nobody knows how it ended"):
        await wait_for(ctx, FakeCluster(), job(), Allowance(seconds))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("gone", "left"), [(job(ttl=None), []), (job(), [job() | {"metadata": {"uid": "y", "name": "x"}}])]
)
async def test_a_job_that_somebody_took_away_has_failed(
    ctx: FakeContext, gone: dict[str, Any], left: list[dict[str, Any]]
) -> None:
    with pytest.raises(StageFailed, match="somebody has"):
        await wait_for(ctx, FakeCluster({"Job": left}), gone)


@pytest.mark.usefixtures("quick")
async def test_a_job_that_was_seen_complete_and_is_gone_when_its_pods_are_heard_of_is_done(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that falls silent between the two looks."""
    monkeypatch.setattr(waiting, "_LATELY", -1.0)
    fake = FakeCluster({"Job": [job(COMPLETE)]})

    def fall_silent(kind: str) -> None:
        fake.down = {"Pod"} if fake.asked.count("Pod") == 2 else set()
        if fake.down:
            for what, copy in watching._COPIES.items():
                if what[2].kind == "Job" and copy.objects:
                    copy.take({"type": "DELETED", "object": job()})

    fake.answering = fall_silent
    await wait_for(ctx, fake, job())
    assert fake.asked.count("Pod") > 2
    assert "Job his/x: it has completed" in ctx.text


@pytest.mark.usefixtures("quick")
async def test_a_job_that_an_earlier_wait_found_done_is_not_asked_for_again(ctx: FakeContext) -> None:
    allowance = Allowance(3)
    await wait_for(ctx, FakeCluster({"Job": [job(COMPLETE)]}), job(), allowance)
    gone = FakeCluster()
    await wait_for(ctx, gone, job(), allowance)
    assert gone.asked == []


def refuse(kind: str) -> None:
    raise ApiError(403, {"message": f"no {kind}"}, "list")


def custom(status: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    return thing("Certificate", "x.io/v1", metadata={"generation": generation}, status=status)


NOT_READY = {"conditions": [{"type": "Ready", "status": "False", "reason": "Pending", "message": "soon"}]}


@pytest.mark.usefixtures("quick")
async def test_nobody_knows_how_a_custom_resource_is_in_a_cluster_that_is_silent(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match="nobody knows how it is"):
        await wait_for(ctx, FakeCluster(down={"Certificate"}), custom(NOT_READY), Allowance(1))


@pytest.mark.usefixtures("quick")
async def test_a_custom_resource_is_not_let_go_on_a_dead_line(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LATELY", -1.0)
    fake = FakeCluster({"Certificate": [custom(NOT_READY)]})

    def fall_silent(kind: str) -> None:
        fake.down = {kind} if fake.asked.count(kind) > 1 else set()

    fake.answering = fall_silent
    with pytest.raises(StageErrored, match="nobody knows how it is"):
        await wait_for(ctx, fake, custom(NOT_READY), Allowance(1))


@pytest.mark.usefixtures("quick")
async def test_a_custom_resource_that_is_seen_not_ready_does_not_hold_up_a_deploy_for_long(ctx: FakeContext) -> None:
    await wait_for(ctx, FakeCluster({"Certificate": [custom(NOT_READY)]}), custom(NOT_READY))
    assert ctx.warned == ["Certificate his/x: it is not ready: Pending: soon: not waited for any longer"]


STALLED = {"conditions": [{"type": "Stalled", "status": "True", "reason": "Bad", "message": "no such issuer"}]}
READY = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.usefixtures("quick")
async def test_a_new_custom_resource_is_looked_at_before_it_is_done(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="it is stalled: Bad: no such issuer"):
        await wait_for(ctx, FakeCluster({"Certificate": [custom(STALLED)]}), custom({}))


@pytest.mark.usefixtures("quick")
async def test_a_custom_resource_of_which_nothing_is_told_is_done_after_a_moment(ctx: FakeContext) -> None:
    began = anyio.current_time()
    await wait_for(ctx, FakeCluster({"Certificate": [custom({})]}), custom({}))
    assert anyio.current_time() - began >= 0.2
    assert ctx.text == "Certificate his/x: it is applied\n"
    assert ctx.warned == []


@pytest.mark.usefixtures("quick")
async def test_a_status_of_this_generation_ends_the_moment(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_OPEN_SECONDS", 60.0)
    await wait_for(ctx, FakeCluster({"Certificate": [custom(READY)]}), custom({}))
    unasked = FakeCluster()
    await wait_for(ctx, unasked, custom(READY))
    assert unasked.asked == [], "it was in the answer to the apply already"


@pytest.mark.usefixtures("quick")
async def test_the_moment_of_a_custom_resource_is_never_the_reason_why_time_is_over(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_OPEN_SECONDS", 60.0)
    await wait_for(ctx, FakeCluster({"Certificate": [custom({})]}), custom({}), Allowance(0.2))


@pytest.mark.usefixtures("quick")
async def test_nobody_knows_of_a_new_custom_resource_in_a_cluster_that_fell_silent(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match="nobody knows how it is"):
        await wait_for(ctx, FakeCluster(down={"Certificate"}), custom({}), Allowance(1))


@pytest.mark.usefixtures("quick")
async def test_who_may_not_look_at_a_custom_resource_goes_by_the_answer_to_the_apply(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_NEVER_ALLOWED", 0.02)
    monkeypatch.setattr(waiting, "_OPEN_SECONDS", 60.0)
    fake = FakeCluster(answering=refuse)
    await wait_for(ctx, fake, custom({}))
    assert fake.asked


@pytest.mark.usefixtures("quick")
async def test_a_refusal_that_is_not_sure_when_all_time_is_spent_makes_no_custom_resource_fail(
    ctx: FakeContext,
) -> None:
    await wait_for(ctx, FakeCluster(answering=refuse), custom({}), Allowance(0.1))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("after", [custom({}), custom(NOT_READY)])
async def test_an_object_that_nobody_knows_holds_up_a_deploy_once(ctx: FakeContext, after: dict[str, Any]) -> None:
    allowance, gone = Allowance(3), FakeCluster()
    await wait_for(ctx, FakeCluster({"Certificate": [after]}), custom({}), allowance)
    await wait_for(ctx, gone, custom({}), allowance)
    assert gone.asked == []


def starting(*, well: bool, ready: bool = False) -> dict[str, Any]:
    """A pod whose container waits for a Secret, or does not."""
    stuck = {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
    status = {"name": "app", "ready": ready, "restartCount": 0, "state": {} if well else {"waiting": stuck}}
    conditions = [{"type": "Ready", "status": str(ready)}]
    container = {"name": "app", "readinessProbe": {"exec": {}}}
    body = {"phase": "Running" if ready else "Pending", "conditions": conditions, "containerStatuses": [status]}
    return thing("Pod", "v1", spec={"containers": [container]}, status=body)


class Stepping(FakeContext):
    """Goes a step on after each look."""

    steps: Iterator[None]

    def progress(self, message: str, fraction: float | None = None) -> None:
        next(self.steps, None)


@pytest.mark.usefixtures("quick")
async def test_a_trouble_that_was_over_is_not_as_old_as_when_it_was_first_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, fake, clock = Stepping(tmp_path), FakeCluster({"Pod": [starting(well=False)]}), [100.0]
    monkeypatch.setattr(anyio, "current_time", lambda: clock[0])

    def steps() -> Iterator[None]:
        for now in (starting(well=True), starting(well=False), starting(well=True, ready=True)):
            clock[0] += 15
            fake.there = {"Pod": [now]}
            (copy,) = watching._COPIES.values()
            copy.take({"type": "MODIFIED", "object": {**now, "metadata": {**now["metadata"], "resourceVersion": "8"}}})
            yield

    ctx.steps = steps()
    await wait_for(ctx, fake, starting(well=False), Allowance(600))
    assert "Pod his/x: it is ready" in ctx.text
    assert clock[0] == 145
