"""Pods start again when their configuration has changed, and only then."""

from typing import Any

import pytest

from stages.clients.kubernetes.config import CONFIG, mark_config

POD: dict[str, dict[str, Any]] = {
    "envFrom": {"containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "c"}}]}]},
    "env": {
        "containers": [{"name": "a", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]
    },
    "init": {"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s"}}]}], "containers": []},
    "volume": {"containers": [], "volumes": [{"name": "v", "configMap": {"name": "c"}}]},
    "secret volume": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
    "projected": {"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]},
}


def marked(spec: dict[str, Any], config: str = "1", private: str = "1", kind: str = "Deployment") -> str | None:
    """The hash on the workload's template."""
    workload = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": {"template": {"spec": spec}}}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {"k": config}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": private}},
        workload,
    ]
    mark_config(objects, "n")
    annotations = (workload["spec"]["template"].get("metadata") or {}).get("annotations") or {}  # type: ignore[index]
    found: str | None = annotations.get(CONFIG)
    return found


@pytest.mark.parametrize("where", POD)
def test_configuration_that_pods_read_changes_the_hash_wherever_they_name_it(where: str) -> None:
    first = marked(POD[where])
    assert first
    assert first == marked(POD[where])
    other = marked(POD[where], config="2", private="2")
    assert other not in (None, first)


def test_configuration_that_pods_do_not_read_changes_nothing() -> None:
    assert marked(POD["envFrom"]) == marked(POD["envFrom"], private="2")
    assert marked({"containers": []}) is None


def test_what_another_deploy_describes_is_not_looked_at() -> None:
    assert marked({"containers": [], "volumes": [{"name": "v", "configMap": {"name": "elsewhere"}}]}) is None


def test_a_job_keeps_its_template_which_cannot_change() -> None:
    assert marked(POD["envFrom"], kind="Job") is None


def test_the_hash_tells_nothing_of_the_length_or_content_of_a_secret() -> None:
    marks = {marked(POD["env"], private=text) for text in ("1", "a long password", "")}
    assert {len(mark or "") for mark in marks} == {16}


FROM = [{"configMapRef": {"name": "c"}}]


@pytest.mark.parametrize(
    "odd",
    [
        {"containers": [{"name": "a", "env": {"X": "1"}, "envFrom": FROM}]},
        {"containers": [{"name": "a", "env": [None, "x"], "envFrom": FROM}]},
        {"containers": [None, {"name": "a", "envFrom": [None, *FROM]}]},
        {"initContainers": ["i", 3], "containers": [{"name": "a", "envFrom": FROM}]},
        {"initContainers": 3, "containers": [{"name": "a", "envFrom": [*FROM, {"secretRef": {"name": ["s"]}}]}]},
        {"containers": {"a": "b"}, "volumes": [None, {"configMap": {"name": "c"}}, {"projected": {"sources": 1}}]},
    ],
)
def test_what_is_no_list_or_mapping_is_left_to_the_cluster_and_the_rest_counts(odd: dict[str, Any]) -> None:
    assert marked(odd)


@pytest.mark.parametrize("spec", ["x", ["x"], None, {"volumes": "x"}])
def test_a_template_that_is_none_is_left_to_the_cluster(spec: Any) -> None:
    assert marked(spec) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"metadata": None}, None),
        ({"metadata": {"annotations": None}}, None),
        ({"metadata": "x"}, "x"),
        ({"metadata": []}, []),
        ({"metadata": {"annotations": "x"}}, {"annotations": "x"}),
    ],
)
def test_metadata_of_a_template_is_annotated_or_kept_as_it_is_written(given: dict[str, Any], kept: Any) -> None:
    template = {**given, "spec": POD["volume"]}
    web = {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}}
    mark_config([{"kind": "ConfigMap", "metadata": {"name": "c"}}, web], "n")
    if kept is None:
        assert list(template["metadata"]["annotations"]) == [CONFIG]
    else:
        assert template["metadata"] == kept
