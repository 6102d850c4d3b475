"""Which refusals only say that another object of the same deploy is not there yet."""

import pytest

from stages.clients.kubernetes.apply import unmet
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.transport import ApiError

NO_ACCOUNT = 'pods "web" is forbidden: error looking up service account his/web: serviceaccount "web" not found'
NO_ROLE = 'roles.rbac.authorization.k8s.io "web" not found'
NO_POLICY = 'networkpolicies.networking.k8s.io "web" not found'
NO_WEBHOOK = (
    'Internal error occurred: failed calling webhook "w": failed to call webhook:'
    ' Post "https://web.guards.svc:443/?timeout=10s": service "web" not found'
)


def manifest(kind: str, namespace: str = "his", name: str = "web") -> Manifest:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return Manifest({"apiVersion": "v1", "kind": kind, "metadata": metadata}, "app.yml", 1)


@pytest.mark.parametrize(
    ("said", "other", "meant"),
    [
        (NO_ACCOUNT, manifest("ServiceAccount"), True),
        (NO_ACCOUNT, manifest("ServiceAccount", name="web-2"), False),
        (NO_ACCOUNT, manifest("ServiceAccount", "other"), False),
        (NO_ACCOUNT, manifest("Service"), False),
        (NO_ACCOUNT, manifest("Deployment"), False),
        (NO_ROLE, manifest("Role"), True),
        (NO_ROLE, manifest("ClusterRole", ""), False),
        (NO_POLICY, manifest("NetworkPolicy"), True),
        ('namespaces "web" not found', manifest("Namespace", ""), True),
        ('pod rejected: RuntimeClass "web" not found', manifest("RuntimeClass", ""), True),
        (NO_WEBHOOK, manifest("Service", "guards"), True),
        (NO_WEBHOOK, manifest("Service", "other"), False),
    ],
)
def test_only_the_very_object_that_is_missed_excuses_a_refusal(said: str, other: Manifest, meant: bool) -> None:  # noqa: FBT001
    refused = manifest("Pod")
    found = unmet(ApiError(403, {"message": said}, "patch"), refused, [refused, other])
    assert (found == other.ref) if meant else found is None


def test_an_object_does_not_excuse_itself() -> None:
    refused = manifest("Service")
    assert unmet(ApiError(404, {"message": 'services "web" not found'}, "patch"), refused, [refused]) is None
