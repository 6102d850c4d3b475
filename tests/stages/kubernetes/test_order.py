"""In which order objects go out."""

import pytest

from pipeline.stage import StageFailed
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.order import WAVE, batches, waves


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


def waved(*given: tuple[str, object]) -> list[Manifest]:
    return [
        Manifest({"apiVersion": "v1", "kind": kind, "metadata": {"name": "n", "annotations": {WAVE: wave}}}, "f", at)
        for at, (kind, wave) in enumerate(given, 1)
    ]


def test_waves_go_by_their_numbers_and_what_names_none_is_in_wave_0() -> None:
    found = waves([*waved(("Job", "10"), ("Secret", "-1"), ("Namespace", "5"), ("Job", "2")), *some("Service")])
    assert [(wave, [each.ref.kind for each in members]) for wave, members in found] == [
        (-1, ["Secret", "Namespace"]),
        (0, ["Service"]),
        (2, ["Job"]),
        (10, ["Job"]),
    ]


def test_every_wave_that_is_no_number_is_refused_with_its_place() -> None:
    with pytest.raises(StageFailed) as refused:
        waves(waved(("Job", "soon"), ("Job", "1"), ("Secret", "1.5")))
    assert refused.value.cause.evidence == (
        "f:1: pipe-ci/wave of Job n must be a whole number, not 'soon'",
        "f:3: pipe-ci/wave of Secret n must be a whole number, not '1.5'",
    )
