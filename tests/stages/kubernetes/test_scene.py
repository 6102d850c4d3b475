"""A whole object at one moment: verdict, new pods, doubts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stages.clients.kubernetes.scene import Around, Scene, look
from stages.clients.kubernetes.steady import Sightings, unsteady

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:2"}]}}
OLD_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}}


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(owner: str = "new", probe: object = None, ran: float | None = 99, **last: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "app", "image": "web:2"}
    if probe:
        container["readinessProbe"] = probe
    state = {"running": {"startedAt": ago(ran)}} if ran is not None else {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {"name": "app", "ready": ran is not None, "restartCount": 1 if last else 0, "state": state}
    if last:
        status["lastState"] = {"terminated": {"exitCode": 1, **last}}
    ready = {"type": "Ready", "status": "True" if ran is not None else "False"}
    return {
        "metadata": {"name": f"{owner}-1", "uid": f"{owner}-1", "ownerReferences": [{"uid": owner}]},
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "conditions": [ready], "containerStatuses": [status]},
    }


@pytest.mark.parametrize(
    ("given", "doubted"),
    [
        (pod(probe={"exec": {}}, ran=0), False),
        (pod(ran=0), True),
        (pod(ran=4), True),
        (pod(ran=5), False),
        (pod(ran=7, startedAt=ago(20), finishedAt=ago(17)), True),
        (pod(ran=8, startedAt=ago(20), finishedAt=ago(17)), False),
        (pod(probe={"exec": {}}, ran=7, startedAt=ago(20), finishedAt=ago(17)), True),
        (pod(ran=6, startedAt=ago(1000), finishedAt=ago(10)), False),
        (pod(ran=None), True),
    ],
)
def test_a_pod_is_trusted_when_a_probe_or_time_says_so(given: dict[str, Any], doubted: bool) -> None:  # noqa: FBT001
    seen = Sightings()
    unsteady([given], NOW - timedelta(seconds=9), seen)
    assert bool(unsteady([given], NOW, seen)) is doubted


def test_what_a_pod_says_of_its_own_beginning_is_no_proof_that_it_goes_on() -> None:
    young, old, seen = pod(ran=20), pod(ran=61), Sightings()
    assert unsteady([young], NOW, seen)
    assert not unsteady([old], NOW, seen)
    assert unsteady([young], NOW + timedelta(seconds=4), seen)
    assert not unsteady([young], NOW + timedelta(seconds=5), seen)


def test_a_node_that_tells_of_a_beginning_late_may_tell_of_an_end_as_late() -> None:
    seen = Sightings()
    assert not unsteady([], NOW - timedelta(seconds=30), seen), "we look, and there is nothing yet"
    told_late = pod(ran=12)  # 12 s ago, and this is the first word of it
    assert unsteady([told_late], NOW, seen)
    assert unsteady([told_late], NOW + timedelta(seconds=16), seen)
    assert not unsteady([told_late], NOW + timedelta(seconds=17), seen)


def replica_set(name: str, template: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": "d"}]}, "spec": {"template": template}}


SETS = [replica_set("old", OLD_TEMPLATE), replica_set("new", TEMPLATE)]


def scene(pods: list[Any] | None, available: int, updated: int = 1, sets: list[Any] = SETS) -> Scene:
    thing = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "his", "uid": "d", "generation": 1},
        "spec": {"replicas": 1, "template": TEMPLATE},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": updated, "availableReplicas": available},
    }
    return look(thing, thing, Around(sets, pods, {}, NOW, Sightings()))


def test_a_crash_loop_between_two_crashes_is_not_done() -> None:
    found = scene([pod(ran=1, startedAt=ago(14), finishedAt=ago(12))], available=1)
    assert found.verdict.state == "waiting"
    assert "has been restarted; it must run for 7 s" in found.summary


def test_what_has_run_long_enough_is_done_whatever_old_pods_do() -> None:
    broken = pod("old", ran=None, startedAt=ago(14), finishedAt=ago(12))
    found = scene([pod(ran=61), broken], available=1)
    assert (found.verdict.state, found.troubles) == ("done", ())


def test_only_new_pods_are_in_trouble() -> None:
    down = {"startedAt": ago(14), "finishedAt": ago(12)}
    found = scene([pod("old", ran=None, **down), pod("new", ran=None, **down)], available=0)
    assert [trouble.pod for trouble in found.troubles] == ["new-1"]
    assert found.summary.startswith("0 of 1 pods ready; pod new-1: it crashed with exit code 1")


def test_a_deployment_is_not_done_before_its_new_pods_are_seen() -> None:
    assert scene([pod("old", ran=50)], available=1).verdict.message == "0 of its 1 new pods have been seen ready"


@pytest.mark.parametrize(("leaves", "grace"), [("old", None), ("other", 20)])
def test_a_quota_may_be_used_up_while_pods_of_the_workload_itself_are_ending(leaves: str, grace: float | None) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}
    refused = {**replica_set("new", TEMPLATE), "status": {"conditions": [failure]}}
    ending = pod(leaves)
    ending["metadata"]["deletionTimestamp"] = ago(1)
    (found,) = scene([ending], available=0, sets=[SETS[0], refused]).troubles
    assert (found.sort, found.grace) == ("create", grace)


def pending(given: dict[str, Any]) -> dict[str, Any]:
    status = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    return {**given, "status": status}


def test_a_pod_that_is_only_pending_in_what_we_know_is_not_ready_whatever_its_deployment_says() -> None:
    assert scene([pending(pod(probe={"exec": {}}))], available=1).verdict.state == "waiting"


def test_a_pod_that_was_evicted_and_replaced_holds_nothing_up() -> None:
    evicted = {**pod(), "status": {"phase": "Failed", "reason": "Evicted"}}
    ended = {**pod(ran=None), "metadata": {**pod()["metadata"], "uid": "ended"}}
    ended["status"] = {**ended["status"], "phase": "Failed"}
    assert scene([evicted, ended, pod(ran=61)], available=1).verdict.state == "done"


def test_the_times_of_all_pods_without_a_probe_run_side_by_side() -> None:
    pods, seen = [pod(ran=20) for _ in range(3)], Sightings()
    for number, each in enumerate(pods):
        each["metadata"]["uid"] = str(number)
    assert unsteady(pods, NOW, seen)
    assert not unsteady(pods, NOW + timedelta(seconds=5), seen)


REVISION = {
    "metadata": {"uid": "r", "labels": {"controller-revision-hash": "new"}, "ownerReferences": [{"uid": "d"}]},
    "revision": 2,
}
COUNTS = {
    "observedGeneration": 1,
    **dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), 2),
    **dict.fromkeys(("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), 2),
    "updateRevision": "new",
}


@pytest.mark.parametrize(
    ("kind", "strategy", "needed"),
    [
        ("StatefulSet", {}, 2),
        ("StatefulSet", {"rollingUpdate": {"partition": 1}}, 1),
        ("StatefulSet", {"rollingUpdate": {"partition": 9}}, 0),
        ("StatefulSet", {"type": "OnDelete"}, 0),
        ("DaemonSet", {}, 2),
        ("DaemonSet", {"type": "OnDelete"}, 0),
        ("ReplicaSet", {}, 2),
    ],
)
def test_no_workload_is_done_before_its_new_pods_are_seen_ready(
    kind: str, strategy: dict[str, Any], needed: int
) -> None:
    """Their watch may be dead for as long as a minute, while that of the workload lives."""
    thing = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "his", "uid": "d", "generation": 1},
        "spec": {"replicas": 2, "template": TEMPLATE, "updateStrategy": strategy},
        "status": COUNTS,
    }
    pods = [pod("d", probe={"exec": {}}, ran=61) for _ in range(2)]
    for number, each in enumerate(pods):
        each["metadata"] |= {"uid": str(number), "labels": {"controller-revision-hash": "new"}}
    for count in range(3):
        found = look(thing, thing, Around([REVISION], pods[:count], {}, NOW, Sightings()))
        assert (found.verdict.state == "done") is (count >= needed), count
    starting = [pods[0], pending(pods[1])]
    found = look(thing, thing, Around([REVISION], starting, {}, NOW, Sightings()))
    assert (found.verdict.state == "done") is (needed < 2)


def test_who_may_not_see_the_revisions_of_a_daemon_set_goes_by_its_own_words() -> None:
    metadata = {"name": "web", "namespace": "his", "uid": "d", "generation": 1}
    thing = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": {}, "status": COUNTS}
    assert look(thing, thing, Around([], [], {}, NOW, Sightings())).verdict.state == "done"


def test_who_may_not_see_pods_goes_by_the_deployment_alone() -> None:
    assert scene(None, available=1).verdict.state == "done"
