"""Twelve leaves of every kind of effect: two images built, pushed and deployed, and six that write to a file."""

from dataclasses import dataclass
from pathlib import Path

from runner.folder import RunFolder
from runner.state import fold
from tests.e2e.conftest import World
from tests.e2e.shop import PIPELINE, Shop

__all__ = ["Twelve", "twelve"]

SERVICES = ["service-a", "service-b"]
TWELVE = (
    PIPELINE
    + """
  before: {uses: probe, each: [p, q, r], with: {effects: 1, effect_file: ledger, settles: file}}
  after: {needs: {deploy: all, before: all}, uses: probe, with: {effects: 1, effect_file: ledger, settles: file}}
finally:
  last: {uses: probe, each: [p, q], with: {effects: 1, effect_file: ledger, settles: file}}
"""
)
CHANGES = ["after 1", *(f"before[{key}] 1" for key in "pqr"), *(f"last[{key}] 1" for key in "pq")]


@dataclass(frozen=True)
class Twelve:
    """One release of the twelve, and what the cluster had before it."""

    shop: Shop
    world: World
    namespace: str
    before: dict[str, int]

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.shop.folder / ".pipe/shop/1")

    def ended(self) -> bool:
        return fold(self.run.records()).outcome is not None

    def made_once(self) -> None:
        """Every line written once, every deployment changed once, every image in use as it was pushed."""
        state = fold(self.run.records())
        assert str(state.outcome) == "succeeded"
        assert sorted((self.shop.folder / "ledger").read_text().splitlines()) == sorted(CHANGES)
        assert generations(self.world, self.namespace) == {name: self.before.get(name, 0) + 1 for name in SERVICES}
        pushed = {state.leaves[f"push[{name}]"].outputs["digest_ref"] for name in SERVICES}
        assert used(self.world, self.namespace) == pushed


def twelve(folder: Path, world: World, namespace: str) -> Twelve:
    """A new folder with the twelve, for a namespace that earlier ones may have released to."""
    folder.mkdir()
    shop = Shop(folder, world, namespace, SERVICES)
    (folder / "pipeline.yaml").write_text(TWELVE.replace("SERVICES", ", ".join(SERVICES)))
    return Twelve(shop, world, namespace, generations(world, namespace))


def generations(world: World, namespace: str) -> dict[str, int]:
    """How often the specification of each deployment was changed."""
    return {
        item["metadata"]["name"]: item["metadata"]["generation"] for item in world.objects(namespace, "deployments")
    }


def used(world: World, namespace: str) -> set[str]:
    """The images that the deployments name."""
    return {
        container["image"]
        for item in world.objects(namespace, "deployments")
        for container in item["spec"]["template"]["spec"]["containers"]
    }
