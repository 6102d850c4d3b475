"""Refusals as a table and ways out."""

from typing import Any

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.refusals import answered_no, explain
from stages.clients.kubernetes.transport import ApiError


def refused(
    status: int, kind: str = "Deployment", message: str = "no", causes: Any = (), reason: str = "Invalid"
) -> Any:
    thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "web", "namespace": "his"}}
    answer = {"message": message, "reason": reason, "details": {"causes": list(causes)}}
    return Manifest(thing, "app.yml", 3), ApiError(status, answer, "patch")


CONFLICT = {"reason": "FieldManagerConflict", "field": ".spec.replicas", "message": 'conflict with "hpa" using v1'}
IMMUTABLE = {"reason": "FieldValueInvalid", "field": "spec.selector", "message": "Invalid value: field is immutable"}


def test_conflicts_and_immutable_fields_are_one_table_with_a_way_out_each() -> None:
    error = explain([refused(409, causes=[CONFLICT]), refused(422, causes=[IMMUTABLE])])
    assert str(error) == (
        'the cluster refuses Deployment his/web (app.yml:3) .spec.replicas: is owned by "hpa" using v1 (and 1 more)'
    )
    head, first, second, *ways = error.cause.evidence
    assert head.split("  ")[-1].strip() == "WAYS OUT"
    assert first.endswith("  on_conflict: force | ignore")
    assert "new name" in second
    assert first.index(".spec.replicas") == head.index("FIELD") == second.index("spec.selector")
    assert len(ways) == 2
    assert "`on_conflict: ignore`" in ways[0]
    assert "never deletes" in ways[1]
    assert "new name" in ways[1]


def test_a_secrets_refusal_keeps_its_words_to_itself() -> None:
    error = explain([refused(400, "Secret", ".data.x: got 4711", reason="BadRequest")])
    assert "4711" not in str(error) + "".join(error.cause.evidence)
    assert "HTTP 400 BadRequest" in str(error)


def test_a_forbidden_object_says_what_the_cluster_says() -> None:
    error = explain([refused(403, message='User "x" cannot patch resource "deployments"')])
    assert 'User "x" cannot patch' in str(error)
    assert "Ways out: give the account" in error.cause.evidence[-1]


def test_unknown_credentials_are_told_from_missing_rights() -> None:
    unknown = answered_no(ApiError(401, {"message": "Unauthorized"}, "get Namespace his"), "the kubeconfig of 'k'")
    assert str(unknown) == "the cluster does not accept the kubeconfig of 'k': Unauthorized (to get Namespace his)"
    missing = answered_no(ApiError(403, {"message": "no"}, "list Pod in his"), "the kubeconfig of 'k'")
    assert str(missing) == "the kubeconfig of 'k' may not list Pod in his: no"


def test_a_webhook_that_is_down_is_an_error_of_the_infrastructure() -> None:
    down = refused(500, message="failed calling webhook: connection refused")
    assert isinstance(explain([down]), StageErrored)
    assert isinstance(explain([down, refused(422, causes=[IMMUTABLE])]), StageFailed)
    assert isinstance(answered_no(ApiError(503, {"message": "busy"}, "get Pod p"), "k"), StageErrored)
