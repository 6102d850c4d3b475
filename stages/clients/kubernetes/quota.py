"""Whether so many more pods fit into the quotas of a namespace: pure functions of what the cluster says."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from stages.clients.kubernetes.objects import Object, dig

__all__ = ["more_pods", "quantity", "shortages"]

_QUANTITY = re.compile(r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)")
_SCALES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_RUNNING = {"Deployment", "StatefulSet", "ReplicaSet"}


def quantity(text: object) -> Decimal:
    """`100m`, `1.5Gi` as a number (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/).

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"'{text}' is no quantity")
    return Decimal(match[1]) * _SCALES[match[2]]


def more_pods(wanted: Object, present: Object | None) -> int:
    """How many pods a workload will have more than now, once it is rolled out."""
    if wanted["kind"] not in _RUNNING:
        return 1 if present is None else 0
    return _replicas(wanted, present) - (_replicas(present, None) if present else 0)


def _replicas(thing: Object, fallback: Object | None) -> int:
    count = dig(thing, "spec", "replicas")
    if count is None:
        count = dig(fallback, "spec", "replicas")  # left to an autoscaler
    return count if isinstance(count, int) else 1


def shortages(quotas: Sequence[Object], pod: Object, count: int) -> Iterator[str]:
    """What `count` such pods would take too much of, a line each. Quotas with a scope are left to the cluster."""
    for quota in quotas:
        if dig(quota, "spec", "scopes") or dig(quota, "spec", "scopeSelector"):
            continue
        hard, used = dig(quota, "status", "hard") or {}, dig(quota, "status", "used") or {}
        for resource, limit in hard.items():
            need = _use(pod, resource) * count
            left = quantity(limit) - quantity(used.get(resource, 0))
            if need and need > left:
                name = quota["metadata"]["name"]
                rest = _shown(max(left, Decimal(0)))
                yield f"{resource}: {count} pods need {_shown(need)}, the quota {name} has {rest} left"


def _use(pod: Object, resource: str) -> Decimal:
    """What one pod takes of a resource that quotas count; of those that no pod takes it is nothing.

    Containers and sidecars add up; an init container runs alone with the sidecars before it, and the largest counts
    (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers).
    """
    if resource in ("pods", "count/pods"):
        return Decimal(1)
    group, _, name = resource.partition(".")
    if group not in ("requests", "limits"):
        group, name = "requests", resource
    spec = pod["spec"]
    beginning = together = Decimal(0)
    for each in spec.get("initContainers") or ():
        if each.get("restartPolicy") == "Always":
            together += _of(each, group, name)
        else:
            beginning = max(beginning, together + _of(each, group, name))
    together += sum(_of(each, group, name) for each in spec.get("containers") or ())
    return max(beginning, together)


def _of(container: Object, group: str, name: str) -> Decimal:
    return quantity(dig(container, "resources", group, name) or 0)


def _shown(value: Decimal) -> str:
    for unit in ("Gi", "Mi"):
        if value and value % _SCALES[unit] == 0:
            return f"{(value / _SCALES[unit]).normalize():f}{unit}"
    return f"{value.normalize():f}"
