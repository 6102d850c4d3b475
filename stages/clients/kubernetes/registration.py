"""Whether pods are known where services find each other: every new one, healthy, and none of the old ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio
from pydantic import JsonValue

from pipeline.stage import StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.diagnosis import Trouble, is_ready
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.pods import all_pods, new_pods, selector
from stages.clients.kubernetes.registered_in import InNacos, services_of
from stages.clients.kubernetes.rollout import Verdict
from stages.clients.kubernetes.scene import Around, Scene
from stages.clients.nacos import Instance, Nacos

__all__ = ["Registration", "addresses", "begin", "unregistered"]

_PAUSE, _GROWTH, _LONGEST = 1.0, 1.5, 5.0
"""Seconds between two questions: more as long as nothing changes."""
_REFUSED = 10.0
"""Seconds after which a refusal is believed: a server that has just started may give one too."""
_SILENT = 15.0
"""Seconds without an answer after which the one before says nothing any more."""
_SHOWN = 20


async def begin(ctx: StageContext, cluster: Cluster, fields: InNacos, manifests: Sequence[Manifest]) -> "Registration":
    """Note which pods there are before anything is applied, once for all attempts of the run: those have to go."""
    services = services_of(fields, manifests)

    async def find() -> JsonValue:
        return {str(ref): [*await _present(cluster, ref)] for ref in services}

    found = await ctx.once(f"addresses of pods before {ctx.run.stage}", find)
    before = {ref: frozenset(map(str, dig(found, str(ref)) or ())) for ref in services}
    return Registration(fields.client(ctx), services, before, fields.port)


async def _present(cluster: Cluster, ref: Ref) -> set[str]:
    thing = await cluster.get(ref)
    if thing is None:
        return set()
    pods, _ = await cluster.items(Collection("v1", "Pod", ref.namespace, selector(thing)))
    return {ip for pod in pods for ip in addresses(pod)}


def addresses(pod: Object) -> frozenset[str]:
    """Under which addresses a pod can be registered."""
    status = pod.get("status") or {}
    found = [status.get("podIP"), *(each.get("ip") for each in status.get("podIPs") or ())]
    return frozenset(ip for ip in found if ip)


def unregistered(
    new: Sequence[Object], old: frozenset[str], instances: Sequence[Instance], port: int = 0
) -> tuple[list[tuple[Object, str]], list[Instance]]:
    """What a registry lacks, and what it still has.

    Args:
        new: the pods of the new revision; those that are ready must be there.
        old: addresses that pods have had; those that no pod of the new revision has now must not be there.
        instances: what is registered.
        port: the port that must be registered, 0 if any may.

    Returns:
        Each new pod that is not there, with what is there instead; and the instances of old pods.
    """
    alive = [pod for pod in new if dig(pod, "status", "phase") not in ("Failed", "Succeeded")]
    missing: list[tuple[Object, str]] = []
    for pod in filter(is_ready, alive):
        ips = addresses(pod)
        own = [each for each in instances if each.ip in ips]
        meant = [each for each in own if port in (0, each.port)]
        if not any(each.serves for each in meant):
            missing.append((pod, _instead(ips, meant or own)))
    ours = frozenset(ip for pod in alive for ip in addresses(pod))
    return missing, [each for each in instances if each.ip in old - ours]


def _made(workload: Object) -> int:
    """How many pods of the new revision its controller has made: those that we see may lag behind."""
    status = workload.get("status") or {}
    return int(status.get("updatedReplicas") or status.get("updatedNumberScheduled") or 0)


def _instead(ips: frozenset[str], found: Sequence[Instance]) -> str:
    if not found:
        return f"{', '.join(sorted(ips)) or 'without an address'} is missing"
    return f"there is {', '.join(map(str, found))}"


@dataclass(slots=True)
class Registration:
    """What one wait knows of a registry; run `follow` while it is needed.

    `services` are the names under which pods of workloads have to be registered, `before` the addresses that their
    pods had before anything was applied.
    """

    nacos: Nacos
    services: Mapping[Ref, str]
    before: Mapping[Ref, frozenset[str]]
    port: int = 0
    _known: dict[str, list[Instance]] | None = None
    _others: list[str] | None = None
    """The services that there are, if they were asked for."""
    _silent: tuple[float, str] | None = None
    """Since when the registry does not answer, and why."""
    _refused: tuple[float, StageFailed] | None = None
    _seen: dict[Ref, frozenset[str]] = field(default_factory=dict)

    def concerns(self, refs: Iterable[Ref]) -> bool:
        """Whether pods of one of these have to be registered."""
        return any(ref in self.services for ref in refs)

    @property
    def silence(self) -> str:
        """Why nobody knows what the registry has now; empty while it answers, or did lately."""
        if self._silent is None:
            return ""
        since, why = self._silent
        return why if self._known is None or anyio.current_time() - since >= _SILENT else ""

    async def follow(self) -> None:
        """Ask again and again, until cancelled. What an earlier wait was told is forgotten."""
        self._forget()
        pause = _PAUSE
        while True:
            before = self._known
            await self.renew()
            pause = min(pause * _GROWTH, _LONGEST) if self._known == before else _PAUSE
            await anyio.sleep(pause)

    def _forget(self) -> None:
        self._known = self._silent = self._refused = None

    async def renew(self, *, closer: bool = False) -> None:
        """Ask now. `closer`: of a service that is not there, ask also which ones are. Nothing is raised."""
        try:
            self._known = await self.nacos.instances(list(dict.fromkeys(self.services.values())))
            if closer and not all(self._known.values()):
                self._others = await self.nacos.services()
        except StageErrored as error:
            self._silent = self._silent or (anyio.current_time(), str(error))
            self._refused = None
        except StageFailed as error:
            self._refused = self._refused or (anyio.current_time(), error)
            self._silent = None
        else:
            self._silent = self._refused = None

    def judged(self, scene: Scene, around: Around) -> Scene:
        """The scene; of what is done by its own words the registry has the last one.

        Raises:
            StageFailed: (config) the registry refuses to tell.
        """
        if scene.ref not in self.services:
            return scene
        if self._refused and anyio.current_time() - self._refused[0] >= _REFUSED:
            raise self._refused[1]
        if around.pods is None:
            message = "`registered_in:` compares addresses of pods, and we may not list pods"
            return replace(scene, verdict=Verdict("failed", message))
        old = self._addresses_of(scene, around.pods, around)
        if scene.verdict.state != "done":
            return scene
        return self._doubted(scene, new_pods(scene.thing, around.revisions, around.pods), old)

    def _addresses_of(self, scene: Scene, pods: Sequence[Object], around: Around) -> frozenset[str]:
        """Every address that a pod of this workload was ever seen with."""
        ref = scene.ref
        now = (addresses(pod) for pod in all_pods(scene.thing, around.revisions, pods))
        self._seen[ref] = self._seen.get(ref, self.before.get(ref, frozenset())).union(*now)
        return self._seen[ref]

    def _doubted(self, scene: Scene, new: Sequence[Object], old: frozenset[str]) -> Scene:
        if self._known is None or self.silence:
            why = self.silence or (self._refused[1] if self._refused else f"{self.nacos} is asked")
            return replace(scene, verdict=Verdict("waiting", f"{scene.verdict.message}; {why}"))
        ready = list(filter(is_ready, new))
        if len(ready) < (made := _made(scene.thing)):
            return replace(scene, verdict=Verdict("waiting", f"{len(ready)} of its {made} new pods have been seen"))
        service = self.services[scene.ref]
        missing, stale = unregistered(new, old, self._known[service], self.port)
        if not missing and not stale:
            message = f"{scene.verdict.message}, registered as {service} in {self.nacos}"
            return replace(scene, verdict=replace(scene.verdict, message=message))
        there = f"{len(ready) - len(missing)} of {len(ready)}"
        message = f"{there} new pods are registered as {service} in {self.nacos}"
        troubles = [*(self._missing(pod, instead, service) for pod, instead in missing)]
        told = [f"pod {pod['metadata']['name']}: {instead}" for pod, instead in missing]
        if stale:
            told.append(f"{', '.join(map(str, stale))} of old pods {'is' if len(stale) == 1 else 'are'} still there")
            troubles.append(Trouble("registry", "", scene.thing["metadata"]["uid"], f"{message}, and {told[-1]}"))
        details = tuple(replace(each, detail=self._registered(service)) for each in troubles)
        verdict = Verdict("waiting", message)
        return replace(scene, verdict=verdict, pods=tuple(new), troubles=details, waits="; ".join(told))

    def _missing(self, pod: Object, instead: str, service: str) -> Trouble:
        metadata, containers = pod["metadata"], dig(pod, "spec", "containers") or ({"name": ""},)
        name, image = containers[0]["name"], containers[0].get("image", "")
        message = f"it is not registered as {service} in {self.nacos}: {instead}"
        return Trouble("registry", metadata["name"], metadata["uid"], message, name, image)

    def _registered(self, service: str) -> str:
        """What the registry has of a service, in a line."""
        found = (self._known or {}).get(service, [])
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            return f"{self.nacos} has as {service}: {', '.join(map(str, found[:_SHOWN]))}{more}"
        others = f"; there are: {', '.join(self._others[:_SHOWN])}" if self._others else ""
        none = "; there is no service at all" if self._others == [] else ""
        return f"{self.nacos} has no service {service}{others}{none}"
