"""What looks right and is not, and the message each deserves; and what is part of the language but not built yet."""

from pathlib import Path

import pytest

from pipeline.errors import InvalidPipeline, Problem
from pipeline.model import read
from pipeline.source import load
from tests.pipeline.fakes import KINDS, problems, stages, worded

TRAPS: list[tuple[str, list[str]]] = [
    ("with: {url: ${params.x}}", ["1:14 not valid YAML: did not find expected ',' or '}' (put it in quotes: \"${params.x}\")"]),
    ("with: [a, v${run.number}-x]", ["1:13 not valid YAML: did not find expected ',' or ']' (put it in quotes: \"v${run.number}-x\")"]),
    ("when: ! params.dry", ['1:7 a `!` in front of a value would be dropped by YAML (put it in quotes: "!params.dry")']),
    ("cron: * * * * *", ['1:8 not valid YAML: did not find expected alphabetic or numeric character (put it in quotes: cron: "* * * * *")']),
    ("needs: [push[*]]", ["1:15 not valid YAML: did not find expected alphabetic or numeric character (put the text in quotes)"]),
    ("when: a ? b : c", ['1:13 not valid YAML: mapping values are not allowed in this context (put it in quotes: when: "a ? b : c")']),
    ("s: {when: a ? b : c}", ["1:17 not valid YAML: did not find expected ',' or '}' (put the text in quotes)"]),
    ('run: say: "hi"', ["1:9 not valid YAML: mapping values are not allowed in this context (put it in quotes: run: 'say: \"hi\"')"]),
    ("to: @team", ['1:5 not valid YAML: found character that cannot start any token (put it in quotes: to: "@team")']),
    ("image: `x`", ['1:8 not valid YAML: found character that cannot start any token (put it in quotes: image: "`x`")']),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TRAPS, ids=[text for text, _ in TRAPS])
def test_what_yaml_reads_as_something_else_is_to_be_put_in_quotes(text: str, expected: list[str]) -> None:
    assert [worded(problem) for problem in load(text, "f.yaml").problems] == expected


def test_a_question_mark_in_a_flow_map_is_text() -> None:
    assert problems(stages("s: {run: x, title: ok?, env: {A: b}}")) == []


CONDITIONS: list[tuple[str, list[str]]] = [
    ("when: params.oops == 'x'", ["3:21 unknown name `params.oops` (did you mean 'oop'?)"]),
    ("when: stages.a-b.outcome == 'x'", [
        "3:21 unknown stage 'a' in `stages.a` (names have no hyphens: here `-` is minus)"
    ]),
    ("when: params.oop-s == 'x'", ["3:32 unknown name 's' (names have no hyphens: here `-` is minus)"]),
    ("when: \"params['oop'] == 'x'\"", ["3:22 `params` is no name (write `params.NAME`)"]),
    ("when: vars.m.oops == 'x'", []),
    ("when: '${params.oop} == 1'", ["3:22 a condition is not filled in: its names stand without `${}`"]),
    ("when: params.oop = 'x'", ["3:32 not valid CEL: token recognition error at: '= '", "3:34 not valid CEL: extraneous input ''x''"]),
]  # fmt: skip


@pytest.mark.parametrize(("when", "expected"), CONDITIONS, ids=[when for when, _ in CONDITIONS])
def test_a_name_in_a_condition_is_declared_with_its_type(when: str, expected: list[str]) -> None:
    assert (
        problems(stages(f"s: {{run: x, {when}}}", "") + "params: {oop: {default: y}}\nvars: {m: {k: v}}\n") == expected
    )


def test_a_script_that_expects_to_be_filled_in_is_told_at_its_line_that_it_is_not() -> None:
    text = """name: a
stages:
  s: {run: x, outputs: v}
  t:
    needs: s
    each: [k]
    run: |

      a
        b ${each.name} ${HOME} ${vars.no}
      c ${stages.s.v}
"""
    assert problems(text) == [
        '10:11 a script is not filled in: `${each.name}` would reach it as it stands here (write `env: {NAME: "${each.name}"}` and in the script `$NAME`)',
        '10:32 a script is not filled in: `${vars.no}` would reach it as it stands here (write `env: {NO: "${vars.no}"}` and in the script `$NO`)',
        '11:9 a script is not filled in: `${stages.s.v}` would reach it as it stands here (write `env: {V: "${stages.s.v}"}` and in the script `$V`)',
    ]


def test_a_program_with_arguments_is_a_script_too() -> None:
    assert [text.partition(" (")[0] for text in problems(stages('s: {run: [echo, "${run.number}"]}'))] == [
        "3:20 a script is not filled in: `${run.number}` would reach it as it stands here"
    ]


# -- not built yet ---------------------------------------------------------------------------------

UNBUILT: list[tuple[str, list[str]]] = [
    ("defaults: {silence: 5m, executor: {image: x}}", [
        "1:25 `executor:` is not built yet",
    ]),
]  # fmt: skip


TRIGGERS: list[tuple[str, list[str]]] = [
    ("triggers: {push: {branches: [main], brnch: x}}", [
        "1:37 unknown key 'brnch' (did you mean 'branches'?)",
    ]),
    ("triggers: {cron: {at: '0 2 * *'}, push: [{repo: '${params.must}'}, {repo: '${run.id}', params: {p: '${trigger.branch}', q: x}}]}", [
        "1:23 `at:` '0 2 * *' has not five fields: minute, hour, day, month, weekday",
        "1:50 `triggers:` may use params with a default, and 'must' has none",
        "1:76 `triggers:` cannot use `run.id` (use params, and in its `params:` also `trigger.`)",
        "1:121 there is no parameter 'q' (known: must, p)",
    ]),
    ("triggers: {webhook: {when: body.x == 1, values: {p: headers.y, q: oops}}}", [
        "1:64 there is no parameter 'q' (known: must, p)",
        "1:67 unknown name 'oops' (names begin with body, headers)",
    ]),
    ("triggers: {push: {branches: ['[z-a]']}}", [
        "1:30 '[z-a]' is no glob: nothing lies between z and a",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [*UNBUILT, *TRIGGERS], ids=[text[:40] for text, _ in [*UNBUILT, *TRIGGERS]]
)
def test_triggers_and_keys_that_are_not_built_are_checked_and_told_by_name(text: str, expected: list[str]) -> None:
    rest = "params: {p: {default: x}, must: {}}\nname: a\nstages: {s: {run: x}}\n"
    with pytest.raises(InvalidPipeline) as error:
        read(load(f"{text}\n{rest}", "f.yaml"), KINDS)
    assert [worded(problem) for problem in error.value.problems] == expected


KEYS: list[tuple[str, list[str]]] = [
    ("executor: local", []),
    ("executor: {image: x, memry: 2Gi}", ["3:36 unknown key 'memry' (did you mean 'memory'?)"]),
    ("services: {db: {image: '${params.q}', port: 99999}}", [
        "3:39 unknown name `params.q` (there is no parameter)",
        "3:59 `port:` should be less than or equal to 65535, not 99999",
    ]),
    ("takes: t", ["3:22 `takes:` names 't', which is no need of 's' (add 't' to `needs:`)"]),
    ("inputs: [x]", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), KEYS, ids=[text for text, _ in KEYS])
def test_a_key_of_a_stage_that_is_not_built_is_checked_and_refused_by_name(text: str, expected: list[str]) -> None:
    key = text.partition(":")[0]
    found = problems(stages(f"s: {{run: x, {text}}}\nt: {{run: y}}"))
    assert found == [f"3:15 `{key}:` is not built yet", *expected]


KEPT: list[tuple[str, list[str]]] = [
    ("artifacts: ['*.jar', '!old.jar']", []),
    ("artifacts: [/etc/passwd, ../x, '!../y']", [
        "3:27 `artifacts:` '/etc/passwd' is not in the workspace: write a path below it",
        "3:40 `artifacts:` '../x' is not in the workspace: write a path below it",
        "3:46 `artifacts:` '../y' is not in the workspace: write a path below it",
    ]),
    ("artifacts: ['[z-a]']", ["3:27 `artifacts:` '[z-a]' is no glob: nothing lies between z and a"]),
    ('artifacts: ["${params.q}/*"]', ["3:28 unknown name `params.q` (there is no parameter)"]),
    ("reports: {junit: ['**/TEST-*.xml']}", []),
    ("reports: {junit: x}", ["3:32 `junit:` must be a list, not 'x' (write `[x]`)"]),
    ("reports: {junt: [x]}", ["3:25 unknown key 'junt' (did you mean 'junit'?)"]),
    ("log: 2Gi", []),
    ("log: 20", ["3:20 `log:` '20' is 20 bytes, too little for anything: write 512Mi or 2Gi"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), KEPT, ids=[text for text, _ in KEPT])
def test_what_a_stage_leaves_is_named_within_its_workspace(text: str, expected: list[str]) -> None:
    assert problems(stages(f"s: {{run: x, {text}}}")) == expected


CACHES: list[tuple[str, list[str]]] = [
    ("cache: kept", []),
    ("cache: [kept, deep/er]", []),
    ("cache: {paths: kept, key: package-lock.json, name: '${pipeline.name}'}", []),
    ("cache: [{paths: [a, b], key: ['**/pom.xml'], fallback: false}, c]", []),
    ("cache: {path: kept}", [
        "3:15 `paths:` is missing",
        "3:23 unknown key 'path' (did you mean 'paths'?)",
    ]),
    ("cache: [/tmp, ../x, ., ~/.m2]", [
        "3:23 `cache:` '/tmp' is not in the workspace: write a path below it",
        "3:29 `cache:` '../x' is not in the workspace: write a path below it",
        "3:35 `cache:` '.' is all of the workspace: name the folders in it that are worth keeping",
        "3:38 `cache:` '~/.m2' is shared by runs that may write at once: keep a folder of the workspace",
    ]),
    ("cache: {paths: a, key: ['[z-a]', /x]}", [
        "3:39 `key:` '[z-a]' is no glob: nothing lies between z and a",
        "3:48 `key:` '/x' is not in the workspace: write a path below it",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CACHES, ids=[text for text, _ in CACHES])
def test_what_is_kept_between_runs_is_named_within_the_workspace(text: str, expected: list[str]) -> None:
    assert problems(stages(f"s: {{run: x, {text}}}")) == expected


def test_a_cache_is_for_kinds_that_start_processes() -> None:
    assert problems(stages("s: {uses: push, with: {image: x}, cache: k}")) == [
        "3:37 a stage of kind 'push' has no `cache:` (it is for kinds that start processes)",
    ]


def test_a_key_that_a_kind_cannot_honour_is_an_error_of_its_own() -> None:
    assert problems(stages("s: {uses: push, with: {image: x}, services: {}}")) == [
        "3:37 `services:` is not built yet",
        "3:37 a stage of kind 'push' has no `services:` (they are for kinds that start processes)",
    ]


def test_an_approval_is_checked_and_refused_and_its_values_are_known() -> None:
    text = stages(
        "a: {uses: approval, with: {message: ok?, bye: [x], inputs: {change: {}}}}\n"
        "s: {run: x, needs: a, env: {A: '${stages.a.change} ${stages.a.by} ${stages.a.chnge}'}}"
    )
    assert problems(text) == [
        "3:13 `uses: approval` is not built yet",
        "3:44 unknown key 'bye' (did you mean 'by'?)",
        "4:69 'a' has no output 'chnge' (did you mean 'change'?)",
    ]


PAGES = Path(__file__).parent / "pages"
EXPECTED = {
    "approvals": ["uses: approval", "uses: approval"],
    "backend": [],
    "frontend": [],
    "matrix": [
        *("executor", "executor", "takes"),
        *("services", "takes", "takes"),
    ],
    "middleware": ["executor"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_five_pages_of_the_language_miss_only_what_is_not_built(name: str) -> None:
    found = [problem.message for problem in load_problems(PAGES / f"{name}.yaml")]
    wanted = [f"`{key}{'' if ' ' in key else ':'}` is not built yet" for key in EXPECTED[name]]
    assert found == wanted


def load_problems(path: Path) -> list[Problem]:
    try:
        read(load(path, path.name), KINDS)
    except InvalidPipeline as error:
        return error.problems
    return []
