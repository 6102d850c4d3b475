"""Which object lies in which namespace."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from pipeline.stage import CauseKind, StageFailed
from stages.clients.helm.trying import assign_release_namespace
from stages.clients.kubernetes.api import Cluster, Resource
from stages.clients.kubernetes.manifests import Manifest, read_manifests
from stages.clients.kubernetes.namespaces import assign_namespaces
from stages.clients.kubernetes.order import CRD
from stages.clients.kubernetes.scalars import Variables


@dataclass
class FakeCluster:
    """Knows roles of both scopes, and definitions."""

    async def resource(self, version: str, kind: str) -> Resource | None:
        known = kind in ("Role", "ClusterRole", CRD)
        return Resource(version, kind, f"{kind.lower()}s", kind == "Role") if known else None


CLUSTER = cast("Cluster", FakeCluster())


def role(kind: str = "Role", **metadata: str) -> str:
    fields = "".join(f", {key}: {value}" for key, value in metadata.items())
    return f"apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: web{fields}}}\n"


def read(*documents: str) -> list[Manifest]:
    return read_manifests({"app.yml": "---\n".join(documents)}, Variables({}))


@pytest.mark.parametrize(
    ("first", "second", "ref"),
    [
        (role(), role(namespace="his"), "Role his/web"),
        (role(namespace="his"), role(), "Role his/web"),
        (role("ClusterRole"), role("ClusterRole", namespace="his"), "ClusterRole web"),
    ],
)
async def test_the_same_object_twice_is_refused_though_only_one_names_its_namespace(
    first: str, second: str, ref: str
) -> None:
    with pytest.raises(StageFailed) as caught:
        await assign_namespaces(CLUSTER, read(first, second), "his")
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert list(caught.value.cause.evidence) == [f"app.yml:5: {ref} is written twice, first at app.yml:1"]


async def test_objects_of_one_name_in_two_namespaces_are_two() -> None:
    manifests = read(role(namespace="his"), role(namespace="hers"), role("ClusterRole"))
    await assign_namespaces(CLUSTER, manifests, "")
    assert [str(each.ref) for each in manifests] == ["Role his/web", "Role hers/web", "ClusterRole web"]


async def test_a_chart_may_hold_an_object_twice_as_helm_upgrades_it_so() -> None:
    manifests = [*read(role(namespace="his")), *read(role(namespace="his")), *read(role())]
    await assign_release_namespace(CLUSTER, manifests, "his")
    assert [str(each.ref) for each in manifests] == ["Role his/web"] * 3


@pytest.mark.parametrize("spec", ["x", ["x"], None])
async def test_a_kind_that_nobody_knows_is_told_beside_a_definition_that_is_none(spec: Any) -> None:
    odd, unknown = read(role(CRD)), read(role("Gone"))
    odd[0].object["spec"] = spec
    with pytest.raises(StageFailed, match=r"the cluster knows no Gone of rbac\.authorization\.k8s\.io/v1"):
        await assign_namespaces(CLUSTER, [*odd, *unknown], "his")
