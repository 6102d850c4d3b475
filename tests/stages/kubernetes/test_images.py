"""Which container gets which image."""

from typing import Any

import pytest

from pipeline.stage import StageFailed
from stages.clients.kubernetes.images import containers, registry, replace_images, repository


@pytest.mark.parametrize(
    ("image", "repo", "host"),
    [
        ("busybox", "busybox", "docker.io"),
        ("busybox:1", "busybox", "docker.io"),
        ("library/busybox:1", "library/busybox", "docker.io"),
        ("reg.example.com/a/b:1", "reg.example.com/a/b", "reg.example.com"),
        ("10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b", "10.0.0.1:5000"),
        ("localhost/a", "localhost/a", "localhost"),
        ("reg:5000/a/b:1@sha256:abc", "reg:5000/a/b", "reg:5000"),
        ("a/b@sha256:abc", "a/b", "docker.io"),
    ],
)
def test_an_image_has_a_repository_and_a_registry(image: str, repo: str, host: str) -> None:
    assert (repository(image), registry(image)) == (repo, host)


def workload(*images: str, init: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": f"c{at}", "image": image} for at, image in enumerate(images)]}
    if init:
        spec["initContainers"] = [{"name": "init", "image": init}]
    return {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}


@pytest.mark.parametrize(
    ("present", "entries", "after"),
    [
        (["reg/a/web:1"], ["reg/a/web:2@sha256:x"], ["reg/a/web:2@sha256:x"]),
        (["web"], ["reg/a/web:2"], ["reg/a/web:2"]),
        (["$R/$N/web:SNAPSHOT-$B"], ["reg/a/web:2"], ["reg/a/web:2"]),
        (["a/web:1", "b/web:1"], ["a/web:2"], ["a/web:2", "b/web:1"]),
        (["web:1", "nginx:1"], ["r/web:2"], ["r/web:2", "nginx:1"]),
        (["web:1", "web:1"], ["r/web:2"], ["r/web:2", "r/web:2"]),
        (["a/web:1", "b/web:1"], ["a/web:2", "b/web:3"], ["a/web:2", "b/web:3"]),
        (["myweb:1", "web:1"], ["r/web:2"], ["myweb:1", "r/web:2"]),
    ],
)
def test_an_entry_takes_its_whole_repository_else_the_last_part(
    present: list[str], entries: list[str], after: list[str]
) -> None:
    thing = workload(*present)
    replace_images([thing], entries)
    assert [each["image"] for each in containers(thing)] == after


def test_init_containers_count_too() -> None:
    thing = workload("other:1", init="web:1")
    replace_images([thing], ["r/web:2"])
    assert [each["image"] for each in containers(thing)] == ["r/web:2", "other:1"]


@pytest.mark.parametrize(
    ("present", "entries", "said"),
    [
        (["nginx:1", "db:2"], ["r/web:2"], "the image r/web:2 is used by no container; images present: db:2, nginx:1"),
        ([], ["r/web:2"], "images present: none"),
        (["web:1"], ["a/web:2", "b/web:3"], "both a/web:2 and b/web:3 are for the container 'c0' (web:1)"),
    ],
)
def test_an_entry_for_no_container_or_two_for_one_is_an_error(
    present: list[str], entries: list[str], said: str
) -> None:
    with pytest.raises(StageFailed) as caught:
        replace_images([workload(*present)], entries)
    assert said in str(caught.value)


def test_a_list_called_containers_that_holds_none_is_left_alone() -> None:
    assert containers({"spec": {"containers": ["a", "b"], "other": {"containers": {"image": "x"}}}}) == []


@pytest.mark.parametrize(
    ("init", "found"), [(3, ["r/a:1"]), ("x", ["r/a:1"]), ([{"image": "r/a:1"}, 7], ["r/a:1", "r/a:1"])]
)
def test_init_containers_that_are_none_have_no_image_and_one_without_a_name_has_one(
    init: object, found: list[str]
) -> None:
    odd = {"kind": "Pod", "spec": {"initContainers": init, "containers": [{"name": "b", "image": "r/a:1"}]}}
    assert [each["image"] for each in containers(odd)] == found
    with pytest.raises(StageFailed, match="both r/a:2 and r/a:3 are for the container"):
        replace_images([odd], ["r/a:2", "r/a:3"])
