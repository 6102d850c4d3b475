"""What a chart renders to: objects with the template that each comes from, read as kindly as Helm reads them.

Also run as a program, between Helm's rendering and its applying: `python -m stages.clients.helm.rendered IMAGE…` puts
each image in its place of the objects on stdin and changes not a character besides.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.images import containers, replace_images
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import dig
from stages.clients.kubernetes.scalars import PLAIN, Loader, plain

__all__ = ["Rendered", "read_rendered", "with_images"]

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_SOURCE = re.compile(r"^# Source: (\S+)", re.MULTILINE)
_HOOK = "helm.sh/hook"


class _Placed(str):
    """Text that knows where in the whole it stands."""

    __slots__ = ("span",)
    span: tuple[int, int]


class _Loader(Loader):
    """Reads scalars as Kubernetes does, and takes what charts are full of: a key that stands twice."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012
        **Loader.yaml_implicit_resolvers,
        "<": [(_MERGE, re.compile("^<<$"))],
    }


def _plain(_: _Loader, node: yaml.ScalarNode) -> Any:
    value = plain(node.value)
    return _placed(node) if isinstance(value, str) else value


def _text(_: _Loader, node: yaml.ScalarNode) -> str:
    return _placed(node)


def _placed(node: yaml.ScalarNode) -> _Placed:
    text = _Placed(node.value)
    text.span = (node.start_mark.index, node.end_mark.index)
    return text


_Loader.add_constructor(PLAIN, _plain)
_Loader.add_constructor(_TEXT, _text)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of a chart, and those that Helm handles apart because they are hooks."""

    manifests: tuple[Manifest, ...]
    hooks: tuple[Manifest, ...] = ()


def read_rendered(text: str) -> Rendered:
    """Read what `helm template` or the record of a revision has.

    Raises:
        StageFailed: (config) it is no YAML, or a document in it is no object.
    """
    sorts: dict[bool, list[Manifest]] = {False: [], True: []}
    for manifest in _manifests(text):
        sorts[bool(dig(manifest.object, "metadata", "annotations", _HOOK))].append(manifest)
    return Rendered(tuple(sorts[False]), tuple(sorts[True]))


def _manifests(text: str) -> Iterator[Manifest]:
    sources = [(match.start(), match[1]) for match in _SOURCE.finditer(text)]
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            file = next((name for at, name in reversed(sources) if at <= node.start_mark.index), "the chart")
            items = value.get("items") if str(dig(value, "kind")).endswith("List") else None
            for thing in items if isinstance(items, list) else [value]:
                if thing is not None and _has_name(thing, file):
                    yield Manifest(thing, file, 0)
    except yaml.YAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if getattr(error, "problem_mark", None) else ""  # type: ignore[attr-defined]
        raise StageFailed(f"what the chart renders to is no YAML{line}", kind=CauseKind.CONFIG) from error
    finally:
        loader.dispose()


def _has_name(thing: object, file: str) -> bool:
    """Whether it can be followed by its name; raises StageFailed for what is no object."""
    if isinstance(thing, dict) and all(isinstance(thing.get(key), str) for key in ("apiVersion", "kind")):
        metadata = thing.get("metadata")
        placed = isinstance(dig(metadata, "namespace") or "", str)
        if placed and isinstance(metadata, dict) and ("name" in metadata or "generateName" in metadata):
            return isinstance(metadata.get("name"), str)
    needs = "it needs apiVersion, kind and metadata.name, and metadata.namespace must be text"
    message = f"{file} renders to what is no Kubernetes object: {needs}"
    raise StageFailed(message, kind=CauseKind.CONFIG)


# -- images ----------------------------------------------------------------------------------------


def with_images(text: str, images: Sequence[str]) -> str:
    """The same text with each image in the place of those of its repository, as `deploy` does it.

    Hooks keep theirs: Helm 4 shows them here and Helm 3 does not, and a chart must not depend on that.

    Raises:
        StageFailed: (config) an image is for no container, or a container has two.
    """
    objects = [manifest.object for manifest in read_rendered(text).manifests]
    places = [(container, container["image"]) for container in containers(objects)]
    replace_images(objects, images)
    changes = {old.span: container["image"] for container, old in places if container["image"] is not old}
    parts, at = [], 0
    for (start, end), image in sorted(changes.items()):
        parts += [text[at:start], json.dumps(image)]
        at = end
    return "".join([*parts, text[at:]])


def _main(images: Sequence[str]) -> int:
    try:
        sys.stdout.write(with_images(sys.stdin.read(), images))
    except StageFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
