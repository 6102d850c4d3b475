"""The JSON schema says what the checker says: the same keys, the same kinds, a description on everything."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from pipeline.schema import schema
from tests.pipeline.fakes import KINDS
from tests.pipeline.test_traps import PAGES

SCHEMA = schema(KINDS)


def accepts(value: object, here: Mapping[str, Any] = SCHEMA) -> bool:
    """The few words of JSON schema that ours uses."""
    if "$ref" in here and not accepts(value, SCHEMA["$defs"][here["$ref"].rpartition("/")[2]]):
        return False
    return all(_RULES[word](value, rule, here) for word, rule in here.items() if word in _RULES)


def _type(value: object, rule: str | list[str], here: Mapping[str, Any]) -> bool:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    name = names.get(type(value), "null")
    wanted = [rule] if isinstance(rule, str) else rule
    return name in wanted or (name == "integer" and "number" in wanted)


def _properties(value: object, rule: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    return not isinstance(value, dict) or all(accepts(value[key], rule[key]) for key in rule if key in value)


def _patterns(value: object, rule: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    return all(
        accepts(item, inner)
        for pattern, inner in rule.items()
        for key, item in value.items()
        if re.search(pattern, str(key))
    )


def _additional(value: object, rule: Any, here: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    rest = [key for key in value if key not in here.get("properties", {})]
    rest = [
        key for key in rest if not any(re.search(pattern, str(key)) for pattern in here.get("patternProperties", {}))
    ]
    return (rule is not False and (rule is True or all(accepts(value[key], rule) for key in rest))) or not rest


def _if(value: object, rule: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    return accepts(value, here.get("then", {}) if accepts(value, rule) else here.get("else", {}))


_RULES: dict[str, Any] = {
    "type": _type,
    "properties": _properties,
    "patternProperties": _patterns,
    "additionalProperties": _additional,
    "if": _if,
    "required": lambda value, rule, _: not isinstance(value, dict) or set(rule) <= set(value),
    "enum": lambda value, rule, _: value in rule,
    "const": lambda value, rule, _: value == rule,
    "pattern": lambda value, rule, _: not isinstance(value, str) or bool(re.search(rule, value)),
    "items": lambda value, rule, _: not isinstance(value, list) or all(accepts(item, rule) for item in value),
    "anyOf": lambda value, rule, _: any(accepts(value, inner) for inner in rule),
    "oneOf": lambda value, rule, _: sum(accepts(value, inner) for inner in rule) == 1,
    "allOf": lambda value, rule, _: all(accepts(value, inner) for inner in rule),
    "minProperties": lambda value, rule, _: not isinstance(value, dict) or len(value) >= rule,
    "minimum": lambda value, rule, _: not isinstance(value, int) or value >= rule,
    "maximum": lambda value, rule, _: not isinstance(value, int) or value <= rule,
}


def read(text: str) -> object:
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", ["approvals", "backend", "frontend", "matrix"])
def test_the_pages_of_the_language_fit_the_schema(name: str) -> None:
    assert accepts(read((PAGES / f"{name}.yaml").read_text()))


STAGE = "name: a\nstages:\n  s: "
GOOD = [
    "{run: x}",
    "{run: [a, 1]}",
    "{run: x, with: {shell: bash}}",
    "{uses: push, with: {image: '${stages.i.ref}'}}",
    "{uses: checkout, with: {depth: 3, submodules: true, ref: 1.10}}",
    "{uses: checkout, with: {depth: '${params.d}'}}",
    "{run: x, needs: {a: all, b: [ended, all]}, retry: 3, timeout: 5m, limits: [p], each: [a]}",
    "{run: x, needs: [a, b], retry: {times: '${params.n}', 'on': [user]}, timeout: '${params.t}'}",
    "{run: x, allow_failure: '${params.x}', env: {A: 1.10, B: true}}",
]
BAD = [
    "{}",
    "{run: x, uses: push}",
    "{rum: x}",
    "{uses: chekout}",
    "{uses: push}",
    "{uses: push, with: {imag: x}}",
    "{uses: push, with: {image: [x]}}",
    "{uses: checkout, with: {depth: few}}",
    "{run: x, with: {script: y}}",
    "{run: x, timeout: 5}",
    "{run: x, timeout: soon}",
    "{run: x, retry: often}",
    "{run: x, needs: {a: okk}}",
    "{run: x, workspace: mine}",
    "{run: x, allow_failure: maybe}",
    "{run: x, env: {a-b: x}}",
    "{run: x, outputs: [A]}",
]


@pytest.mark.parametrize("stage", GOOD)
def test_a_good_stage_fits(stage: str) -> None:
    assert accepts(read(STAGE + stage))


@pytest.mark.parametrize("stage", BAD)
def test_a_bad_stage_does_not_fit(stage: str) -> None:
    assert not accepts(read(STAGE + stage))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("x-a: {b: c}\nname: a\nstages: {s: {run: x}}", True),
        ("stages: {s: {run: x}}", False),
        ("nam: b\nname: a\nstages: {s: {run: x}}", False),
        ("name: a\nstages: {S: {run: x}}", False),
        ("params: {p: {type: int}}\npipelines: {a: {stages: {s: {run: x}}}, b-1: {stages: {s: {run: x}}}}", True),
        ("name: x\npipelines: {a: {stages: {s: {run: x}}}}", False),
        ("pipelines: {a: {name: x, stages: {s: {run: x}}}}", False),
        ("secrets: {s: text, t: {kind: login, env: [A, B]}}\nname: a\nstages: {s: {run: x}}", True),
        ("limits: {p: '${params.n}'}\nname: a\nstages: {s: {run: x}}", True),
        ("limits: {p: many}\nname: a\nstages: {s: {run: x}}", False),
        ("secrets: {s: txt}\nname: a\nstages: {s: {run: x}}", False),
    ],
)
def test_the_top_of_a_file_is_one_pipeline_or_several(text: str, fits: bool) -> None:  # noqa: FBT001
    assert accepts(read(text)) is fits


def objects(here: object, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(here, dict):
        if "properties" in here:
            yield path, here
        for key, value in here.items():
            yield from objects(value, f"{path}/{key}")
    elif isinstance(here, list):
        for index, value in enumerate(here):
            yield from objects(value, f"{path}/{index}")


def test_every_key_of_the_language_has_a_description() -> None:
    ours = [(path, found) for path, found in objects(SCHEMA) if "/allOf/" not in path and not path.endswith("/if")]
    bare = [
        f"{path}: {key}"
        for path, found in ours
        for key, value in found["properties"].items()
        if "description" not in value
    ]
    assert bare == []


def test_what_is_not_built_says_so_where_an_editor_shows_it() -> None:
    stage = SCHEMA["$defs"]["Stage"]["properties"]
    marked = {key for key, value in stage.items() if value["description"].startswith("Not built yet. ")}
    assert marked == {"executor", "services", "takes", "inputs"}


def test_a_schema_is_json() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
