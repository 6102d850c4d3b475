"""Pods that start again when their configuration has changed: its hash stands on the template that they are made of."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from stages.clients.kubernetes.objects import Object, dig

__all__ = ["CONFIG", "mark_config"]

CONFIG = "pipe-ci/config"
"""The annotation on a pod template: a hash of the ConfigMaps and Secrets of the same deploy that its pods name."""

_RESTARTED = ("Deployment", "StatefulSet", "DaemonSet")
"""Kinds that make new pods when their template changes; that of a Job cannot change at all."""
_DATA = ("data", "binaryData", "stringData", "immutable")
# A Secret's hash can be read by those who may read no Secret: guessing at a short password has to be slow.
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 20}


def mark_config(objects: Sequence[Object], namespace: str) -> None:
    """Put the hash on the template of every workload that names configuration of the same deploy, in place.

    `namespace` is that of objects that name none. Blocks, some 50 ms for each Secret.
    """
    workloads = [thing for thing in objects if thing["kind"] in _RESTARTED]
    known = {_key(thing, namespace): thing for thing in objects if thing["kind"] in ("ConfigMap", "Secret")}
    hashes: dict[tuple[str, str, str], str] = {}
    for workload in workloads:
        place = workload["metadata"].get("namespace") or namespace
        named = sorted({(kind, place, name) for kind, name in _named(dig(workload, "spec", "template", "spec"))})
        for key in named:
            if key in known and key not in hashes:
                hashes[key] = _hash(known[key], "/".join(key))
        found = [[*key, hashes[key]] for key in named if key in known]
        if found:
            _annotate(workload["spec"]["template"], hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16])


def _key(thing: Object, namespace: str) -> tuple[str, str, str]:
    metadata = thing["metadata"]
    return thing["kind"], metadata.get("namespace") or namespace, metadata["name"]


def _named(spec: object) -> Iterator[tuple[str, str]]:
    """Kind and name of every ConfigMap and Secret that pods of this spec read."""
    for container in (*_listed(spec, "initContainers"), *_listed(spec, "containers")):
        for source in _listed(container, "envFrom"):
            yield from _of(source, "configMapRef", "secretRef")
        for variable in _listed(container, "env"):
            yield from _of(dig(variable, "valueFrom"), "configMapKeyRef", "secretKeyRef")
    for volume in _listed(spec, "volumes"):
        for source in (volume, *_listed(volume, "projected", "sources")):
            yield from _of(source, "configMap", "secret")


def _listed(thing: object, *path: str) -> list[Any]:
    """The list at a path of keys; what is none the cluster refuses, with its own words."""
    found = dig(thing, *path)
    return found if isinstance(found, list) else []


def _of(source: object, config: str, secret: str) -> Iterator[tuple[str, str]]:
    for kind, key in (("ConfigMap", config), ("Secret", secret)):
        name = dig(source, key, "name") or dig(source, key, "secretName")
        if name and isinstance(name, str):
            yield kind, name


def _hash(thing: Object, salt: str) -> str:
    data = json.dumps({key: thing.get(key) for key in _DATA}, sort_keys=True, default=str).encode()
    if thing["kind"] == "ConfigMap":
        return hashlib.sha256(data).hexdigest()
    return hashlib.scrypt(data, salt=salt.encode(), **_SCRYPT).hex()


def _annotate(template: Object, value: str) -> None:
    metadata = _mapping(template.get("metadata"))
    annotations = _mapping(dig(metadata, "annotations"))
    if metadata is not None and annotations is not None:
        template["metadata"] = {**metadata, "annotations": {**annotations, CONFIG: value}}


def _mapping(value: object) -> Object | None:
    """A mapping that may be left out; None for anything else, which is to reach the cluster as it is written."""
    found = {} if value is None else value
    return found if isinstance(found, dict) else None
