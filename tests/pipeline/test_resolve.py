"""From a file to a plan: parameters, substitution, conditions decided early, and nothing filled in twice."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from pipeline.errors import InvalidPipeline, PipeError
from pipeline.expressions import fill
from pipeline.plan import Plan, Retry, Trigger
from pipeline.resolve import assignments
from tests.pipeline.fakes import file, leaf, plan, stages, worded

PARAMS = """params:
  t: {default: d, env: T}
  must: {env: MUST, description: the thing}
  n: {type: int, default: 3, env: N}
  b: {type: bool, default: false}
  l: {type: list, default: [x, y]}
  c: {default: a, choices: [a, b]}
  p: {default: v1, pattern: 'v[0-9]+'}
"""


def values(
    params: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, **more: str
) -> dict[str, object]:
    text = stages("s: {run: x}", PARAMS)
    return dict(plan(text, params=params, env={"MUST": "m", **(env or {})}).params)


def test_a_parameter_comes_from_the_call_else_the_variable_else_the_default() -> None:
    assert values()["t"] == "d"
    assert values(env={"T": "host"})["t"] == "host"
    assert values({"t": "call"}, {"T": "host"})["t"] == "call"
    assert values(env={"T": ""})["t"] == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("n", "-12", -12), ("b", "true", True), ("l", "a,b", ["a", "b"]), ("l", "", []), ("l", " a , b", ["a", "b"]), ("t", "1.10", "1.10")],
)  # fmt: skip
def test_the_text_of_a_call_becomes_the_type_of_its_parameter(name: str, text: str, expected: object) -> None:
    assert values({name: text})[name] == expected


def test_all_parameters_that_are_missing_or_wrong_are_said_at_once() -> None:
    with pytest.raises(InvalidPipeline) as error:
        plan(stages("s: {run: x}", PARAMS), params={"n": "x", "b": "yes", "c": "z", "p": "v1x"})
    assert [worded(problem) for problem in error.value.problems] == [
        "4:3 the parameter 'must' has no value (give it by -p must=VALUE, or set the variable MUST (the thing))",
        "5:3 the parameter 'n', from -p: 'x' is not a whole number",
        "6:3 the parameter 'b', from -p: 'yes' is not true or false",
        "8:3 the parameter 'c', from -p: 'z' is none of a, b",
        "9:3 the parameter 'p', from -p: 'v1x' does not match 'v[0-9]+'",
    ]


def test_offline_a_variable_that_is_not_set_shows_as_unset_and_spoils_nothing() -> None:
    text = stages(
        "co: {uses: checkout, with: {url: '${params.must}', depth: '${params.k}', into: '${params.must}'}}\n"
        "c2: {uses: checkout, with: {into: '${params.must}'}}\n"
        "s: {run: x, timeout: '${params.must}', when: params.must == 'x' && params.k > 1, each: '${params.many}'}",
        PARAMS + "  k: {type: int}\n  many: {type: list, env: MANY}\n",
    )
    made = plan(text, unset="placeholder")
    assert made.leaf("co").fields["url"] == "<unset>"
    assert made.leaf("s[<unset>]").when == "params.must == 'x' && params.k > 1"


SEVERAL = """params: {shared: {default: s}}
pipelines:
  one: {params: {k: {default: a}}, stages: {s: {run: x}}}
  t.wo: {params: {k: {default: b}, only_two: {default: c}}, stages: {s: {run: x}}}
"""


def test_an_assignment_goes_to_every_chosen_pipeline_that_declares_it() -> None:
    chosen = ("one", "t.wo")
    found = assignments(file(SEVERAL), chosen, ["k=1", "shared=a=b", "t.wo.k=2", "only_two=3"])
    assert found == {"one": {"k": "1", "shared": "a=b"}, "t.wo": {"k": "2", "shared": "a=b", "only_two": "3"}}
    assert assignments(file(SEVERAL), ("one",), []) == {"one": {}}


def test_assignments_that_nobody_takes_are_refused_together() -> None:
    with pytest.raises(PipeError) as error:
        assignments(
            file(SEVERAL), ("one",), ["only_two=1", "oops", "t.wo.k=1", "three.k=1", "one.only_two=1", "sharde=x"]
        )
    assert str(error.value).splitlines() == [
        "-p only_two=1: there is no parameter 'only_two'; known: k, shared",
        "-p oops: write -p NAME=VALUE",
        "-p t.wo.k=1: 't.wo' is not run",
        "-p three.k=1: there is no pipeline 'three'; known: one",
        "-p one.only_two=1: there is no parameter 'only_two'; known: k, shared",
        "-p sharde=x: there is no parameter 'sharde'; did you mean 'shared'?",
    ]


def test_several_pipelines_inherit_entry_by_entry_and_their_own_entry_wins() -> None:
    text = """params: {a: {default: top}, b: {default: top}}
secrets: {s: text}
vars: {v: "${params.a}", w: top}
env: {E: "${vars.v}", F: top}
defaults: {timeout: 5m, retry: 1}
limits: {pool: 2}
pipelines:
  one:
    params: {b: {default: own}}
    vars: {w: own, z: "${vars.w}!"}
    env: {F: "${vars.z} ${params.b}"}
    defaults: {timeout: 7m}
    stages: {s: {run: x, limits: pool, secrets: {S: s}}, t: {run: x, timeout: 9m, retry: 0}}
  two: {stages: {s: {run: x}}}
"""
    one, two = plan(text, pipeline="one"), plan(text, pipeline="two")
    assert (one.params, two.params) == ({"a": "top", "b": "own"}, {"a": "top", "b": "top"})
    assert one.leaf("s").env == {"E": "top", "F": "own! own"}
    assert two.leaf("s").env == {"E": "top", "F": "top"}
    assert [item.timeout for item in (*one.leaves, *two.leaves)] == [timedelta(minutes=n) for n in (7, 9, 5)]
    assert [item.retry.times for item in (*one.leaves, *two.leaves)] == [1, 0, 1]
    assert one.pools == two.pools == {"pool": 2}


# -- values ----------------------------------------------------------------------------------------


def test_everything_that_is_known_is_fixed_in_the_plan() -> None:
    text = stages(
        "s: {uses: image, each: [x], title: 'T $$ ${each.name}', timeout: '${params.t}', retry: {times: '${params.n}'},"
        " limits: '${params.p}', with: {image: '${vars.repo}:${run.number}', tag: '${run.number}',"
        " args: {'${no}': '${trigger.branch} $$HOME ${pipeline.name}'}}}",
        "params: {t: {default: 2m}, n: {type: int, default: 2}, p: {default: pool}}\n"
        "vars: {host: h, repo: '${vars.host}/r'}\nlimits: {pool: '${params.n}'}\n",
    )
    made = plan(text, trigger=Trigger(kind="push", branch="main"))
    s = made.leaf("s[x]")
    assert s.fields == {"image": "h/r:7", "tag": 7, "args": {"${no}": "main $HOME a"}}
    assert (s.title, s.timeout, s.retry, s.pools) == ("T $ x", timedelta(minutes=2), Retry(times=2), ("pool",))
    assert made.pools == {"pool": 2}
    assert not s.references


def test_one_word_stands_for_a_list_of_it() -> None:
    s = plan(stages("s: {run: x, outputs: v, retry: {times: 1, on: timeout}, limits: p}", "limits: {p: 1}\n")).leaf("s")
    assert (s.outputs, s.retry.on, s.pools) == (("v",), ("timeout",), ("p",))


def test_values_of_stages_stay_open_with_the_leaf_that_has_them() -> None:
    made = leaf(
        stages(
            "i: {uses: image, with: {image: x}}\n"
            "s: {uses: push, needs: i, with: {image: '${stages.i.ref}', tag: 'v${run.number}-${stages.i.size}'}}"
        ),
        "s",
    )
    assert made.fields == {
        "image": {"$": [{"ref": "stages.i.ref"}]},
        "tag": {"$": ["v7-", {"ref": "stages.i.size"}]},
    }
    assert made.references == {"stages.i.ref": ("i", "ref"), "stages.i.size": ("i", "size")}


EVIL = "$$ ${stages.i.ref} ${params.evil} $${run.id}"


def test_what_a_parameter_says_is_never_read_as_the_language() -> None:
    """Neither in the plan nor at run time: branch names and parameters are other people's texts."""
    text = stages(
        "i: {uses: image, with: {image: x}}\n"
        "s: {uses: push, needs: i, with: {image: '${params.evil}', tag: '${params.evil}|${stages.i.ref}'}, env: {E: '${vars.v}'}}",
        "params: {evil: {default: ''}}\nvars: {v: '${params.evil}'}\n",
    )
    made = Plan.model_validate_json(plan(text, params={"evil": EVIL}).model_dump_json(by_alias=True)).leaf("s")
    answered = {"stages.i.ref": EVIL}
    assert fill(made.fields, answered.__getitem__) == {"image": EVIL, "tag": f"{EVIL}|{EVIL}"}
    assert fill(made.env, answered.__getitem__) == {"E": EVIL}


def test_scripts_are_never_filled() -> None:
    script = "echo ${item.x} $$ ${HOME} ${oops"
    made = plan(
        stages(
            f"s: {{run: '{script}'}}\nt: {{run: [a, '${{b}}']}}\nu: {{uses: shell, with: {{script: '{script}', shell: bash}}}}"
        )
    )
    assert [item.fields for item in made.leaves] == [
        {"script": script},
        {"argv": ["a", "${b}"]},
        {"shell": "bash", "script": script},
    ]


def test_known_values_are_judged_by_the_kind_when_the_plan_is_made() -> None:
    text = stages(
        "s: {uses: checkout, with: {depth: '${params.d}', submodules: '${params.d}'}, timeout: '${params.d}', limits: '${params.d}'}",
        "params: {d: {default: '3'}}\n",
    )
    assert plan(
        text.replace("submodules: '${params.d}'", "ref: '${params.d}'")
        .replace("timeout: '${params.d}'", "timeout: '${params.d}s'")
        .replace("limits: '${params.d}'", "retry: '${params.d}'")
    ).leaf("s").fields == {"depth": "3", "ref": "3"}
    with pytest.raises(InvalidPipeline) as error:
        plan(text, params={"d": "few"})
    assert [worded(problem) for problem in error.value.problems] == [
        "4:37 `depth:` must be a whole number, not 'few'",
        "4:64 `submodules:` must be true or false, not 'few'",
        "4:89 `timeout:` 'few' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first",
        "4:112 unknown pool 'few' (declare how many may hold it: `limits: {few: 4}`)",
    ]


def test_secrets_of_bindings_and_fields_are_gathered_by_name() -> None:
    text = stages(
        "s: {uses: push, with: {image: x, secret: '${params.which}'}, secrets: {A: t, B: other.username, C: f}}",
        "params: {which: {default: reg.istry}}\nsecrets: {reg.istry: login, other: login, t: text, f: file}\n",
    )
    made = leaf(text, "s")
    assert made.secret_names == ("t", "other", "f", "reg.istry")
    assert made.secrets == {"A": "t", "B": "other.username", "C": "f"}
    with pytest.raises(InvalidPipeline, match="the secret 'x' is not declared"):
        plan(text, params={"which": "x"})


def test_a_secret_that_a_map_in_a_field_names_is_gathered_too() -> None:
    text = stages(
        "s: {uses: deploy, with: {manifests: [a], registered_in: {nacos: {server: x, secret: '${params.which}'}}}}",
        "params: {which: {default: nacos}}\nsecrets: {nacos: login}\n",
    )
    assert leaf(text, "s").secret_names == ("nacos",)


# -- conditions ------------------------------------------------------------------------------------

WHEN = [
    ("params.n > 2", "", "params.n > 2"),
    ("params.n == 1", "", ""),
    ("trigger.kind == 'manual' && run.number == 7 && pipeline.name == 'a'", "", ""),
    ("vars.m.k == 'v' && size(vars.l) == 2", "", ""),
    ("stages.t.outcome == 'succeeded'", "stages.t.outcome == 'succeeded'", ""),
    ("params.n > 2 && stages.t.outcome == 'x'", "params.n > 2 && stages.t.outcome == 'x'", ""),
    ("vars.l[5] == 'x'", "vars.l[5] == 'x'", ""),
]


@pytest.mark.parametrize(("text", "when", "skipped"), WHEN)
def test_a_condition_is_decided_in_the_plan_unless_it_waits_or_fails(text: str, when: str, skipped: str) -> None:
    top = "params: {n: {type: int, default: 1}}\nvars: {m: {k: v}, l: [a, b]}\n"
    made = leaf(stages(f't: {{run: x}}\ns: {{run: x, needs: t, when: "{text}"}}', top), "s")
    assert (made.when, made.skipped) == (when, skipped)
    if when:
        known = {"params.n": 1, "vars.l": ["a", "b"]}
        assert made.when_values == {name: value for name, value in known.items() if name in text}


def test_a_condition_is_decided_leaf_by_leaf() -> None:
    made = plan(stages("s: {run: x, each: [a, b], when: each.name == 'a'}"))
    assert [item.skipped for item in made.leaves] == ["", "each.name == 'a'"]


def test_finally_knows_how_the_run_before_ended_and_waits_for_how_this_one_does() -> None:
    text = "name: a\nstages: {s: {run: x}}\nfinally: {m: {run: x, env: {A: '${run.previous} ${run.outcome}'}, when: run.outcome != run.previous}}"
    (made,) = plan(text).finally_
    assert made.env == {"A": {"$": ["failed ", {"ref": "run.outcome"}]}}
    assert made.references == made.when_references == {"run.outcome": ("", "outcome")}
    assert made.when_values == {"run.previous": "failed"}


# -- what kinds bring ------------------------------------------------------------------------------


def test_a_kind_brings_its_pool_which_the_file_may_resize() -> None:
    text = "s: {uses: push, with: {image: x}, limits: few}"
    assert plan(stages(text, "limits: {few: 2}\n")).pools == {"push": 10, "few": 2}
    assert plan(stages(text, "limits: {few: 2, push: 3}\n")).pools == {"push": 3, "few": 2}
    assert leaf(stages(text, "limits: {few: 2}\n"), "s").pools == ("few", "push")


def test_a_plan_checks_out_when_a_stage_that_fills_a_folder_may_run() -> None:
    assert not plan(stages("s: {run: x}")).checks_out
    assert plan(stages("s: {uses: checkout}")).checks_out
    assert not plan(stages("s: {uses: checkout, when: 'false'}")).checks_out


def test_checkouts_of_one_folder_are_fine_when_only_one_of_them_runs() -> None:
    text = stages(
        "a: {uses: checkout, when: params.x}\nb: {uses: checkout, when: '!params.x'}",
        "params: {x: {type: bool, default: true}}\n",
    )
    assert [bool(item.skipped) for item in plan(text).leaves] == [False, True]


def test_a_plan_survives_being_written_and_read() -> None:
    text = stages(
        "i: {uses: image, with: {image: x, args: {$: y}}}\ns: {uses: push, needs: i, with: {image: '${stages.i.ref}'}, timeout: 1h30m}"
    )
    made = plan(text)
    assert Plan.model_validate_json(made.model_dump_json(by_alias=True, exclude_defaults=True)) == made
