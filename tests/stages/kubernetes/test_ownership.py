"""Who owns fields: conflicts, fields by their paths, and what `kubectl apply` leaves behind."""

from typing import Any

import pytest

from stages.clients.kubernetes.ownership import Claim, adopted, claims, kubectl_appliers, owners, without
from stages.clients.kubernetes.transport import ApiError

LAST_APPLIED: dict[str, Any] = {"f:kubectl.kubernetes.io/last-applied-configuration": {}}


def entry(manager: str, fields: Any, operation: str = "Update", **more: str) -> dict[str, Any]:
    given = {"apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", **more}
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **given}


def thing(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "managedFields": entries}, **more}


def test_a_conflict_names_fields_and_owners_and_any_other_answer_is_none() -> None:
    causes = [
        {"reason": "FieldManagerConflict", "field": ".spec.replicas", "message": 'conflict with "a" using v1'},
        {"reason": "FieldManagerConflict", "field": ".data.x", "message": 'conflict with "b" with subresource "scale"'},
    ]
    found = claims(ApiError(409, {"details": {"causes": causes}}, "patch"))
    assert found == [
        Claim(".spec.replicas", "a", '"a" using v1'),
        Claim(".data.x", "b", '"b" with subresource "scale"'),
    ]
    assert claims(ApiError(422, {"details": {"causes": [{"reason": "FieldValueInvalid"}]}}, "patch")) == []


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        (".spec.replicas", {"spec": {"replicas": 1, "paused": True}}, {"spec": {"paused": True}}),
        (".spec.replicas", {"spec": {"replicas": 1}, "kind": "K"}, {"kind": "K"}),
        (".data.app.yml", {"data": {"app.yml": "x", "app": {"yml": 1}}}, {"data": {"app": {"yml": 1}}}),
        (
            ".metadata.labels.a.b/c.d",
            {"metadata": {"labels": {"a.b/c.d": "x"}, "name": "n"}},
            {"metadata": {"name": "n"}},
        ),
        (
            '.spec.containers[name="b"].image',
            {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}},
            {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}},
        ),
        (
            '.ports[port=80,protocol="TCP"].targetPort',
            {"ports": [{"port": 80, "protocol": "UDP", "targetPort": 1}, {"port": 80, "targetPort": 2}]},
            {"ports": [{"port": 80, "protocol": "UDP", "targetPort": 1}, {"port": 80}]},
        ),
        ('.finalizers[="a]b"]', {"finalizers": ["a]b", "c"]}, {"finalizers": ["c"]}),
        ('.env[name="A"]', {"env": [{"name": "A", "value": "x"}]}, {}),
        (".not.there", {"a": 1}, {"a": 1}),
    ],
)
def test_a_field_is_taken_out_by_the_path_that_the_cluster_writes(field: str, before: Any, after: Any) -> None:
    kept = repr(before)
    assert without(before, [field]) == after
    assert repr(before) == kept


def test_kubectl_apply_is_known_by_its_name_and_by_its_annotation() -> None:
    annotated = {"f:metadata": {"f:annotations": LAST_APPLIED}}
    found = thing(
        entry("kubectl-client-side-apply", {"f:spec": {}}),
        entry("argocd", annotated),
        entry("kubectl-edit", {"f:spec": {}}),
        entry("kubectl-client-side-apply-ssa", annotated, "Apply"),
        entry("kube-controller-manager", annotated, subresource="status"),
    )
    assert kubectl_appliers(found) == {"kubectl-client-side-apply", "argocd"}


def test_owners_are_found_by_the_way_to_a_field() -> None:
    found = thing(entry("a", {"f:spec": {"f:replicas": {}}}, "Apply"), entry("b", {"f:spec": {"f:paused": {}}}))
    assert owners(found, "spec", "replicas") == {"a"}
    assert owners(found, "spec", "template") == set()


def test_what_was_applied_client_side_is_ours_as_if_we_had_applied_it() -> None:
    status = entry("kubectl-client-side-apply", {"f:status": {}}, subresource="status")
    found = thing(
        entry("kubectl-client-side-apply", {"f:spec": {"f:a": {}}}, time="2026-01-03T00:00:00Z"),
        entry("before-first-apply", {"f:spec": {"f:a": {"f:x": {}}, "f:b": {}}}),
        entry("kubectl-client-side-apply", {"f:old": {}}, apiVersion="apps/v1beta1"),
        entry("hpa", {"f:spec": {"f:replicas": {}}}),
        status,
    )
    ours, *others = adopted(found, {"kubectl-client-side-apply", "before-first-apply"}, "pipe")
    assert (ours["manager"], ours["operation"], ours["apiVersion"]) == ("pipe", "Apply", "apps/v1")
    assert ours["fieldsV1"] == {"f:spec": {"f:a": {".": {}, "f:x": {}}, "f:b": {}}}
    assert [each["manager"] for each in others] == ["hpa", "kubectl-client-side-apply"]
    assert others[1] == status
