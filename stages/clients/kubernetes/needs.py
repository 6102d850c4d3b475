"""What pods say that they need, and how it is: up, or on its way, or beyond hope. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator

from pipeline.stage import is_open
from stages.clients.kubernetes.api import Collection
from stages.clients.kubernetes.diagnosis import Trouble, is_crash, is_ready
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.pods import all_pods
from stages.clients.kubernetes.scene import Around, Scene
from stages.clients.kubernetes.steady import unsteady

__all__ = ["KINDS", "Need", "NeedName", "Standing", "Things", "collections_of", "meant", "parse_need", "stand"]

KINDS = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1", "Service": "v1"}
"""The kinds of which a need may be, each with its API version."""
_SHORT = {"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet", "svc": "Service"}
_WRITTEN = {**{kind.lower() + end: kind for kind in KINDS for end in ("", "s")}, **_SHORT}
_WORKLOADS = tuple(kind for kind in KINDS if kind != "Service")

Things: TypeAlias = Mapping[str, Sequence[Object]]
"""By kind, what there is of it in one namespace."""


@dataclass(frozen=True, slots=True)
class Need:
    """A workload or a Service that pods need, in their own namespace; without a kind whatever has the name."""

    name: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.kind else self.name

    def matches(self, ref: Ref) -> bool:
        """Whether it names that object, of whichever namespace."""
        return self.name == ref.name and self.kind in ("", ref.kind)


def parse_need(text: str) -> Need:
    """Read `name` or `kind/name`, the kind as kubectl takes it.

    Raises:
        ValueError: it is neither.
    """
    written, slash, name = text.rpartition("/")
    kind = _WRITTEN.get(written.lower(), "")
    if not name or bool(slash) != bool(kind):
        kinds = ", ".join(kind.lower() for kind in KINDS)
        raise ValueError(f"'{text}' names nothing: write NAME or KIND/NAME, with one of the kinds {kinds}")
    return Need(name, kind)


def _checked(text: str) -> str:
    if not is_open(text):
        parse_need(text)
    return text


NeedName: TypeAlias = Annotated[str, AfterValidator(_checked)]
"""A field that names a need."""


def collections_of(needs: Sequence[Need], namespace: str) -> list[Collection]:
    """What has to be known of a namespace to judge needs there."""
    kinds = KINDS if any(need.kind in ("", "Service") for need in needs) else {need.kind: None for need in needs}
    around = (("v1", "Pod"), ("apps/v1", "ReplicaSet"))
    return [Collection(*what, namespace) for what in (*((KINDS[kind], kind) for kind in kinds), *around)]


def meant(need: Need, things: Things) -> list[Object]:
    """The objects that a need names: workloads of its name, else those behind the Service of its name, else that.

    Empty if there is nothing of the name.
    """
    workloads = [each for kind in _WORKLOADS for each in things.get(kind, ()) if need.kind in ("", kind)]
    if named := [each for each in workloads if each["metadata"]["name"] == need.name]:
        return named
    services = things.get("Service", ()) if need.kind in ("", "Service") else ()
    found: list[Object] = []
    for service in services:
        if service["metadata"]["name"] == need.name:
            found += _behind(service, things) or [service]
    return found


def _behind(service: Object, things: Things) -> list[Object]:
    """The workloads whose pods a Service leads to."""
    workloads = [each for kind in _WORKLOADS for each in things.get(kind, ())]
    return [each for each in workloads if _selects(service, dig(each, "spec", "template"))]


def _selects(service: Object, thing: Object | None) -> bool:
    wanted = dig(service, "spec", "selector") or {}
    labels = dig(thing, "metadata", "labels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


# -- how it is -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """How a need is.

    `coming`: not up, and nothing says that it never will be; `words` say what it lacks, and `scene` shows it, if there
    is something of that name at all. `trouble` is the one that waiting does not help, if it failed. `unseen`: we may
    not look.
    """

    need: Need
    state: Literal["up", "coming", "failed", "unseen"]
    words: str = ""
    scene: Scene | None = None
    trouble: Trouble | None = None

    @property
    def crashes(self) -> bool:
        """Whether it is not up because its program ends, as that of who needs it."""
        return self.scene is not None and bool(self.scene.troubles) and is_crash(self.scene.troubles[0])

    def is_of(self, scene: Scene) -> bool:
        """Whether it is told of that very object, which is no excuse for itself."""
        return self.scene is not None and self.scene.ref == scene.ref


def stand(need: Need, scenes: Sequence[tuple[Scene, Trouble | None]], around: Around) -> Standing:
    """Judge a need by the objects that it means.

    One that serves makes it up, of whichever revision its pods are. It has failed when none of them can help any more.

    Args:
        need: what is needed.
        scenes: its objects as they are judged, each with the trouble that waiting does not help, if there is one.
        around: what else is known.
    """
    if not scenes:
        return Standing(need, "coming", "there is no workload or Service of that name")
    if any(_serves(scene, around) for scene, _ in scenes):
        return Standing(need, "up")
    hopeful = [(scene, None) for scene, spent in scenes if spent is None and scene.verdict.state != "failed"]
    scene, trouble = (hopeful or scenes)[0]
    return Standing(need, "coming" if hopeful else "failed", f"{scene.ref}: {_lacks(scene)}", scene, trouble)


def _serves(scene: Scene, around: Around) -> bool:
    thing = scene.thing
    if thing["kind"] == "Job":
        return scene.verdict.state == "done"
    if thing["kind"] == "Service" and not dig(thing, "spec", "selector"):
        return True  # it leads out of the cluster, where nobody can look
    if around.pods is None:
        return scene.verdict.state == "done" and dig(thing, "spec", "replicas") != 0
    pods = _pods_of(thing, around, around.pods)
    return any(is_ready(pod) and not unsteady([pod], around.clock, around.sightings) for pod in pods)


def _pods_of(thing: Object, around: Around, pods: Sequence[Object]) -> list[Object]:
    if thing["kind"] == "Service":
        return [pod for pod in pods if _selects(thing, pod)]
    return all_pods(thing, around.revisions, pods)


def _lacks(scene: Scene) -> str:
    thing = scene.thing
    if thing["kind"] == "Service":
        return "no pod behind it is ready"
    if dig(thing, "spec", "replicas") == 0:
        return "it is scaled to 0"
    return scene.summary
