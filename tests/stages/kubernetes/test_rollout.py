"""When an object is done, by tables of what the cluster says."""

from typing import Any

import pytest

from stages.clients.kubernetes.rollout import Verdict, is_generic, is_open, judge


def thing(kind: str, spec: dict[str, Any], status: object, version: str = "apps/v1", **meta: Any) -> Any:
    metadata = {"name": "x", "generation": 2, **meta}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def state(*args: Any, **meta: Any) -> str:
    found = thing(*args, **meta)
    return judge(found, found).state


def counts(replicas: int, updated: int, available: int, observed: int = 2) -> dict[str, int]:
    return {
        "observedGeneration": observed,
        "replicas": replicas,
        "updatedReplicas": updated,
        "availableReplicas": available,
        "readyReplicas": available,
    }


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        (3, {}, "waiting"),
        (3, counts(3, 3, 3, observed=1), "waiting"),
        (3, counts(3, 1, 3), "waiting"),
        (3, counts(4, 3, 4), "waiting"),
        (3, counts(3, 3, 2), "waiting"),
        (3, counts(3, 3, 3), "done"),
        (0, counts(0, 0, 0), "done"),
        (0, counts(1, 0, 1), "waiting"),
        (None, counts(1, 1, 1), "done"),
        (None, counts(0, 0, 0), "waiting"),
    ],
)
def test_a_deployment_is_done_only_when_all_its_pods_are_new_and_available(
    wanted: int | None, status: dict[str, int], expected: str
) -> None:
    spec = {} if wanted is None else {"replicas": wanted}
    assert state("Deployment", spec, status) == expected


def exceeded(at: str) -> dict[str, Any]:
    mark = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "lastUpdateTime": at}
    return {**counts(2, 1, 1), "conditions": [mark]}


def test_a_deadline_counts_only_if_this_rollout_missed_it() -> None:
    spec = {"replicas": 1, "progressDeadlineSeconds": 7}
    before, after = thing("Deployment", spec, exceeded("10:00")), thing("Deployment", spec, exceeded("10:05"))
    assert judge(before, before).state == "waiting"
    assert judge(after, before) == Verdict("failed", "no progress for 7 s")


def test_a_paused_deployment_never_ends_unless_it_is_through() -> None:
    assert state("Deployment", {"replicas": 2, "paused": True}, counts(2, 1, 2)) == "failed"
    assert state("Deployment", {"replicas": 2, "paused": True}, counts(2, 2, 2)) == "done"


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"replicas": 3}, {}, "waiting"),
        ({"replicas": 3}, counts(3, 3, 3, observed=1), "waiting"),
        ({"replicas": 3}, counts(3, 2, 3), "waiting"),
        ({"replicas": 3}, counts(3, 3, 2), "waiting"),
        ({"replicas": 3}, counts(3, 3, 3), "done"),
        ({"replicas": 1}, counts(2, 1, 1), "waiting"),
        ({"replicas": 0}, counts(0, 0, 0), "done"),
        ({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}, counts(3, 1, 3), "done"),
        ({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}, counts(3, 0, 3), "waiting"),
        ({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}, counts(3, 1, 2), "waiting"),
        ({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 9}}}, counts(3, 0, 3), "done"),
        ({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}, counts(3, 0, 3), "done"),
        ({"replicas": 1, "minReadySeconds": 5}, {**counts(1, 1, 0), "readyReplicas": 1}, "waiting"),
    ],
)
def test_a_stateful_set_is_done_only_when_the_new_revision_is_everywhere_it_shall_be(
    spec: dict[str, Any], status: dict[str, int], expected: str
) -> None:
    assert state("StatefulSet", spec, status) == expected


def daemons(desired: int, updated: int, available: int, observed: int = 2) -> dict[str, int]:
    return {
        "observedGeneration": observed,
        "desiredNumberScheduled": desired,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
    }


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, daemons(2, 2, 2, observed=1), "waiting"),
        ({}, daemons(2, 1, 2), "waiting"),
        ({}, daemons(2, 2, 1), "waiting"),
        ({}, daemons(2, 2, 2), "done"),
        ({}, daemons(0, 0, 0), "done"),
        ({"updateStrategy": {"type": "OnDelete"}}, daemons(2, 0, 2), "done"),
    ],
)
def test_a_daemon_set_is_done_only_when_every_node_has_an_available_new_pod(
    spec: dict[str, Any], status: dict[str, int], expected: str
) -> None:
    assert state("DaemonSet", spec, status) == expected


def conditions(**states: str) -> dict[str, Any]:
    return {"conditions": [{"type": name, "status": status} for name, status in states.items()]}


@pytest.mark.parametrize(
    ("kind", "version", "spec", "status", "expected"),
    [
        ("Job", "batch/v1", {}, {}, "waiting"),
        ("Job", "batch/v1", {}, conditions(Complete="True"), "done"),
        ("Job", "batch/v1", {}, conditions(FailureTarget="True", Failed="True"), "failed"),
        ("Job", "batch/v1", {"suspend": True}, {}, "waiting"),
        ("CronJob", "batch/v1", {}, {}, "done"),
        ("Pod", "v1", {}, {"phase": "Running", **conditions(Ready="True")}, "done"),
        ("Pod", "v1", {}, {"phase": "Running", **conditions(Ready="False")}, "waiting"),
        ("Pod", "v1", {}, {"phase": "Succeeded"}, "done"),
        ("Pod", "v1", {}, {"phase": "Failed"}, "failed"),
        ("PersistentVolumeClaim", "v1", {}, {"phase": "Bound"}, "done"),
        ("PersistentVolumeClaim", "v1", {}, {"phase": "Pending"}, "waiting"),
        ("PersistentVolumeClaim", "v1", {}, {"phase": "Lost"}, "failed"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1", {}, conditions(Established="True"), "done"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1", {}, {}, "waiting"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1", {}, conditions(NamesAccepted="False"), "failed"),
        ("Namespace", "v1", {}, {"phase": "Active"}, "done"),
        ("Namespace", "v1", {}, {"phase": "Terminating"}, "failed"),
        ("Service", "v1", {"type": "LoadBalancer"}, {}, "done"),
        ("ConfigMap", "v1", {}, {}, "done"),
        ("Ingress", "networking.k8s.io/v1", {}, {}, "done"),
        ("Deployment", "other.example/v1", {}, {}, "done"),
        ("Certificate", "x.io/v1", {}, conditions(Ready="True"), "done"),
        ("Certificate", "x.io/v1", {}, conditions(Ready="False"), "waiting"),
        ("Certificate", "x.io/v1", {}, conditions(Stalled="True"), "failed"),
        ("Certificate", "x.io/v1", {}, {"observedGeneration": 1}, "waiting"),
        ("Rollout", "argoproj.io/v1", {}, {"observedGeneration": "1"}, "done"),
        ("Odd", "x.io/v1", {}, {"conditions": {"Ready": True}}, "done"),
    ],
)
def test_other_kinds_by_their_own_signs(
    kind: str, version: str, spec: dict[str, Any], status: dict[str, Any], expected: str
) -> None:
    assert state(kind, spec, status, version) == expected


def of(generation: int, name: str, status: str = "True") -> dict[str, Any]:
    return {"type": name, "status": status, "observedGeneration": generation}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([of(1, "Ready")], "waiting"),
        ([of(2, "Ready")], "done"),
        ([of(1, "Stalled"), of(1, "Ready", "False")], "waiting"),
        ([of(2, "Stalled"), of(1, "Ready")], "failed"),
        ([of(2, "Reconciling")], "waiting"),
        ([of(2, "Reconciling"), of(2, "Ready")], "waiting"),
        ([of(1, "Reconciling"), of(2, "Ready")], "done"),
        ([of(2, "Reconciling", "False"), of(2, "Ready")], "done"),
    ],
)
def test_a_condition_of_an_earlier_generation_says_nothing_of_this_one(conditions: list[Any], expected: str) -> None:
    assert state("Certificate", {}, {"conditions": conditions}, "x.io/v1") == expected


@pytest.mark.parametrize(
    ("kind", "version", "status", "expected"),
    [
        ("Certificate", "x.io/v1", {}, True),
        ("Certificate", "x.io/v1", conditions(Ready="True"), True),
        ("Certificate", "x.io/v1", {"observedGeneration": 2}, False),
        ("Certificate", "x.io/v1", {"conditions": [of(2, "Issued")]}, False),
        ("Certificate", "x.io/v1", {"conditions": [of(1, "Ready")]}, True),
        ("Odd", "x.io/v1", "Active", True),
        ("Gateway", "gateway.networking.k8s.io/v1", conditions(Accepted="Unknown"), True),
        ("Ingress", "networking.k8s.io/v1", {"loadBalancer": {}}, False),
        ("Role", "rbac.authorization.k8s.io/v1", {}, False),
        ("PodDisruptionBudget", "policy/v1", {"currentHealthy": 0}, False),
        ("ConfigMap", "v1", {}, False),
        ("LimitRange", "v1", {}, False),
        ("Deployment", "apps/v1", {}, False),
    ],
)
def test_only_a_controller_that_nobody_knows_may_have_a_word_to_say(
    kind: str,
    version: str,
    status: object,
    expected: bool,  # noqa: FBT001
) -> None:
    assert is_open(thing(kind, {}, status, version)) is expected


def test_a_claim_that_waits_for_its_first_pod_is_done() -> None:
    claim = thing("PersistentVolumeClaim", {}, {"phase": "Pending"}, "v1")
    assert judge(claim, claim, [{"reason": "WaitForFirstConsumer"}]).state == "done"
    slow = judge(claim, claim, [{"reason": "ProvisioningFailed", "message": "no space"}])
    assert slow == Verdict("waiting", "it is not bound yet: no space")


def test_an_object_that_is_being_deleted_is_failed() -> None:
    assert state("Deployment", {}, counts(1, 1, 1), deletionTimestamp="now") == "failed"


@pytest.mark.parametrize(("condition", "expected"), [("Complete", "done"), ("Failed", "failed")])
def test_a_job_that_deletes_itself_is_what_it_has_come_to(condition: str, expected: str) -> None:
    job = thing("Job", {}, conditions(**{condition: "True"}), "batch/v1", deletionTimestamp="now")
    assert judge(job, job).state == expected
    assert "deleted" not in judge(job, job).message
    assert state("Job", {}, {}, "batch/v1", deletionTimestamp="now") == "failed"


def test_only_what_nobody_knows_is_generic() -> None:
    assert is_generic(thing("Certificate", {}, {}, "x.io/v1"))
    assert not is_generic(thing("Deployment", {}, {}))
