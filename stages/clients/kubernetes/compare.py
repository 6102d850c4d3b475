"""What differs between two releases of a target: images, configuration and objects; of Secrets only that they do."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from stages.clients.kubernetes.config import CONFIG
from stages.clients.kubernetes.objects import RUN, Object, Ref, dig, pod_specs
from stages.clients.kubernetes.records import Part, overlaid

__all__ = ["compare"]

_QUIET = (RUN, CONFIG)
"""Annotations that follow from the run and from other objects."""


def compare(before: Sequence[Part], after: Sequence[Part]) -> list[str]:
    """One line a difference, object by object. The parts are those of the releases' states."""
    old, new = overlaid(before), overlaid(after)
    return [line for ref in dict.fromkeys((*old, *new)) for line in _object(ref, old.get(ref), new.get(ref))]


def _object(ref: Ref, old: Object | None, new: Object | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"{ref}: {'added' if old is None else 'left out'}"
        return
    yield from _images(ref, old, new)
    if ref.kind == "Secret":
        yield from _keys(ref, old, new)
        return
    for path, (was, now) in _leaves(_plain(old), _plain(new), ""):
        yield f"{ref}: {path.lstrip('.')}: {was} → {now}"


def _images(ref: Ref, old: Object, new: Object) -> Iterator[str]:
    was, now = _image_names(old), _image_names(new)
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) != now.get(name):
            yield f"{ref}: image of {name}: {was.get(name, '(none)')} → {now.get(name, '(none)')}"


def _containers(thing: Object) -> list[Object]:
    return [
        each for spec in pod_specs(thing) for key in ("initContainers", "containers") for each in spec.get(key) or ()
    ]


def _image_names(thing: Object) -> dict[str, str]:
    return {each["name"]: each.get("image", "") for each in _containers(thing)}


def _keys(ref: Ref, old: Object, new: Object) -> Iterator[str]:
    """Which keys of a Secret differ; what they hold is nobody's business here."""
    for field in ("data", "stringData"):
        was, now = old.get(field) or {}, new.get(field) or {}
        for key in dict.fromkeys((*was, *now)):
            if was.get(key) != now.get(key):
                how = "added" if key not in was else "left out" if key not in now else "changed"
                yield f"{ref}: key {key}: {how}"


def _plain(thing: Object) -> Object:
    """An object without what every run writes anew, and without its containers' images."""
    plain = deepcopy(thing)
    plain["metadata"] = _quiet(plain["metadata"])
    template = dig(plain, "spec", "template")
    if isinstance(template, dict) and isinstance(template.get("metadata"), dict):
        template["metadata"] = _quiet(template["metadata"])
    for container in _containers(plain):
        container.pop("image", None)
    return plain


def _quiet(metadata: Mapping[str, Any]) -> Object:
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in _QUIET}
    return {**metadata, "annotations": annotations}


def _leaves(old: Any, new: Any, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """The paths at which two values differ, as deep as both have the same shape."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _leaves(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            name = was.get("name") if isinstance(was, dict) else None
            yield from _leaves(was, now, f"{path}[{name or index}]")
    elif old != new:
        yield path, (_shown(old), _shown(new))


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
