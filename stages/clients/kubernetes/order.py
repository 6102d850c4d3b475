"""In which order objects are applied: by the waves that manifests name, and in each by kinds."""

import re
from collections.abc import Sequence
from itertools import groupby

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.manifests import Manifest

__all__ = ["CRD", "WAVE", "batches", "waves"]

WAVE = "pipe-ci/wave"
"""The annotation with the number of an object's wave; 0 without it."""
_NUMBER = re.compile(r"-?\d{1,6}")

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
_FIRST = _ORDER["namespaces"] | _ORDER["definitions"]
_REST = "rest"
_NAMES = [*_ORDER, _REST]
# Keeps one effect within the 8 seconds that a cancel waits, and its proof within 64 KiB.
_BATCH = 50


def waves(manifests: Sequence[Manifest]) -> list[tuple[int, list[Manifest]]]:
    """The manifests by the numbers of their waves, the lowest first; one wave is done before the next begins.

    Namespaces and definitions are in the first one, whatever they say: the others need them.

    Raises:
        StageFailed: (config) an annotation is no whole number.
    """
    wrong = [each for each in manifests if not _NUMBER.fullmatch(_said(each))]
    if wrong:
        problems = [f"{each.place}: {WAVE} of {each.ref} must be a whole number, not '{_said(each)}'" for each in wrong]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StageFailed(problems[0] + more, kind=CauseKind.CONFIG, evidence=problems)
    first = min((int(_said(each)) for each in manifests), default=0)

    def number(manifest: Manifest) -> int:
        return first if manifest.object["kind"] in _FIRST else int(_said(manifest))

    return [(wave, list(members)) for wave, members in groupby(sorted(manifests, key=number), key=number)]


def _said(manifest: Manifest) -> str:
    return str((manifest.object["metadata"].get("annotations") or {}).get(WAVE, "0"))


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
