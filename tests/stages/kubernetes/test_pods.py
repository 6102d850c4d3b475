"""Which pods are of the new revision."""

from typing import Any

import pytest

from stages.clients.kubernetes.pods import new_pods, new_replica_set, selector


def template(image: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web", **labels}}, "spec": {"containers": [{"name": "a", "image": image}]}}


def owned(name: str, owner: str, at: str = "", **more: Any) -> dict[str, Any]:
    labels = more.pop("labels", {})
    metadata = {"name": name, "uid": name, "creationTimestamp": at, "labels": labels, **more.pop("metadata", {})}
    return {"metadata": {**metadata, "ownerReferences": [{"uid": owner}]}, **more}


DEPLOYMENT = {"kind": "Deployment", "metadata": {"uid": "d"}, "spec": {"template": template("web:2")}}
OLD = owned("old", "d", spec={"template": template("web:1", **{"pod-template-hash": "1"})})
NEW = owned("new", "d", spec={"template": template("web:2", **{"pod-template-hash": "2"})})
FOREIGN = owned("foreign", "other", spec={"template": template("web:2", **{"pod-template-hash": "2"})})


def test_the_new_replica_set_is_the_one_with_the_present_template() -> None:
    assert new_replica_set(DEPLOYMENT, [OLD, FOREIGN, NEW]) is NEW
    assert new_replica_set(DEPLOYMENT, [OLD, FOREIGN]) is None


def test_of_several_equal_replica_sets_the_oldest_counts_as_for_the_controller() -> None:
    later = owned("later", "d", "2024-02-02", spec=NEW["spec"])
    earlier = owned("earlier", "d", "2024-01-01", spec=NEW["spec"])
    assert new_replica_set(DEPLOYMENT, [later, earlier]) is earlier


def test_only_living_pods_of_the_new_replica_set_count() -> None:
    pods = [
        owned("a", "new"),
        owned("b", "old"),
        owned("c", "new", metadata={"deletionTimestamp": "now"}),
        owned("d", "foreign"),
    ]
    assert [pod["metadata"]["name"] for pod in new_pods(DEPLOYMENT, [OLD, NEW], pods)] == ["a"]


def test_before_the_new_replica_set_exists_no_pod_counts() -> None:
    assert new_pods(DEPLOYMENT, [OLD], [owned("b", "old")]) == []


def test_pods_of_a_stateful_set_count_by_the_update_revision() -> None:
    workload = {"kind": "StatefulSet", "metadata": {"uid": "s"}, "status": {"updateRevision": "s-2"}}
    pods = [owned("a", "s", labels={"controller-revision-hash": f"s-{at}"}) for at in (1, 2)]
    assert new_pods(workload, [], pods) == [pods[1]]


def test_pods_of_a_daemon_set_count_by_the_template_generation() -> None:
    marks = {"deprecated.daemonset.template.generation": "2"}
    workload = {"kind": "DaemonSet", "metadata": {"uid": "s", "annotations": marks}}
    pods = [owned("a", "s", labels={"pod-template-generation": str(at)}) for at in (1, 2)]
    assert new_pods(workload, [], pods) == [pods[1]]


def test_pods_that_a_daemon_set_kept_when_its_template_was_changed_back_are_new_ones() -> None:
    """Their generation is old and their hash is that of the newest revision: their controller leaves them as they are."""
    marks = {"deprecated.daemonset.template.generation": "3"}
    workload = {"kind": "DaemonSet", "metadata": {"uid": "s", "annotations": marks}}
    revisions = [
        owned("s-b", "s", revision=2, labels={"controller-revision-hash": "b"}),
        owned("s-a", "s", revision=3, labels={"controller-revision-hash": "a"}),
        owned("t-b", "other", revision=9, labels={"controller-revision-hash": "b"}),
    ]
    pods = [
        owned(name, "s", labels={"pod-template-generation": str(at), "controller-revision-hash": name})
        for name, at in (("a", 1), ("b", 2))
    ]
    assert new_pods(workload, revisions, pods) == [pods[0]]
    assert new_pods(workload, [], pods) == []


def test_a_lone_pod_is_its_own_and_a_job_has_all_of_its() -> None:
    pod = {"kind": "Pod", "metadata": {"uid": "p"}}
    assert new_pods(pod, [], []) == [pod]
    assert new_pods({"kind": "Job", "metadata": {"uid": "j"}}, [], [owned("a", "j"), owned("b", "k")]) == [
        owned("a", "j")
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"matchLabels": {"app": "web", "tier": "x"}}, "app=web,tier=x"),
        (
            {
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ]
            },
            "a in (1,2),b notin (3),c,!d",
        ),
        ({"app": "web"}, "app=web"),
    ],
)
def test_a_selector_is_written_as_the_api_reads_it(given: dict[str, Any], text: str) -> None:
    assert selector({"spec": {"selector": given}}) == text
