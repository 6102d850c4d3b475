"""Crashes that do not count: those of pods whose needs are not up yet. They count from when these are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio

from stages.clients.kubernetes.api import Collection
from stages.clients.kubernetes.diagnosis import Patience, Trouble, is_crash, recounted
from stages.clients.kubernetes.needs import Need, Standing, Things, collections_of, meant, stand
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.rollout import judge
from stages.clients.kubernetes.scene import Around, Scene, look
from stages.clients.kubernetes.watching import Mirror

__all__ = ["Excuses"]


@dataclass(slots=True)
class Excuses:
    """The needs of one wait while it goes on. Nothing is asked of the cluster before the first crash."""

    needs: Sequence[Need]
    mirror: Mirror
    patience: Patience
    follow: Callable[[Collection], object]
    """Begins to keep a collection true."""
    _followed: set[Collection] = field(default_factory=set)
    _before: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """How many crashes of a container do not count."""
    _firsts: dict[str, Object] = field(default_factory=dict)
    """The needs' objects as they were when we first looked, to tell old troubles from new ones."""
    _stood: dict[str, list[Standing] | None] = field(default_factory=dict)
    """How the needs are in each namespace, by the present look."""
    _excusing: dict[Ref, list[Standing]] = field(default_factory=dict)
    """What the pods of each object lack, by the present look."""

    @property
    def followed(self) -> frozenset[Collection]:
        """What the needs are judged by."""
        return frozenset(self._followed)

    def look_again(self) -> None:
        """Forget how the needs were: what is asked next is asked of what the cluster has now."""
        self._stood.clear()
        self._excusing.clear()

    def heard(self, scene: Scene, around: Around) -> Scene:
        """The scene with its crashes excused, or with only those counted that came later.

        `around`: of it only events, clock and sightings are looked at; what else is there, is found here.
        """
        if not self.needs or not any(map(is_crash, scene.troubles)):
            return scene
        standings = self._standings(scene.ref.namespace, around)
        if standings is None:
            return replace(scene, troubles=_patient(scene.troubles))
        lacking = [each for each in standings if each.state in ("coming", "failed") and not each.is_of(scene)]
        if not lacking:
            return self._counted(scene)
        self._excusing[scene.ref] = sorted(lacking, key=_likelihood)
        return replace(self._excused(scene), waits=_words(lacking, scene.troubles))

    def lacking(self, ref: Ref) -> list[Standing]:
        """What the pods of an object wait for, the likeliest cause first; empty if they are not excused."""
        return self._excusing.get(ref, [])

    # -- how the needs are -------------------------------------------------------------------------

    def _standings(self, namespace: str, around: Around) -> list[Standing] | None:
        """All needs; None before it is known what there is."""
        if namespace not in self._stood:
            self._stood[namespace] = self._judge(namespace, around)
        return self._stood[namespace]

    def _judge(self, namespace: str, around: Around) -> list[Standing] | None:
        """A crash of one need is excused by another that is on its way and does not crash itself."""
        collections = collections_of(self.needs, namespace)
        self._follow(collections)
        seen = {what.kind: self.mirror.objects(what) for what in collections if what not in self.mirror.refused}
        if None in seen.values():
            return None
        found = {kind: [_named(thing, kind, collections) for thing in things or ()] for kind, things in seen.items()}
        here = replace(around, revisions=found.get("ReplicaSet", ()), pods=found.get("Pod"))
        blind = any(what in self.mirror.refused for what in collections)
        first = [self._stand(need, found, here, blind=blind) for need in self.needs]
        hope = {each.need for each in first if each.state == "coming" and not each.crashes}
        return [
            self._stand(each.need, found, here, blind=blind, excused=True)
            if each.crashes and hope - {each.need}
            else each
            for each in first
        ]

    def _follow(self, collections: Sequence[Collection]) -> None:
        for what in collections:
            if what not in self._followed:
                self._followed.add(what)
                self.follow(what)

    def _stand(self, need: Need, found: Things, here: Around, *, blind: bool, excused: bool = False) -> Standing:
        things = meant(need, found)
        if not things and blind:
            return Standing(need, "unseen")
        scenes = [look(thing, self._firsts.setdefault(thing["metadata"]["uid"], thing), here) for thing in things]
        scenes = [self._excused(scene) if excused else self._counted(scene) for scene in scenes]
        now = anyio.current_time()
        return stand(need, [(scene, self.patience.exhausted(scene.troubles, now)) for scene in scenes], here)

    # -- what counts -------------------------------------------------------------------------------

    def _excused(self, scene: Scene) -> Scene:
        """As if it had been applied just now, and had not crashed."""
        for trouble in filter(is_crash, scene.troubles):
            self._before[trouble.key] = trouble.crashes
            self.patience.forget(trouble)
        self._firsts[scene.thing["metadata"]["uid"]] = scene.thing
        return replace(scene, verdict=judge(scene.thing, scene.thing), troubles=_patient(scene.troubles))

    def _counted(self, scene: Scene) -> Scene:
        up = f"since {' and '.join(map(str, self.needs))} {'is' if len(self.needs) == 1 else 'are'} up"
        troubles = tuple(
            recounted(each, self._before[each.key], up) if each.key in self._before else each for each in scene.troubles
        )
        return replace(scene, troubles=troubles)


def _patient(troubles: Sequence[Trouble]) -> tuple[Trouble, ...]:
    """The same with crashes that may go on."""
    return tuple(replace(each, grace=None) if is_crash(each) else each for each in troubles)


def _named(thing: Object, kind: str, collections: Sequence[Collection]) -> Object:
    """A watch event need not say which kind its object is of."""
    version = next(what.api_version for what in collections if what.kind == kind)
    return {**thing, "apiVersion": version, "kind": kind}


def _words(lacking: Sequence[Standing], troubles: Sequence[Trouble]) -> str:
    """`waiting for mysql (…), without which pod web-1 crashes`."""
    names = " and ".join(f"{each.need} ({each.words})" for each in lacking)
    pod = next(trouble.pod for trouble in troubles if is_crash(trouble))
    return f"waiting for {names}, without which pod {pod} crashes"


def _likelihood(standing: Standing) -> tuple[bool, bool]:
    """What has failed is the cause; else rather what is there than what may have another name."""
    return standing.state != "failed", standing.scene is None
