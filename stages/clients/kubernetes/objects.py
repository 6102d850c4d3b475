"""Kubernetes objects as plain dicts: how to name one and where its pods are described."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "MANAGED_BY",
    "NAMESPACE",
    "RUN",
    "Object",
    "Ref",
    "dig",
    "identity",
    "is_namespace",
    "pod_specs",
    "references",
]

Object: TypeAlias = dict[str, Any]

RUN = "pipe-ci/run"
"""The annotation on every object that a deploy wrote: the id of the run."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "pipe"}
"""The label on objects that no manifest describes and that pipe made itself: namespaces and pull secrets."""


NAMESPACE = "at most 63 small letters, digits and hyphens, with a letter or digit at both ends"
"""What is_namespace asks for, in words."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_namespace(name: str) -> bool:
    """Whether a namespace can be called so: a DNS label (RFC 1123).

    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
    """
    return _LABEL.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Ref:
    """Which object: its API version, kind, namespace (empty for those of the whole cluster) and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def group(self) -> str:
        """The API group, empty for the core one."""
        return self.api_version.rpartition("/")[0]


def identity(thing: Mapping[str, Any]) -> Ref:
    """The Ref of an object that has a kind and a name."""
    metadata = thing.get("metadata") or {}
    return Ref(thing["apiVersion"], thing["kind"], metadata.get("namespace") or "", metadata["name"])


def dig(thing: object, *path: str) -> Any:
    """The value at a path of keys, or None when a part of it is missing."""
    for key in path:
        if not isinstance(thing, Mapping):
            return None
        thing = thing.get(key)
    return thing


def pod_specs(thing: object) -> Iterator[Object]:
    """Every pod spec inside an object of any kind: what has a list of named `containers`."""
    if isinstance(thing, dict):
        containers = thing.get("containers")
        if isinstance(containers, list) and all(isinstance(each, dict) and "name" in each for each in containers):
            yield thing
        for value in thing.values():
            yield from pod_specs(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from pod_specs(value)


def references(thing: Mapping[str, Any]) -> Iterator[str]:
    """The uids of an object's owners."""
    for owner in dig(thing, "metadata", "ownerReferences") or ():
        yield owner.get("uid", "")
