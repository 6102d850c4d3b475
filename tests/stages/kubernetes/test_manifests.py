"""Files to objects."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.apply import annotate
from stages.clients.kubernetes.config import mark_config
from stages.clients.kubernetes.images import replace_images
from stages.clients.kubernetes.manifests import Manifest, read_manifests
from stages.clients.kubernetes.order import waves
from stages.clients.kubernetes.pull_secret import wanted
from stages.clients.kubernetes.scalars import Variables

MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p"


def read(text: str, **values: str) -> list[Manifest]:
    return read_manifests({"deploy.yml": text}, Variables(values))


def one(text: str, **values: str) -> dict[str, Any]:
    (manifest,) = read(MAP + text, **values)
    return manifest.object


def problems(text: str, **values: str) -> list[str]:
    with pytest.raises(StageFailed) as caught:
        read(text, **values)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert str(caught.value).startswith(caught.value.cause.evidence[0])
    return list(caught.value.cause.evidence)


def test_documents_and_lists_are_unfolded_each_with_its_line() -> None:
    text = f"---\n{MAP}---\n# nothing\n---\nkind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {{name: p}}\n"
    assert [(str(each.ref), each.place) for each in read(text)] == [
        ("ConfigMap c", "deploy.yml:2"),
        ("Pod p", "deploy.yml:11"),
    ]


def test_a_value_can_add_no_yaml() -> None:
    evil = "x\nkind: Secret\n---\n{a: b} # *"
    assert one("data: {a: $EVIL, b: 'x $EVIL'}", EVIL=evil)["data"] == {"a": evil, "b": f"x {evil}"}


def test_a_variable_alone_is_typed_where_kubernetes_may_want_a_number() -> None:
    found = one("spec: {replicas: $N, quoted: '$N', paused: $B, mixed: a$N}\nport: ${N}", N="3", B="true")
    assert found["spec"] == {"replicas": 3, "quoted": "3", "paused": True, "mixed": "a3"}
    assert found["port"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "data: {key: $N}",
        "labels: {key: $N}",
        "env: [{name: A, value: $N}]",
        "args: [$N]",
        "matchLabels: {key: $N}",
        "image: $N",
        "name: $N",
    ],
)
def test_a_variable_stays_text_where_kubernetes_takes_nothing_else(text: str) -> None:
    assert "8080" in str(one(f"spec: {{{text}}}", N="8080")).replace("'8080'", "8080")
    assert "'8080'" in str(one(f"spec: {{{text}}}", N="8080"))


def test_all_unset_names_are_told_at_once_with_file_line_and_column() -> None:
    text = f'{MAP}data:\n  script: |\n    echo $HOST\n    echo ${{PORT}} $$PID\n  url: "http://\\\n    $HOST"\n'
    assert problems(text, POST="1") == [
        "deploy.yml:6:10: the variable $HOST is not set; did you mean $POST?",
        "deploy.yml:7:10: the variable $PORT is not set; did you mean $POST?",
        "deploy.yml:9:5: the variable $HOST is not set; did you mean $POST?",
    ]


def test_a_name_nearest_to_an_unset_one_is_offered() -> None:
    assert problems(f"{MAP}data: {{a: $REGISTRI}}", REGISTRY="r") == [
        "deploy.yml:4:11: the variable $REGISTRI is not set; did you mean $REGISTRY?"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "deploy.yml:1:5: this is no YAML"),
        ("a:\n\t- b", "deploy.yml:2:1: this is no YAML"),
        ("\x00", "deploy.yml: this is no YAML"),
        ("a: 'open", "deploy.yml:1:9: this is no YAML"),
        (f"{MAP}a: {{b: ${{B}}}}", 'put variables in quotes here: "${NAME}"'),
        ("a: *nobody", "deploy.yml:1:4: this is no YAML"),
        ("- a", "deploy.yml:1:1: this is no Kubernetes object: a mapping is expected here"),
        ("kind: Pod", "deploy.yml:1:1: this is no Kubernetes object: `apiVersion` is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}", "`metadata.name` of this Pod is missing"),
        (f"{POD}, annotations: a}}", "deploy.yml:3:34: `metadata.annotations` of this Pod must be a mapping: write"),
        (f"{POD}, labels: [a]}}", "deploy.yml:3:29: `metadata.labels` of this Pod must be a mapping: write"),
        (f"{POD}, namespace: {{a: b}}}}", "deploy.yml:3:32: `metadata.namespace` of this Pod must be text"),
        (f"{POD}, namespace: 7}}", "deploy.yml:3:32: `metadata.namespace` of this Pod must be text: put it in quotes"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 7}", "deploy.yml:3:18: `metadata.name` of this Pod must be text"),
        (f"{MAP}a: 1\na: 2", "deploy.yml:5:1: the key 'a' stands twice in one mapping"),
        (f"{MAP}a: !vault x", "deploy.yml:4:4: the tag !vault means nothing to Kubernetes"),
        (f"{MAP}<<: 3", "`<<` takes over a mapping"),
        ("a: " + "[" * 100_000, "too many levels"),
        ("a: &a [*a]", "too large once its aliases are unfolded"),
        (f"{MAP}---\n{MAP}", "deploy.yml:5: ConfigMap c is written twice, first at deploy.yml:1"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


def test_everything_that_is_odd_in_the_metadata_of_one_object_is_told_at_once() -> None:
    said = problems(f"{POD}, namespace: [n], labels: l, annotations: 3}}")
    assert [line.split("`")[1] for line in said] == ["metadata.namespace", "metadata.annotations", "metadata.labels"]


def test_metadata_may_leave_out_a_part_by_null() -> None:
    (pod,) = read(f"{POD}, namespace: null, labels: null, annotations: null}}")
    annotate([pod], "run", {})
    assert (pod.ref.namespace, list(pod.object["metadata"]["annotations"].values())) == ("", ["run"])


def test_items_that_a_merge_takes_over_have_the_place_of_their_document() -> None:
    text = f"apiVersion: v1\nkind: List\nx: &x\n  items:\n  - {{apiVersion: v1, kind: Pod, {POD[25:]}}}}}\n<<: *x\n"
    assert [(str(each.ref), each.place) for each in read(f"---\n{text}")] == [("Pod p", "deploy.yml:2")]


def test_the_problems_of_all_files_come_together() -> None:
    with pytest.raises(StageFailed) as caught:
        read_manifests({"a.yml": "a: b: c", "b.yml": f"{MAP}x: $GONE"}, Variables({}))
    assert [problem.split(":")[0] for problem in caught.value.cause.evidence] == ["a.yml", "b.yml"]
    assert "(and 1 more)" in str(caught.value)


def test_anchors_and_merge_keys_work_as_for_kubectl() -> None:
    found = one("base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\nboth: {<<: [{c: 1}, {c: 2, d: 4}]}")
    assert found["more"] == {"a": 1, "b": 3}
    assert found["both"] == {"c": 1, "d": 4}


def test_keys_are_text_and_may_hold_variables() -> None:
    assert one("data: {1: a, yes: b, $NAME: c}", NAME="web")["data"] == {"1": "a", "true": "b", "web": "c"}


def test_dates_and_explicit_tags_are_kept() -> None:
    found = one("at: 2024-01-01\ntext: !!str 12\nnumber: !!int '3'")
    assert (found["at"], found["text"], found["number"]) == ("2024-01-01", "12", 3)


# -- whatever stands in a manifest -----------------------------------------------------------------

WORDS = [
    *("name", "image", "env", "envFrom", "valueFrom", "configMapKeyRef", "configMapRef", "secretRef", "volumes"),
    *("configMap", "projected", "sources", "template", "metadata", "annotations", "labels", "namespace", "spec"),
    *("containers", "imagePullSecrets", "pipe-ci/wave"),
]
SCALARS = st.sampled_from(["c", "s", "x:1", "", None, 3, 1.5, True])
ODD = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


def either(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is meant there, or anything else."""
    return st.integers(0, 11).flatmap(lambda drawn: sound if drawn else ODD)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A mapping with all of these fields, or with some of them."""
    return either(st.fixed_dictionaries(fields) | st.fixed_dictionaries({}, optional=fields))


REFERENCE = some(name=either(st.sampled_from("cs")))
SOURCES = some(configMapRef=REFERENCE, secretRef=REFERENCE, configMap=REFERENCE, secret=REFERENCE)
VARIABLES = some(name=ODD, valueFrom=some(configMapKeyRef=REFERENCE, secretKeyRef=REFERENCE))
CONTAINERS = st.lists(
    some(
        name=st.just("a"),
        image=either(st.just("x:1")),
        env=either(st.lists(VARIABLES, max_size=2)),
        envFrom=either(st.lists(SOURCES, max_size=2)),
    ),
    max_size=2,
)
VOLUMES = st.lists(SOURCES | some(projected=some(sources=either(st.lists(SOURCES, max_size=2)))), max_size=2)
PODS = some(
    containers=either(CONTAINERS),
    initContainers=either(CONTAINERS),
    volumes=either(VOLUMES),
    imagePullSecrets=either(st.lists(some(name=either(st.just("pull"))), max_size=2)),
)
ANY = either(st.dictionaries(st.sampled_from(WORDS), ODD, max_size=2))
METADATA = st.fixed_dictionaries(
    {"name": either(st.just("web"))},
    optional={"namespace": either(st.just("his")), "labels": ANY, "annotations": ANY},
)
SPECS = some(template=some(metadata=some(annotations=ANY, labels=ANY), spec=PODS))


def document(kind: str, name: str, **fields: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields})


@settings(max_examples=300, deadline=2000)
@given(METADATA, SPECS, st.sampled_from([[], ["x:2"], ["x:2", "x:3"]]))
def test_whatever_stands_below_metadata_and_spec_is_read_or_refused(
    metadata: object, spec: object, images: list[str]
) -> None:
    texts = [document("ConfigMap", "c"), document("Secret", "s"), document("Deployment", "web", spec=spec)]
    texts.append(document("StatefulSet", "web", metadata=metadata, spec=spec))
    with suppress(StageFailed):
        manifests = read("\n---\n".join(texts))
        objects = [manifest.object for manifest in manifests]
        replace_images(objects, images)
        annotate(manifests, "run", {"a": "b"})
        mark_config(objects, "his")
        waves(manifests)
        wanted(manifests, images)
