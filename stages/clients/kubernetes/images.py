"""The images of a deploy: which container each entry of `images:` replaces."""

from collections.abc import Sequence
from typing import Any

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.objects import Object, pod_specs

__all__ = ["containers", "registry", "replace_images", "repository"]


def repository(image: str) -> str:
    """`reg:5000/a/b` of `reg:5000/a/b:tag@sha256:…`."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def registry(image: str) -> str:
    """The host that an image comes from: its first part if that looks like one, else `docker.io`.

    The rule is `splitDockerDomain` of github.com/distribution/reference.
    """
    first, slash, _ = image.partition("/")
    return first if slash and (set(".:") & set(first) or first == "localhost") else "docker.io"


def containers(thing: object) -> list[dict[str, Any]]:
    """Every container and init container that an object describes."""
    lists = [spec.get(key) for spec in pod_specs(thing) for key in ("initContainers", "containers")]
    found = [each for listed in lists if isinstance(listed, list) for each in listed]
    return [each for each in found if isinstance(each, dict) and isinstance(each.get("image"), str)]


def replace_images(objects: Sequence[Object], images: Sequence[str]) -> None:
    """Put each of `images` (`repo:tag` or `repo:tag@sha256:…`) where the manifests use that repository.

    An entry is for the containers whose repository is wholly its own; if there are none, for those whose
    last part of the path is. The objects are changed in place.

    Raises:
        StageFailed: (config) an entry is for no container, or a container has two entries.
    """
    present = [container for each in objects for container in containers(each)]
    names = [container["image"] for container in present]
    taken: dict[int, str] = {}
    for entry in images:
        places = _places(repository(entry), [repository(name) for name in names])
        if not places:
            known = ", ".join(sorted(set(names))) or "none"
            raise StageFailed(
                f"the image {entry} is used by no container; images present: {known}", kind=CauseKind.CONFIG
            )
        for place in places:
            if taken.setdefault(place, entry) != entry:
                name = present[place].get("name")
                raise _wrong(f"both {taken[place]} and {entry} are for the container '{name}' ({names[place]})")
            present[place]["image"] = entry


def _places(wanted: str, repositories: Sequence[str]) -> list[int]:
    whole = [at for at, name in enumerate(repositories) if name == wanted]
    last = wanted.rpartition("/")[2]
    return whole or [at for at, name in enumerate(repositories) if name.rpartition("/")[2] == last]


def _wrong(message: str) -> StageFailed:
    return StageFailed(message, kind=CauseKind.CONFIG)
