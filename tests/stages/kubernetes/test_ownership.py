"""Who owns fields: conflicts, fields by their paths, and what `kubectl apply` leaves behind."""

from typing import Any

import pytest

from stages.clients.kubernetes.ownership import Claim, adopted, claims, kubectl_appliers, owners, taken_by, without
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


# -- whose an object is ----------------------------------------------------------------------------

EARLIER, LATER = "2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"
DATA: dict[str, Any] = {"f:data": {"f:a": {}}}
OURS = entry("pipe", DATA, "Apply")


def labels(*names: str) -> dict[str, Any]:
    return {"f:metadata": {"f:labels": {f"f:{name}": {} for name in names}}}


def annotations(*names: str) -> dict[str, Any]:
    return {"f:metadata": {"f:annotations": {f"f:{name}": {} for name in names}}}


@pytest.mark.parametrize(
    "others",
    [
        [],
        [entry("kubectl-edit", DATA, time=EARLIER)],  # we have applied it since
        [entry("pipe-handover", {"f:spec": {"f:replicas": {}}}, "Apply", time=LATER)],
        [entry("kube-controller-manager", annotations("deployment.kubernetes.io/revision"), time=LATER)],
        [entry("rancher", annotations("field.cattle.io/publicEndpoints"), time=LATER)],  # beside the content
        [entry("kube-controller-manager", {"f:spec": {"f:volumeName": {}}}, time=LATER)],
        [entry("somebody", {"f:status": {}}, time=LATER, subresource="status")],
        [entry("hpa", {"f:spec": {"f:replicas": {}}}, time=LATER, subresource="scale")],
        [entry("kubectl-rollout", {"f:spec": {"f:template": {}}}, time=LATER)],
    ],
)
def test_an_object_stays_ours_while_nobody_else_has_written_of_its_content(others: list[dict[str, Any]]) -> None:
    assert taken_by(thing(OURS, *others)) == ""


@pytest.mark.parametrize(
    "other",
    [
        entry("kubectl-edit", DATA, time=LATER),
        entry("kubectl-edit", DATA),  # of the same second
        entry("flux", DATA, "Apply", time=EARLIER),
        entry("flux", DATA, "Apply", time=""),  # it changed nothing, so the cluster notes no time
        entry("kubectl-client-side-apply", {"f:metadata": {"f:annotations": LAST_APPLIED}}, time=LATER),
        # a chart's mark counts whenever it was put there, and may be all that taking over has changed
        entry("helm", annotations("meta.helm.sh/release-name"), time=EARLIER),
        entry("helm", labels("app.kubernetes.io/managed-by"), time=LATER),
        entry("argocd-controller", annotations("argocd.argoproj.io/tracking-id"), time=LATER),
    ],
)
def test_an_object_that_somebody_else_has_written_applied_or_marked_is_theirs(other: dict[str, Any]) -> None:
    assert taken_by(thing(OURS, other)) == other["manager"]


def test_a_mark_that_our_manifest_says_as_well_is_nobodys_claim() -> None:
    both = labels("app.kubernetes.io/managed-by")
    assert taken_by(thing(entry("pipe", both, "Apply"), entry("kubectl-create", both, time=EARLIER))) == ""


def test_what_does_not_say_who_wrote_it_is_nobodys() -> None:
    assert taken_by({"metadata": {"name": "w"}}) == ""
