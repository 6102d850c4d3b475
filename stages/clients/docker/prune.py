"""Which images of older runs may go, and taking them away."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.stage import RunInfo
from stages.clients.docker.engine import Engine

__all__ = ["Kept", "outdated", "prune"]

LABEL_PIPELINE = "pipe.pipeline"
LABEL_RUN = "pipe.run"
LABEL_IMAGE = "pipe.image"


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that a run made: its id, its names, and the run's ULID, which sorts by time."""

    id: str
    run: str
    names: frozenset[str] = frozenset()


def outdated(images: Iterable[Kept], run: str, keep: int, protect: Iterable[str] = ()) -> list[Kept]:
    """Those images that are of none of the `keep` newest runs, and not in `protect` by id, name or digest.

    `run` is one of the runs, whether it has made its image yet or not.
    """
    images = list(images)
    newest = set(sorted({run, *(image.run for image in images)}, reverse=True)[: max(keep, 1)])
    protected = set(protect)
    return [image for image in images if image.run not in newest and not ({image.id} | image.names) & protected]


def prune(env: Mapping[str, str], run: RunInfo, repository: str, keep: int, protect: Iterable[str] = ()) -> int:
    """Remove what runs of its pipeline older than `run` left of one repository; returns how many images went.

    An image stays that a container (running or not) was made from, or that `protect` names.

    Raises:
        StageErrored: no engine answers.
    """
    from docker.errors import APIError

    removed = 0
    with Engine(env, {}).connect() as client:
        # an engine takes its time for every image that it lists
        labels = [f"{LABEL_PIPELINE}={run.pipeline}", f"{LABEL_IMAGE}={repository}"]
        images = [_kept(item) for item in client.images(filters={"label": labels})]
        old = outdated(images, run.id, keep, protect)
        used = {str(container.get("ImageID")) for container in client.containers(all=True)} if old else set()
        for image in old:
            if image.id in used:
                continue
            for name in _own_names(image, repository) or [image.id]:
                with contextlib.suppress(APIError):  # somebody took it into use, or removed it, meanwhile
                    client.remove_image(name)
                    removed += 1
    return removed


def _kept(item: Mapping[str, Any]) -> Kept:
    names = [*(item.get("RepoTags") or ()), *(item.get("RepoDigests") or ())]
    digests = [name.partition("@")[2] for name in names if "@" in name]
    return Kept(str(item["Id"]), str((item.get("Labels") or {}).get(LABEL_RUN, "")), frozenset([*names, *digests]))


def _own_names(image: Kept, repository: str) -> list[str]:
    return sorted(name for name in image.names if "@" not in name and _without_tag(name) == repository)


def _without_tag(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
