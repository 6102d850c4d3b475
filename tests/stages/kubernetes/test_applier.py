"""Applying one object while somebody else writes it all the time."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from stages.clients.kubernetes import applier
from stages.clients.kubernetes.api import Applied, Cluster
from stages.clients.kubernetes.applier import Applier
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.transport import ApiError

HANDOVER = "pipe-handover"
WEB: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "his"}}
OURS = {"manager": "pipe", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
SCALED = Ref("apps/v1", "Deployment", "his", "web")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "_PAUSE", 0.0)


@dataclass
class FakeCluster:
    """A workload whose replicas are ours alone, and that is written by others in the moment of each handover."""

    races: int
    managers: list[str] = field(default_factory=list)

    async def get(self, ref: Ref) -> Object:
        metadata = {**WEB["metadata"], "uid": "u", "resourceVersion": "5", "managedFields": [OURS]}
        return {**WEB, "metadata": metadata, "spec": {"replicas": 7}}

    async def apply(self, thing: Object, *, dry_run: bool = False, force: bool = False, manager: str = "pipe") -> Any:
        if not dry_run:
            self.managers.append(manager)
        if manager == HANDOVER and self.races:
            self.races -= 1
            raise ApiError(409, {"reason": "Conflict", "message": "the object has been modified"}, "patch")
        return Applied(await self.get(SCALED))


async def written(fake: FakeCluster) -> Any:
    made = Applier(cast("Cluster", fake), scaled=frozenset({SCALED}))
    manifest = Manifest(dict(WEB), "app.yml", 1)
    await made.check(manifest)
    return (await made.write(manifest)).answer


async def test_replicas_are_handed_over_before_the_write_gives_them_up_however_many_races_are_lost() -> None:
    fake = FakeCluster(races=7)
    assert isinstance(await written(fake), Applied)
    assert fake.managers == [*[HANDOVER] * 8, "pipe"]


async def test_a_workload_whose_replicas_cannot_be_handed_over_is_refused_and_not_scaled_to_one() -> None:
    fake = FakeCluster(races=99)
    answer = await written(fake)
    assert isinstance(answer, ApiError)
    assert answer.status == 409
    assert "pipe" not in fake.managers
