"""In which order objects are applied."""

from collections.abc import Sequence
from itertools import groupby

from stages.clients.kubernetes.manifests import Manifest

__all__ = ["CRD", "batches"]

CRD = "CustomResourceDefinition"

# After Helm's InstallOrder (kind_sorter.go) and kapp's apply ordering: what others refer to goes first.
_ORDER = {
    "namespaces": {"Namespace"},
    "definitions": {CRD},
    "configuration": {
        *("NetworkPolicy", "ResourceQuota", "LimitRange", "PriorityClass", "StorageClass", "PersistentVolume"),
        *("ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim"),
        *("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    },
    "services": {"Service"},
    "workloads": {
        *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"),
        *("Pod", "Job", "CronJob"),
    },
}
_REST = "rest"
_NAMES = [*_ORDER, _REST]
# Keeps one effect within the 8 seconds that a cancel waits, and its proof within 64 KiB.
_BATCH = 50


def batches(manifests: Sequence[Manifest]) -> list[tuple[str, list[Manifest]]]:
    """The manifests in groups to be applied one after the other, each with a unique name."""
    result = []
    for name, group in groupby(sorted(manifests, key=_rank), key=_rank):
        members = list(group)
        parts = [members[start : start + _BATCH] for start in range(0, len(members), _BATCH)]
        result += [(f"{_NAMES[name]} {at}" if at else _NAMES[name], part) for at, part in enumerate(parts)]
    return result


def _rank(manifest: Manifest) -> int:
    kind = manifest.object["kind"]
    return next((at for at, kinds in enumerate(_ORDER.values()) if kind in kinds), len(_ORDER))
