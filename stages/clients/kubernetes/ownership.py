"""Who owns which fields of an object: pure functions of what it says itself (`metadata.managedFields`).

https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

from stages.clients.kubernetes.objects import Object
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Claim", "adopted", "claims", "is_applied_by", "kubectl_appliers", "owners", "taken_by", "without"]

_CONFLICT = "FieldManagerConflict"
_OWNER = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
_KUBECTL = "kubectl-client-side-apply"
_LAST_APPLIED = ("f:metadata", "f:annotations", "f:kubectl.kubernetes.io/last-applied-configuration")


@dataclass(frozen=True, slots=True)
class Claim:
    """A field of which an apply wants another value than its owner gave it."""

    field: str
    """As the cluster writes it: `.spec.template.spec.containers[name="app"].image`."""
    owner: str
    """The field manager."""
    says: str
    """The owner in the cluster's words: `"hpa" using apps/v1`."""


def claims(answer: object) -> list[Claim]:
    """The fields that kept the cluster from an apply; none if it is not about fields."""
    causes = answer.causes if isinstance(answer, ApiError) and answer.status == 409 else []
    return [_claim(cause) for cause in causes if cause.get("reason") == _CONFLICT]


def _claim(cause: Mapping[str, str]) -> Claim:
    message = cause.get("message", "")
    owner = _OWNER.match(message)
    return Claim(cause.get("field", ""), owner[1] if owner else "", message.removeprefix("conflict with "))


# -- fields ----------------------------------------------------------------------------------------

_ITEM = re.compile(r'\[((?:[^]"]|"(?:[^"\\]|\\.)*")*)]')
_KEY = re.compile(r'(\w*)=("(?:[^"\\]|\\.)*"|[^,]+)')


def without(thing: Object, fields: Collection[str]) -> Object:
    """A copy of an object without these fields, and without what then is empty."""
    copy = deepcopy(thing)
    for field in fields:
        _cut(copy, field)
    return copy


def _cut(value: Any, path: str) -> bool:
    """Take what a path names out of a value, and say whether it was there.

    Names may hold dots, so every key that the path may go on with is tried.
    """
    for key, rest in _steps(value, path):
        if rest and not _cut(value[key], rest):
            continue
        if not rest or not value[key]:
            del value[key]
        return True
    return False


def _steps(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """The keys that a path may go on with, and what is left of it then."""
    if isinstance(value, dict):
        for key in sorted(value, key=len, reverse=True):
            rest = path.removeprefix(f".{key}")
            if rest != path and rest[:1] in ("", ".", "["):
                yield key, rest
    elif isinstance(value, list) and (found := _ITEM.match(path)):
        at = _at(value, found[1])
        if at is not None:
            yield at, path[found.end() :]


def _at(items: list[Any], key: str) -> int | None:
    """Where the item is that `name="app"`, `="a set's member"` or a plain number means."""
    if key.isdigit():
        return int(key) if int(key) < len(items) else None
    wanted = {name: json.loads(text) for name, text in _KEY.findall(key)}
    if "" in wanted:
        return items.index(wanted[""]) if wanted[""] in items else None
    fits = [at for at, item in enumerate(items) if isinstance(item, dict) and _fits(item, wanted)]
    # What an item does not say is a default of the cluster's (`protocol`).
    return max(fits, key=lambda at: len(wanted.keys() & items[at].keys()), default=None)


def _fits(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    said = wanted.keys() & item.keys()
    return bool(said) and all(item[name] == wanted[name] for name in said)


# -- owners ----------------------------------------------------------------------------------------


def _entries(thing: Object) -> list[Object]:
    return thing["metadata"].get("managedFields") or []


def _has(entry: Object, path: tuple[str, ...]) -> bool:
    fields = entry.get("fieldsV1") or {}
    for name in path:
        if name not in fields:
            return False
        fields = fields[name]
    return True


def owners(thing: Object, *path: str) -> set[str]:
    """The managers that own a field, by the names on the way to it: `owners(thing, "spec", "replicas")`."""
    names = tuple(f"f:{name}" for name in path)
    return {str(entry.get("manager")) for entry in _entries(thing) if _has(entry, names)}


def is_applied_by(thing: Object, manager: str) -> bool:
    """Whether a manager has ever applied it, server-side."""
    return any((each.get("manager"), each.get("operation")) == (manager, "Apply") for each in _entries(thing))


_OURS = frozenset({"pipe", "pipe-handover"})
"""The managers by whose names we write."""
_CONTROLLERS = frozenset(
    {"kube-controller-manager", "cloud-controller-manager", "kube-scheduler", "kubelet", "k3s", "kubelite"}
    # a restart or an undo by hand makes nothing anybody's
    | {"kubectl-rollout"}
)
"""Managers that work on objects for whoever owns them."""
_CLAIMS = re.compile(r"f:(app\.kubernetes\.io/managed-by|meta\.helm\.sh/.*|argocd\.argoproj\.io/tracking-id)")
"""Labels and annotations by which a tool says that an object is its own."""


def taken_by(thing: Object) -> str:
    """Who has made an object that we applied their own: their field manager; empty: nobody, as far as it says.

    That is whoever has written of its content since our last apply, and whoever applies it as well or has put the mark
    of a tool on it, whenever that was: an apply that changed nothing has no time. Status, scale and what controllers
    note beside the content are nobody's claim. Times are in whole seconds: one of the same second counts as later.
    """
    entries = [entry for entry in _entries(thing) if not entry.get("subresource")]
    ours = [each for each in entries if each.get("manager") in _OURS]
    others = [each for each in entries if each.get("manager") not in _OURS | _CONTROLLERS]
    applied = max((_time(each) for each in ours if _is_apply(each)), default="")
    marks = {mark for each in ours for mark in _marks(each)}
    theirs = (each for each in others if _marks(each) - marks or _is_apply(each) or _wrote_since(applied, each))
    return next((str(entry.get("manager")) for entry in theirs), "")


def _time(entry: Object) -> str:
    return str(entry.get("time") or "")


def _is_apply(entry: Object) -> bool:
    return entry.get("operation") == "Apply"


def _wrote_since(time: str, entry: Object) -> bool:
    content = (entry.get("fieldsV1") or {}).keys() - {"f:metadata", "f:status"}
    return _time(entry) >= time and (bool(content) or _has(entry, _LAST_APPLIED))


def _marks(entry: Object) -> set[str]:
    metadata = (entry.get("fieldsV1") or {}).get("f:metadata") or {}
    names = {*(metadata.get("f:labels") or ()), *(metadata.get("f:annotations") or ())}
    return set(filter(_CLAIMS.fullmatch, names))


def kubectl_appliers(thing: Object) -> frozenset[str]:
    """The managers by whose name `kubectl apply` has written an object, client-side.

    Besides its usual name that is whoever owns the annotation with the configuration applied last: the rule of
    kubectl's own migration (`FindFieldsOwners` of k8s.io/client-go/util/csaupgrade).
    """
    return frozenset(
        str(entry["manager"])
        for entry in _entries(thing)
        if _is_client_side(entry) and (entry["manager"] == _KUBECTL or _has(entry, _LAST_APPLIED))
    )


def _is_client_side(entry: Object) -> bool:
    return entry.get("operation") == "Update" and not entry.get("subresource")


def adopted(thing: Object, managers: Collection[str], manager: str) -> list[Object]:
    """The entries of an object as they are when a manager has applied what others have written client-side.

    So what its next apply leaves out is removed. The rule of k8s.io/client-go/util/csaupgrade: of several entries
    those of the newest one's API version are joined, the others dropped.
    """
    entries = _entries(thing)
    theirs = [entry for entry in entries if _is_client_side(entry) and entry.get("manager") in managers]
    newest = max(theirs, key=lambda entry: str(entry.get("time") or ""))
    sets = [each["fieldsV1"] for each in theirs if each.get("apiVersion") == newest.get("apiVersion")]
    ours = {**newest, "manager": manager, "operation": "Apply", "fieldsV1": reduce(_joined, sets)}
    return [ours, *(entry for entry in entries if entry not in theirs)]


def _joined(one: Object, other: Object) -> Object:
    """The union of two sets of fields. An empty one is a field alone, which `.` says beside fields inside of it."""
    both = {name: _joined(one.get(name, value), other.get(name, value)) for name, value in {**one, **other}.items()}
    return both if bool(one) == bool(other) else {".": {}, **both}
