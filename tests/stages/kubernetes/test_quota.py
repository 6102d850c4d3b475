"""Whether pods fit into quotas."""

from decimal import Decimal
from typing import Any

import pytest

from stages.clients.kubernetes.quota import more_pods, quantity, shortages


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", "1"), ("100m", "0.1"), ("1.5Gi", "1610612736"), ("2k", "2000"), ("1e3", "1000"), (3, "3"), ("1Ki", "1024")],
)
def test_a_quantity_is_a_number(text: object, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 Gi", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


def workload(kind: str = "Deployment", **spec: object) -> dict[str, Any]:
    return {"kind": kind, "spec": spec}


@pytest.mark.parametrize(
    ("wanted", "present", "more"),
    [
        (workload(), None, 1),
        (workload(replicas=4), None, 4),
        (workload(replicas=4), workload(replicas=3), 1),
        (workload(replicas=1), workload(replicas=3), -2),
        (workload(), workload(replicas=7), 0),  # an autoscaler's
        (workload("DaemonSet"), None, 1),
        (workload("Job"), workload("Job"), 0),
        (workload(replicas="three"), None, 1),  # its own dry run is refused
    ],
)
def test_how_many_pods_a_workload_will_have_more(wanted: Any, present: Any, more: int) -> None:
    assert more_pods(wanted, present) == more


def quota(hard: dict[str, str], used: dict[str, str], **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}


def pod(*requests: str, init: str = "0", limit: str = "0") -> dict[str, Any]:
    containers = [{"resources": {"requests": {"memory": each}, "limits": {"memory": limit}}} for each in requests]
    return {"spec": {"containers": containers, "initContainers": [{"resources": {"requests": {"memory": init}}}]}}


@pytest.mark.parametrize(
    ("limits", "used", "a_pod", "count", "told"),
    [
        ({"pods": "4"}, {"pods": "1"}, pod(), 3, []),
        ({"pods": "4"}, {"pods": "2"}, pod(), 3, ["pods: 3 pods need 3, the quota q has 2 left"]),
        (
            {"requests.memory": "1Gi"},
            {},
            pod("300Mi", "100Mi"),
            3,
            ["requests.memory: 3 pods need 1200Mi, the quota q has 1Gi left"],
        ),
        ({"memory": "1Gi"}, {}, pod("300Mi"), 3, []),
        (
            {"memory": "1Gi"},
            {},
            pod("100Mi", init="400Mi"),
            3,
            ["memory: 3 pods need 1200Mi, the quota q has 1Gi left"],
        ),
        (
            {"limits.memory": "1Gi"},
            {"limits.memory": "2Gi"},
            pod("1", limit="1Mi"),
            2,
            ["limits.memory: 2 pods need 2Mi, the quota q has 0 left"],
        ),
        ({"services": "0", "count/deployments.apps": "0"}, {}, pod("1"), 9, []),
        # lowered below its use, on what pods do not need
        ({"services": "1", "limits.cpu": "1"}, {"services": "3", "limits.cpu": "2"}, pod("1"), 9, []),
        (
            {"requests.nvidia.com/gpu": "4"},
            {"requests.nvidia.com/gpu": "2"},
            {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]}},
            3,
            ["requests.nvidia.com/gpu: 3 pods need 3, the quota q has 2 left"],
        ),
    ],
)
def test_what_does_not_fit_is_told(limits: Any, used: Any, a_pod: Any, count: int, told: list[str]) -> None:
    assert list(shortages([quota(limits, used)], a_pod, count)) == told


def test_a_quota_for_some_pods_only_is_left_to_the_cluster() -> None:
    assert list(shortages([quota({"pods": "0"}, {}, scopes=["BestEffort"])], pod(), 3)) == []


def container(memory: str, *, sidecar: bool = False) -> dict[str, Any]:
    always = {"restartPolicy": "Always"} if sidecar else {}
    return {"resources": {"requests": {"memory": memory}}, **always}


@pytest.mark.parametrize(
    ("init", "need"),
    [
        ([container("100Mi", sidecar=True)], "600Mi"),
        ([container("100Mi", sidecar=True), container("50Mi", sidecar=True)], "700Mi"),
        ([container("100Mi", sidecar=True), container("300Mi")], "800Mi"),  # it runs while the sidecar does
        ([container("300Mi"), container("100Mi", sidecar=True)], "600Mi"),  # it has ended before
    ],
)
def test_a_sidecar_counts_together_with_the_containers(init: Any, need: str) -> None:
    a_pod = {"spec": {"initContainers": init, "containers": [container("200Mi")]}}
    (line,) = shortages([quota({"memory": "1Mi"}, {})], a_pod, 2)
    assert line.startswith(f"memory: 2 pods need {need},")
