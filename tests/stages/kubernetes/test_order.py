"""In which order objects go out."""

from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.order import batches


def some(*kinds: str) -> list[Manifest]:
    return [
        Manifest({"apiVersion": "v1", "kind": kind, "metadata": {"name": f"n{at}"}}, "f", at)
        for at, kind in enumerate(kinds)
    ]


def test_what_others_refer_to_goes_first_and_the_order_of_the_files_is_kept() -> None:
    kinds = ("Widget", "Deployment", "Service", "ConfigMap", "Namespace", "CustomResourceDefinition", "Secret", "Job")
    found = [(name, [each.ref.kind for each in members]) for name, members in batches(some(*kinds))]
    assert found == [
        ("namespaces", ["Namespace"]),
        ("definitions", ["CustomResourceDefinition"]),
        ("configuration", ["ConfigMap", "Secret"]),
        ("services", ["Service"]),
        ("workloads", ["Deployment", "Job"]),
        ("rest", ["Widget"]),
    ]


def test_a_large_batch_is_cut_so_that_a_cancel_waits_seconds_only() -> None:
    found = batches(some(*["ConfigMap"] * 120))
    assert [(name, len(members)) for name, members in found] == [
        ("configuration", 50),
        ("configuration 1", 50),
        ("configuration 2", 20),
    ]
