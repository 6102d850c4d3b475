"""What a deploy describes no more, on a real cluster: deleted where it still is ours, and brought back by a rollback."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.stage import ReleasePart, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.transport import Request, Transport
from stages.deploy import Deploy
from stages.release import Release
from stages.rollback import Rollback
from stages.ticket import Ticket
from tests.stages.kubernetes.support import World, app, green, red
from tests.stages.kubernetes.test_real_access import restricted
from tests.stages.kubernetes.test_real_looks import look
from tests.support.context import FakeContext

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


def config(*names: str) -> str:
    objects = [f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n" for name in names]
    return "---\n".join(objects)


CLAIM = """---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, volumeName: none, resources: {requests: {storage: 1Gi}}}
"""


async def there(world: World, namespace: str, *names: str, kind: str = "ConfigMap") -> list[str]:
    return [name for name in names if await world.get(kind, namespace, name)]


async def test_what_is_described_no_more_is_deleted_when_all_is_done_and_shown_before(
    world: World, namespace: str
) -> None:
    await green(world, namespace, app() + "---\n" + config("a", "b"), prune=True)
    ahead = await look(world, namespace, config("b"), prune=True)
    assert sorted(ahead.intends) == [
        f"ConfigMap {namespace}/a is deleted: no manifest describes it any more",
        f"Deployment {namespace}/web is deleted: no manifest describes it any more",
    ]
    assert ahead.findings == []
    assert len(ahead.touches) == 3
    assert await there(world, namespace, "a", "b") == ["a", "b"]

    result = await green(world, namespace, config("b"), prune=True)
    assert f"ConfigMap {namespace}/a is deleted" in result.ctx.text
    assert await there(world, namespace, "a", "b") == ["b"]
    assert await world.get("Deployment", namespace, "web", "apps/v1") is None
    assert (await look(world, namespace, config("b"), prune=True)).intends == []


async def test_nothing_is_deleted_without_the_word_nor_when_the_deploy_fails(world: World, namespace: str) -> None:
    await green(world, namespace, config("a", "b"), prune=True)
    await green(world, namespace, config("b"))
    assert await there(world, namespace, "a") == ["a"]
    broken = app(command="exit 7")
    await red(world, namespace, broken + "---\n" + config("b"), prune=True)
    assert await there(world, namespace, "a") == ["a"]
    await green(world, namespace, config("b"), prune=True)
    assert await there(world, namespace, "a", "b") == ["b"]
    assert await world.get("Deployment", namespace, "web", "apps/v1") is None


async def test_what_others_have_written_since_or_another_stage_or_made_anew_stays(world: World, namespace: str) -> None:
    await green(world, namespace, config("marked", "moved", "again", "ours"), prune=True)
    await green(world, namespace, config("moved"))  # as another stage would: by a run of its own
    async with world.cluster() as cluster:
        ref = Ref("v1", "ConfigMap", namespace, "marked")
        await cluster.merge(ref, {"metadata": {"annotations": {"pipe-ci/run": "SOMEBODY"}}})
        again = Ref("v1", "ConfigMap", namespace, "again")
        present = await cluster.get(again)
        assert present is not None
        await cluster.delete(again)
        metadata = {key: present["metadata"][key] for key in ("name", "namespace", "annotations")}
        await cluster.create({**present, "metadata": metadata})
    result = await green(world, namespace, config("new"), prune=True)
    assert await there(world, namespace, "marked", "moved", "again", "ours") == ["marked", "moved", "again"]
    assert result.ctx.text.count("stays: somebody else has written it since") == 3
    # What is not ours is forgotten, and not asked for again.
    assert "stays" not in (await green(world, namespace, config("new"), prune=True)).ctx.text


async def patched(cluster: Cluster, ref: Ref, manager: str, changes: dict[str, Any]) -> None:
    """A change of some fields by somebody else."""
    path = f"/api/v1/namespaces/{ref.namespace}/configmaps/{ref.name}"
    content = "application/merge-patch+json"
    await cluster.ask(Request("PATCH", path, "patch", (("fieldManager", manager),), changes, content))


async def test_what_another_tool_has_taken_over_stays_though_it_bears_our_mark(world: World, namespace: str) -> None:
    await green(world, namespace, config("applied", "edited", "chart", "noted", "ours"), prune=True)
    async with world.cluster() as cluster:
        thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": namespace}}
        await cluster.apply({**thing, "data": {"a": "b"}}, manager="argocd-controller")
        await patched(cluster, Ref("v1", "ConfigMap", namespace, "edited"), "kubectl-edit", {"data": {"a": "c"}})
        mark = {"metadata": {"annotations": {"meta.helm.sh/release-name": "web"}}}
        await patched(cluster, Ref("v1", "ConfigMap", namespace, "chart"), "helm", mark)
        note = {"metadata": {"annotations": {"field.cattle.io/publicEndpoints": "[]"}}}
        await patched(cluster, Ref("v1", "ConfigMap", namespace, "noted"), "rancher", note)
    result = await green(world, namespace, config("new"), prune=True)
    assert await there(world, namespace, "applied", "edited", "chart", "noted", "ours") == [
        "applied",
        "edited",
        "chart",
    ]
    for manager in ("argocd-controller", "kubectl-edit", "helm"):
        assert f"stays: somebody else has written it since ({manager})" in result.ctx.text


async def test_what_somebody_edits_between_the_check_and_the_deletion_stays(
    world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await green(world, namespace, config("a", "b"), prune=True)
    delete = Cluster.delete

    async def late(self: Cluster, ref: Ref, uid: str = "", version: str = "", *, dry_run: bool = False) -> None:
        if not dry_run:
            await patched(self, ref, "kubectl-edit", {"data": {"a": "c"}})
        await delete(self, ref, uid, version, dry_run=dry_run)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "delete", late)
        result = await green(world, namespace, config("b"), prune=True)
    assert "stays: somebody else has written it since (kubectl-edit)" in result.ctx.text
    assert await there(world, namespace, "a") == ["a"]


async def test_a_rollback_writes_on_the_terms_of_the_deploys(world: World, namespace: str) -> None:
    target, ref = Target(world, namespace), Ref("v1", "ConfigMap", namespace, "a")
    target.terms = {"on_conflict": "force"}
    await target.release("RUN1", one=config("a"))
    await target.release("RUN2", one=config("a", "b"))
    async with world.cluster() as cluster:
        await patched(cluster, ref, "an-operator", {"data": {"a": "c"}})
    await Rollback.model_validate({**target.here, "to": 1}).run(world.context("RUN3"))
    assert (await world.get("ConfigMap", namespace, "a"))["data"] == {"a": "b"}


async def test_a_rollback_leaves_what_somebody_else_has_taken_over(world: World, namespace: str) -> None:
    target = Target(world, namespace)
    await target.release("RUN1", one=config("a"))
    await target.release("RUN2", one=config("a", "new", "taken"))
    async with world.cluster() as cluster:
        await patched(cluster, Ref("v1", "ConfigMap", namespace, "taken"), "kubectl-edit", {"data": {"a": "c"}})
    ctx = world.context("RUN3")
    await Rollback.model_validate({**target.here, "to": 1}).run(ctx)
    assert await there(world, namespace, "a", "new", "taken") == ["a", "taken"]
    assert "taken stays: somebody else has written it since (kubectl-edit)" in ctx.text


async def test_what_somebody_takes_over_between_the_check_and_the_deletion_stays(
    world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await green(world, namespace, config("a", "b"), prune=True)
    delete = Cluster.delete

    async def late(self: Cluster, ref: Ref, uid: str = "", version: str = "", *, dry_run: bool = False) -> None:
        if not dry_run:
            await self.merge(ref, {"metadata": {"annotations": {"pipe-ci/run": "SOMEBODY"}}})
        await delete(self, ref, uid, version, dry_run=dry_run)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "delete", late)
        result = await green(world, namespace, config("b"), prune=True)
    assert "stays: somebody else has written it since" in result.ctx.text
    assert await there(world, namespace, "a") == ["a"]


async def test_what_others_data_hang_on_goes_only_by_an_explicit_word(world: World, namespace: str) -> None:
    async def deploy(text: str, **more: Any) -> Any:
        try:
            return await green(world, namespace, text, wait="1s", **more)
        except AssertionError:  # the claim is never bound
            return None

    await deploy(config("a") + CLAIM, prune=True)
    for _ in range(2):
        result = await green(world, namespace, config("a"), prune=True)
        assert "prune: {also: [PersistentVolumeClaim]}" in result.ctx.text
    assert await there(world, namespace, "data", kind="PersistentVolumeClaim") == ["data"]
    await green(world, namespace, config("a"), prune={"also": ["PersistentVolumeClaim"]})
    found = await world.get("PersistentVolumeClaim", namespace, "data")
    assert found is None or found["metadata"]["deletionTimestamp"]


async def test_without_the_right_to_delete_it_is_red_before_anything_is_written(
    world: World, namespace: str, tmp_path: Any
) -> None:
    verbs = ["get", "list", "patch", "create", "update"]
    async with restricted(world, namespace, tmp_path, verbs) as account:
        await green(world, namespace, config("a", "b"), prune=True)
        given = {"kubeconfig": account}
        result = await red(world, namespace, config("b", "c"), prune=True, secret=given, pull_secret="")
    assert isinstance(result.error, StageFailed)
    assert "cannot delete" in result.message
    assert await there(world, namespace, "a", "c") == ["a"]


# -- as part of a release --------------------------------------------------------------------------


class Target:
    """Releases of two services to one target."""

    def __init__(self, world: World, namespace: str) -> None:
        self.world, self.namespace = world, namespace
        self.terms: dict[str, Any] = {"prune": True}
        self.here = {"target": "t", "namespace": namespace, "secret": "kubeconfig"}

    @property
    def unknown(self) -> ReleasePart:
        """As it is looked ahead at, before its number is drawn."""
        return ReleasePart(target="t", namespace=self.namespace, number=0)

    def context(self, name: str) -> FakeContext:
        ctx = self.world.context()
        ctx.run = replace(ctx.run, stage=f"deploy[{name}]")
        return ctx

    async def release(self, run: str, **services: str) -> None:
        names = [f"deploy[{name}]" for name in services]
        drawn = await Ticket.model_validate({**self.here, "parts": names}).run(self.world.context(run))
        part = ReleasePart(target="t", namespace=self.namespace, number=drawn.number)
        for name, text in services.items():
            ctx = self.world.context(run)
            ctx.run = replace(ctx.run, stage=f"deploy[{name}]")
            (ctx.workspace / "app.yml").write_text(text)
            fields = {"manifests": ["*.yml"], "namespace": self.namespace, "secret": "kubeconfig", **self.terms}
            await Deploy.model_validate({**fields, "release": part}).run(ctx)
        ends = {name: {"outcome": "succeeded"} for name in names}
        fields = {**self.here, "number": drawn.number, "parts": ends}
        await Release.model_validate(fields).run(self.world.context(run))


async def test_the_records_of_releases_say_what_is_pruned_and_a_rollback_brings_it_back(
    world: World, namespace: str
) -> None:
    target, names = Target(world, namespace), ("a", "b", "c", "moved")
    await target.release("RUN1", one=config("a", "b", "moved"), two=config("c"))
    await target.release("RUN2", one=config("b"), two=config("c", "moved"))
    assert await there(world, namespace, *names) == ["b", "c", "moved"]
    ahead = await look(world, namespace, config("b"), target.context("one"), prune=True, release=target.unknown)
    assert (ahead.findings, ahead.intends) == ([], [])
    await Rollback.model_validate({**target.here, "to": 1}).run(world.context("RUN3"))
    assert await there(world, namespace, *names) == ["a", "b", "c", "moved"]
    # What a rollback has put back is ours as well.
    ahead = await look(world, namespace, config("b"), target.context("one"), prune=True, release=target.unknown)
    assert [line.partition(" is")[0] for line in ahead.intends] == [
        f"ConfigMap {namespace}/a",
        f"ConfigMap {namespace}/moved",
    ]
    await target.release("RUN4", one=config("b"))
    assert await there(world, namespace, *names) == ["b", "c"]
    async with world.cluster() as cluster:
        assert len(await Ledger(cluster, namespace, "t").heads()) == 4


async def test_what_has_moved_to_another_deploy_of_the_target_is_never_pruned(world: World, namespace: str) -> None:
    target = Target(world, namespace)
    await target.release("RUN1", one=config("a", "moved"), two=config("c"))
    await target.release("RUN2", two=config("c", "moved"))
    await target.release("RUN3", one=config("a"))
    assert await there(world, namespace, "a", "moved") == ["a", "moved"]


async def test_prune_costs_nothing_where_it_is_not_asked_for_and_three_requests_where_it_is(
    world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await green(world, namespace, config("a"))
    seen: list[str] = []
    send = Transport.send

    async def counted(self: Transport, request: Any) -> Any:
        seen.append(f"{request.method} {request.path.rpartition('/')[2]}")
        return await send(self, request)

    monkeypatch.setattr(Transport, "send", counted)
    await green(world, namespace, config("a"))
    plain = list(seen)
    seen.clear()
    await green(world, namespace, config("a"), prune=True)
    assert len(seen) == len(plain) + 3
