"""Which pull secrets are wanted, and what is in them."""

import base64
import json
from typing import Any

import pytest

from pipeline.stage import Login
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.pull_secret import wanted, with_login


def manifest(kind: str, name: str, *images: str) -> Manifest:
    spec = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": f"c{at}", "image": image} for at, image in enumerate(images)],
    }
    thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "his"}}
    return Manifest({**thing, "spec": {"template": {"spec": spec}}} if images else thing, "f", 1)


PULL = Ref("v1", "Secret", "his", "pull")


def test_a_named_secret_is_wanted_for_the_registries_that_we_deploy_from() -> None:
    pods = manifest("Deployment", "web", "reg:5000/a/web:2", "nginx:1")
    assert wanted([pods], ["reg:5000/a/web:2"]) == {PULL: ["reg:5000"]}


def test_without_images_it_is_for_all_registries_of_the_pods() -> None:
    pods = [manifest("Deployment", "web", "b.example/web:2"), manifest("Job", "job", "a.example/job:1")]
    assert wanted(pods, []) == {PULL: ["a.example", "b.example"]}


def test_a_secret_that_a_manifest_describes_or_that_has_no_image_of_ours_is_not_wanted() -> None:
    described = manifest("Secret", "pull")
    assert wanted([manifest("Deployment", "web", "reg/web:2"), described], []) == {}
    assert wanted([manifest("Deployment", "web", "other.example/x:1")], ["reg:5000/web:2"]) == {}


@pytest.mark.parametrize("odd", [3, "pull", {"name": "pull"}, [None, "pull", {"name": ["pull"]}]])
def test_what_names_no_secret_or_image_is_left_to_the_cluster(odd: Any) -> None:
    pods = manifest("Deployment", "web", "reg:5000/web:2")
    spec = pods.object["spec"]["template"]["spec"]
    spec["initContainers"] = odd
    assert wanted([pods], []) == {PULL: ["reg:5000"]}
    spec["imagePullSecrets"] = odd
    assert wanted([pods], []) == {}


def auths(data: dict[str, str]) -> Any:
    return json.loads(base64.b64decode(data[".dockerconfigjson"]))["auths"]


def test_a_login_is_added_to_what_is_there_and_the_hub_has_its_own_name() -> None:
    first = with_login({}, ["reg:5000"], Login("me", "pässword"))
    both = with_login(first, ["docker.io"], Login("you", "x"))
    assert sorted(auths(both)) == ["https://index.docker.io/v1/", "reg:5000"]
    assert base64.b64decode(auths(both)["reg:5000"]["auth"]).decode() == "me:pässword"
    assert with_login(both, ["docker.io"], Login("you", "x")) == both


def test_what_cannot_be_read_is_written_anew() -> None:
    assert sorted(auths(with_login({".dockerconfigjson": "bm9wZQ=="}, ["reg"], Login("a", "b")))) == ["reg"]
