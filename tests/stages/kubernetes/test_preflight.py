"""What is looked at before a deploy, where the manifests are not what they should be: the cluster's words count then."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.stage import Examined
from stages.clients.kubernetes.api import Applied, Cluster, Collection, Resource
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.preflight import Intended, examine
from stages.clients.kubernetes.transport import Request
from tests.support.context import FakeContext


@dataclass
class FakeCluster:
    """Has nothing but its namespaces and the storage class `disk`, and takes everything."""

    server: str = "https://cluster.example"
    transport: Any = field(default_factory=lambda: SimpleNamespace(credentials="we"))

    async def resource(self, version: str, kind: str) -> Resource:
        return Resource(version, kind, f"{kind.lower()}s", namespaced=True)

    async def get(self, ref: Ref) -> Object | None:
        return {"metadata": {"name": ref.name}} if ref.kind == "Namespace" else None

    async def apply(self, thing: Object, **_: Any) -> Applied:
        return Applied(thing)

    async def create(self, thing: Object, **_: Any) -> Object:
        return thing

    async def ask(self, _: Request) -> Object:
        return {"status": {"allowed": True}}

    async def items(self, collection: Collection) -> tuple[list[Object], str]:
        return ([{"metadata": {"name": "disk"}}] if collection.kind == "StorageClass" else []), ""


async def examined(ctx: FakeContext, *objects: Object) -> Examined:
    manifests = [Manifest(each, "app.yml", 1) for each in objects]
    return await examine(ctx, cast("Cluster", FakeCluster()), Intended(manifests))


def thing(kind: str, spec: object, name: str = "web") -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "his"}, "spec": spec}


@pytest.mark.parametrize(
    "odd",
    [
        thing("Service", {"ports": {"http": 80}}),
        thing("Service", {"ports": [None, 80, {"nodePort": [1]}, {"nodePort": 1, "protocol": {}}]}),
        thing("Service", "x"),
        thing("Deployment", {"template": "x"}),
        thing("Deployment", {"template": {"spec": ["x"]}}),
        thing("Deployment", {"template": {"metadata": "x", "spec": {"containers": [{"name": "a"}]}}}),
        thing("Deployment", {"replicas": "x", "template": {"spec": {"containers": [{"name": "a"}]}}}),
        thing("StatefulSet", {"volumeClaimTemplates": [None, {"spec": "x"}, {"spec": {"storageClassName": {}}}]}),
        thing("PersistentVolumeClaim", "x"),
        thing("PersistentVolume", {"storageClassName": ["x"]}),
    ],
)
async def test_what_is_odd_below_a_spec_is_left_to_the_clusters_own_words(ctx: FakeContext, odd: Object) -> None:
    claim = thing("PersistentVolumeClaim", {"storageClassName": "disk"}, "claim")
    assert (await examined(ctx, odd, claim)).findings == []


async def test_a_node_port_for_two_services_is_told_beside_ports_that_are_none(ctx: FakeContext) -> None:
    services = [thing("Service", {"ports": [None, {"nodePort": 30080}]}, name) for name in ("web", "api")]
    (finding,) = (await examined(ctx, *services)).findings
    assert finding.cause.message == "the node port 30080 is wanted by Service his/web (app.yml:1) too"


async def test_a_storage_class_that_is_not_there_is_told(ctx: FakeContext) -> None:
    claims = {"volumeClaimTemplates": [{"spec": {"storageClassName": "tape"}}]}
    (finding,) = (await examined(ctx, thing("StatefulSet", claims))).findings
    assert finding.cause.message == "there is no storage class 'tape'; there are: disk"
