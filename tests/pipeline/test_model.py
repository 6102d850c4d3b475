"""What a file may say: every mistake at its place, in the author's word, with the nearest valid one."""

import pytest

from pipeline.errors import InvalidPipeline
from pipeline.model import read
from pipeline.source import load
from tests.pipeline.fakes import KINDS, problems, stages

WORKING = "  co: {uses: checkout}\n"

FILES: list[tuple[str, list[str]]] = [
    # the top
    ("name: x", ["1:1 `stages:` is missing"]),
    ("stages: {s: {run: x}}", [
        "1:1 `name:` is missing (a file has one pipeline with a `name:`, or several in `pipelines:`)"
    ]),
    ("name: a b\nstages: {s: {run: x}}", [
        "1:7 `name:` 'a b' is no name here: letters, digits, `.`, `_` and `-`, a letter or digit first"
    ]),
    ("name: a\nstages: {}", ["2:1 `stages:` must not be empty"]),
    ("name: a\nstages: [x]", ["2:1 `stages:` must be a map, not a list"]),
    ("name: a\nstages: x", ["2:9 `stages:` must be a map, not 'x'"]),
    ("name: a\nstages:", ['2:1 `stages:` has no value (leave the key out, or write "" for an empty text)']),
    ("name: a\nstage: {}\nstages: {s: {run: x}}", ["2:1 unknown key 'stage' (did you mean 'stages'?)"]),
    ("x-anything: {[}", ["1:15 not valid YAML: did not find expected node content"]),
    # several pipelines
    ("pipelines: {a: {stages: {s: {run: x}}}}\nname: b", ["2:1 `name:` beside `pipelines:` belongs to no pipeline (move it into one)"]),
    ("pipelines: {a: {stages: {s: {run: x}}}}\nparms: {}", ["2:1 unknown key 'parms' (did you mean 'params'?)"]),
    ("pipelines: {a: {name: b, stages: {s: {run: x}}}}", ["1:17 unknown key 'name': the name of this pipeline is 'a'"]),
    ("pipelines: {a: {}, b: x}", ["1:13 `stages:` is missing", "1:20 the pipeline 'b' must be a map with `stages:`"]),
    ("pipelines: {}", ["1:1 `pipelines:` must be a map of a name to a pipeline"]),
    ("pipelines: {a b: {stages: {s: {run: x}}}}", [
        "1:13 `name:` 'a b' is no name here: letters, digits, `.`, `_` and `-`, a letter or digit first"
    ]),
    ("params: {p: {typ: x}}\npipelines: {a: {stages: {s: {run: x}}}, b: {stages: {s: {run: x}}}}", [
        "1:14 unknown key 'typ' (did you mean 'type'?)"
    ]),
    # params, secrets, vars, env, limits, defaults
    ("name: a\nparams: {a-b: {}, ok: x}\nstages: {s: {run: x}}", [
        "2:10 'a-b' is no name here: letters, digits and _ (a hyphen would be a minus in conditions), no digit first",
        "2:23 `ok:` must be a map, not 'x'",
    ]),
    ("name: a\nparams: {n: {type: int, default: x}, b: {type: boolean}}\nstages: {s: {run: x}}", [
        "2:34 the default of 'n': 'x' is not a whole number",
        "2:48 `type:` 'boolean' is none of text, bool, int, list (did you mean 'bool'?)",
    ]),
    ("name: a\nparams: {c: {default: z, choices: [x, y]}, p: {default: v, pattern: 'v[0-9]+'}, r: {default: '', pattern: '('}}\nstages: {s: {run: x}}", [
        "2:23 the default of 'c': 'z' is none of x, y",
        "2:57 the default of 'p': 'v' does not match 'v[0-9]+'",
        "2:107 `pattern:` '(' is no regular expression: missing ), unterminated subpattern at position 0",
    ]),
    ("name: a\nparams: {p: {pattern: '[a--b]'}, q: {pattern: 'a{99999999999}'}}\nstages: {s: {run: x}}", [
        "2:23 `pattern:` '[a--b]' is no regular expression: Possible set difference at position 2",
        "2:47 `pattern:` 'a{99999999999}' is no regular expression: the repetition number is too large",
    ]),
    ("name: a\nparams: {p: {default: '${run.id}'}}\nstages: {s: {run: x}}", [
        "2:24 a default is fixed: it cannot use `run.id` (combine values in `vars:`)"
    ]),
    ("name: a\nsecrets: {s: txt, t: {kind: login, env: [A]}}\nstages: {s: {run: x}}", [
        "2:14 `s:` 'txt' is none of text, login, file, ssh (did you mean 'text'?)",
        "2:19 `t:` a secret of kind login comes from 2 variables",
    ]),
    ("name: a\nvars: {a: '${vars.b}', b: '${vars.b}', c: '${vars.z}'}\nstages: {s: {run: x}}", [
        "2:12 `vars.b` stands further down (a var may use those above it)",
        "2:28 `vars.b` stands further down (a var may use those above it)",
        "2:44 unknown name `vars.z` (known: a, b)",
    ]),
    ("name: a\nvars: {a: '${each.x}', b: '${stages.s.outcome}', c: '${run.outcome}'}\nstages: {s: {run: x}}", [
        "2:12 `each.x` is known only in the values of a stage",
        "2:28 `stages.s.outcome` is known only in the values of a stage",
        "2:54 `run.outcome` is known in `finally` only",
    ]),
    ("name: a\nenv: {CI: x, PIPE_X: y, a-b: z, L: [x]}\nstages: {s: {run: x}}", [
        "2:7 `CI` is set by pipe itself",
        "2:14 `PIPE_X` is set by pipe itself",
        "2:25 'a-b' is no name here: letters, digits and _, no digit first",
        "2:33 `L:` must be a text, not a list",
    ]),
    ("name: a\nlimits: {p: 0, q: x}\nstages: {s: {run: x}}", [
        "2:13 `p:` it must be 1 or more",
        "2:19 `q:` 'x' is not a whole number",
    ]),
    ("name: a\ndefaults: {timeout: 3, env: {}}\nstages: {s: {run: x}}", [
        "2:21 `timeout:` '3' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first",
        "2:24 unknown key 'env' (known: executor, limits, log, retry, silence, timeout, workspace)",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FILES, ids=[text[:60] for text, _ in FILES])
def test_a_mistake_in_a_file_is_said_at_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


TOP = "secrets: {l: login, t: text, f: file}\nparams: {p: {default: x}, only: {type: list, default: a}, n: {type: int, default: 1}}\nlimits: {few: 2}\n"
"""Three lines, so that stages begin in line 6."""

STAGES: list[tuple[str, list[str]]] = [
    # kinds and fields
    ("s: {uses: chekout}", ["6:13 unknown kind 'chekout' (did you mean 'checkout'?)"]),
    ("s: {}", ["6:3 the stage 's' does nothing (give it `run:`, or `uses:` and `with:`)"]),
    ("s: {rum: x}", ["6:7 unknown key 'rum' (did you mean 'run'?)"]),
    ("s: x", ["6:6 `s:` must be a map, not 'x'"]),
    ("s: {uses: push, run: x, with: {image: x}}", ["6:19 a stage has `uses:` or `run:`, not both"]),
    ("s: {uses: image, with: {imag: x}}", [
        "6:20 `image:` is missing: kind 'image' needs it",
        "6:27 unknown key 'imag' (did you mean 'image'?)",
    ]),
    ("s: {uses: image}", ["6:7 `image:` is missing: kind 'image' needs it"]),
    ("s: {uses: image, with: {image: [x], args: x}}", [
        "6:27 `image:` must be a text, not a list",
        "6:45 `args:` must be a map, not 'x'",
    ]),
    ("s: {uses: image, with: {image: x, args: {A: [y]}}}", ["6:44 `A:` must be a text, not a list"]),
    ("s: {uses: checkout, with: {depth: 1_0, submodules: yes}}", [
        "6:37 `depth:` must be a whole number, not '1_0'",
        "6:54 `submodules:` must be true or false, not 'yes'",
    ]),
    ("s: {uses: deploy, with: {manifests: x, wait: 5}}", [
        "6:39 `manifests:` must be a list, not 'x' (write `[x]`)",
        "6:48 `wait:` '5' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first",
    ]),
    ("s: {uses: deploy, with: {manifests: [a], prune: {als: [CustomResourceDefinition]}}}", [
        "6:44 `also:` is missing", "6:52 unknown key 'als' (did you mean 'also'?)",
    ]),
    ("s: {uses: deploy, with: {manifests: [a], prune: [x]}}", [
        "6:44 `prune:` must be true or false or a map, not a list"
    ]),
    ("s: {run: ''}", ["6:7 give a script, or a list of a program and its arguments"]),
    ("s: {run: }", ['6:7 `run:` has no value (leave the key out, or write "" for an empty text)']),
    ("s: {run: {a: b}}", ["6:7 `run:` it must be a script, or a list of a program and its arguments"]),
    ("s: {run: x, with: {shell: zsh, script: y}}", [
        "6:29 `shell:` 'zsh' is none of sh, bash (did you mean 'sh'?)",
        "6:34 `run:` says it already: leave `script:` out",
    ]),
    # the stage's own keys
    ("S-1: {run: x}", ["6:3 'S-1' is no name here: small letters, digits and _, a letter first"]),
    ("s: {run: x, timeout: 20, silence: 0s}", [
        "6:24 `timeout:` '20' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first",
        "6:37 `silence:` it must be longer than nothing",
    ]),
    ("s: {run: x, retry: {times: 99, on: [infa], wait: 5}}", [
        "6:30 `times:` should be less than or equal to 20, not 99",
        "6:39 `on:` 'infa' is none of infra, timeout, user (did you mean 'infra'?)",
        "6:52 `wait:` '5' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first",
    ]),
    ("s: {run: x, retry: often}", ["6:22 `retry:` 'often' is not a whole number"]),
    ("s: {run: x, allow_failure: yes, fail_fast: True}", [
        "6:30 `allow_failure:` 'yes' is neither true nor false",
        "6:46 `fail_fast:` 'True' is neither true nor false",
    ]),
    ("s: {run: x, limits: [few, fw]}", ["6:29 unknown pool 'fw' (did you mean 'few'?)"]),
    ("s: {run: x, limits: other_pool}", [
        "6:23 unknown pool 'other_pool' (known: few)"
    ]),
    ("s: {run: x, workspace: mine}", ["6:26 `workspace:` 'mine' is none of shared, copy"]),
    ("s: {run: x, dir: ../up}", ["6:20 `dir:` '../up' is not in the workspace: write a path below it"]),
    ("s: {run: x, dir: /abs}", ["6:20 `dir:` '/abs' is not in the workspace: write a path below it"]),
    ("s: {run: x, env: {CI: y, a-b: y}}", [
        "6:21 `CI` is set by pipe itself",
        "6:28 'a-b' is no name here: letters, digits and _, no digit first",
    ]),
    ("s: {run: x, outputs: [outcome, A, ok]}", [
        "6:25 `outputs:` every stage has an `outcome` of its own: choose another name",
        "6:34 `outputs:` 'A' is no name here: small letters, digits and _, a letter first",
    ]),
    ("s: {uses: push, with: {image: x}, outputs: [y]}", [
        "6:37 a stage of kind 'push' has no `outputs:` (it is for `run:`; kinds declare their own outputs)"
    ]),
    (f"s: {{run: x, timeout: {'9' * 30}d, retry: {'9' * 5000}}}", [
        f"6:24 `timeout:` '{'9' * 30}d' is longer than anybody can wait",
        f"6:64 `retry:` '{'9' * 5000}' is not a whole number",
    ]),
    # secrets
    ("s: {run: x, secrets: {A: l, B: t.username, C: nope, D: f, E: l.password}}", [
        "6:28 'l' is a login (write `l.username` or `l.password`)",
        "6:34 't' is a secret of kind text, it has no username (write `t`)",
        "6:49 the secret 'nope' is not declared (known: f, l, t)",
    ]),
    ("s: {uses: push, with: {image: x, secret: f}}", [
        "6:44 `secret:` takes a secret of kind login, and 'f' is of kind file"
    ]),
    ("s: {uses: push, with: {image: x, secret: registry}}", [
        "6:44 the secret 'registry' is not declared (known: f, l, t)"
    ]),
    ("s: {uses: deploy, with: {manifests: [a], registered_in: {nacos: {secret: f}}}}", [
        "6:76 `secret:` takes a secret of kind login, and 'f' is of kind file"
    ]),
    ("s: {uses: deploy, with: {manifests: [a], registered_in: {nacos: {secret: naco, srver: x}}}}", [
        "6:76 the secret 'naco' is not declared (known: f, l, t)",
        "6:82 unknown key 'srver' (did you mean 'server'?)",
    ]),
    # needs
    ("s: {run: x, needs: comp}\n compile: {run: x}", ["6:22 's' needs 'comp', which is no stage (did you mean 'compile'?)"]),
    ("s: {run: x, needs: [t, t]}\n t: {run: x}", ["6:15 `needs:` 't' stands in it twice"]),
    ("s: {run: x, needs: {t: okk}}\n t: {run: x}", ["6:26 `t:` 'okk' is none of ok, optional, ended, all (did you mean 'ok'?)"]),
    ("s: {run: x, needs: {t: [ok, ended]}}\n t: {run: x}", ["6:23 one of ok, ended: they contradict each other"]),
    ("s: {run: x, needs: [{t: ok}]}\n t: {run: x}", ["6:15 `needs:` a need is the name of a stage; words go into a map: `{NAME: optional}`"]),
    ("s: {run: x, needs: 't[a]'}\n t: {run: x}", ["6:22 't' has no leaf 'a'"]),
    ("s: {run: x, needs: s}", ["6:22 's' needs itself"]),
    ("a: {run: x, needs: c}\n b: {run: x, needs: [a]}\n c: {run: x, needs: {b: ok}}", [
        "6:22 stages need each other in a circle: a → c → b → a"
    ]),
    # references
    ("s: {run: x, env: {A: '${params.q} ${trigger.brnch} ${foo.bar}'}}", [
        "6:25 unknown name `params.q` (known: n, only, p)",
        "6:37 unknown name `trigger.brnch` (did you mean 'branch'?)",
        "6:54 unknown name `foo.bar` (names begin with params, vars, pipeline, run, trigger, each, stages; for `${` itself write `$${`)",
    ]),
    ("s: {run: x, env: {A: '${HOME}', B: '${params.p', C: '${ params.p }'}}", [
        "6:25 `${HOME}` is no name (write `${name.name}`: no defaults, functions or operators; for a dollar before a brace write `$${`)",
        "6:39 `${` is not closed by `}` (for a dollar before a brace write `$${`)",
        "6:56 `${ params.p }` has spaces inside (write `${params.p}`)",
    ]),
    ("s: {run: x, env: {A: '${params.only}', B: 'x ${params.only}'}}", [
        "6:25 `A:` must be a text, not a list",
        "6:48 `${params.only}` is a list, which cannot stand inside a text",
    ]),
    ("s: {run: x, env: {A: '${each.x}'}}", ["6:25 `each.x`: the stage 's' has no `each:`"]),
    ("s: {run: x, env: {A: '${run.outcome}'}}", ["6:25 `run.outcome` is known in `finally` only"]),
    ("s: {uses: push, with: {image: '${stages.i.ref}'}}\n i: {uses: image, with: {image: x}}", [
        "6:34 `stages.i.ref`: 's' does not need 'i' (its values are known only to stages that need it: add 'i' to `needs:`)"
    ]),
    ("i: {uses: image, with: {image: x}}\n m: {run: x, needs: i}\n s: {uses: push, needs: m, with: {image: '${stages.i.rf}'}}", [
        "8:44 'i' has no output 'rf' (did you mean 'ref'?)"
    ]),
    ("i: {run: x, outputs: [one]}\n s: {run: x, needs: i, env: {A: '${stages.i.two} ${stages.i} ${stages.one.x}'}}", [
        "7:35 'i' has no output 'two' (known: one, outcome)",
        "7:51 `stages.i` names no output of 'i' (known: one, outcome)",
        "7:63 unknown stage 'one' in `stages.one.x` (known: i, s)",
    ]),
    ("i: {run: x, outputs: [one]}\n s: {run: x, needs: i, title: '${stages.i.one}', dir: '${stages.i.one}'}", [
        "7:33 `title:` is fixed in the plan, and `stages.i.one` is known only when a stage has ended (values of other stages can go into `with:` and `env:`)",
        "7:57 `dir:` is fixed in the plan, and `stages.i.one` is known only when a stage has ended (values of other stages can go into `with:` and `env:`)",
    ]),
    ("i: {run: x, outputs: [one]}\n s: {uses: push, needs: i, with: {image: x, secret: '${stages.i.one}'}}", [
        "7:54 `secret:` names a secret, which is fixed in the plan"
    ]),
    # conditions
    ("s: {run: x, when: params.oops == 'a'}", ["6:21 unknown name `params.oops` (known: n, only, p)"]),
    ("s: {run: x, when: params.n == 'a'}", ["6:30 `==` cannot take (int, text)"]),
    ("s: {run: x, when: params.p}", ["6:21 a condition is true or false, this is a text"]),
    ("s: {run: x, when: oops}", ["6:21 unknown name 'oops' (names begin with each, params, pipeline, run, stages, trigger, vars)"]),
    ("s: {run: x, when: '${params.p} == 1'}", ["6:22 a condition is not filled in: its names stand without `${}`"]),
    ("s: {run: x, when: params.z &&}", [
        "6:21 unknown name `params.z` (known: n, only, p)",
        "6:32 not valid CEL: it ends too early",
    ]),
    ("i: {uses: image, with: {image: x}}\n s: {run: x, needs: i, when: stages.i.size > 'x'}", ["7:45 `>` cannot take (int, text)"]),
    # checkouts
    ("a: {uses: checkout}\n b: {uses: checkout}", [
        "7:7 'b' checks out into '.', and 'a' into '.' (give each a folder of its own by `into:`)"
    ]),
    ("a: {uses: checkout, with: {into: x/y}}\n b: {uses: checkout, with: {into: x}}", [
        "7:23 'b' checks out into 'x', and 'a' into 'x/y' (give each a folder of its own by `into:`)"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), STAGES, ids=[text[:60] for text, _ in STAGES])
def test_a_mistake_in_a_stage_is_said_at_its_place(text: str, expected: list[str]) -> None:
    assert problems(stages(text, TOP)) == expected


FINALLY: list[tuple[str, list[str]]] = [
    ("m: {run: x, needs: s}", ["4:30 `finally` starts when 's' has ended: leave the need out"]),
    ("s: {run: x}", ["4:11 's' is the name of a stage in line 3 already"]),
    ("m: {run: x, env: {A: '${run.outcome} ${stages.s.outcome} ${stages.s.two}'}}", ["4:68 's' has no output 'two' (known: one, outcome)"]),
    ("m: {run: x, env: {A: '${stages.n.outcome}'}}, n: {run: x}", [
        "4:33 `stages.n.outcome`: 'm' does not need 'n' (its values are known only to stages that need it: add 'n' to `needs:`)"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FINALLY)
def test_finally_starts_after_all_stages_and_reads_them_all(text: str, expected: list[str]) -> None:
    assert problems(f"name: a\nstages:\n  s: {{run: x, outputs: [one]}}\nfinally: {{{text}}}") == expected


def test_a_stage_in_stages_cannot_reach_into_finally() -> None:
    text = "name: a\nstages: {s: {run: x, needs: m, env: {A: '${stages.m.outcome}'}}}\nfinally: {m: {run: x}}"
    assert problems(text) == [
        "2:29 'm' is in `finally`, which starts after all stages have ended",
        "2:42 `stages.m.outcome`: 'm' is in `finally`, which starts after all stages have ended",
    ]


def test_all_problems_of_a_file_come_at_once_in_the_order_of_its_lines() -> None:
    text = """name: a
paramz: {}
params: {n: {type: int, default: x}}
stages:
  co: {uses: chekout}
  im: {uses: image, needs: [co, comp], with: {imag: x, image: [y]}}
  sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
  sh: {run: x}
  c1: {run: x, needs: c2, executor: local}
  c2: {run: x, needs: c1, env: {A: "${params.q}"}}
"""
    with pytest.raises(InvalidPipeline) as error:
        read(load(text, "f.yaml"), KINDS)
    assert (
        str(error.value)
        == """f.yaml:2:1: unknown key 'paramz'
 2 | paramz: {}
   | ^^^^^^
    did you mean 'params'?
f.yaml:3:34: the default of 'n': 'x' is not a whole number
 3 | params: {n: {type: int, default: x}}
   |                                  ^
f.yaml:5:14: unknown kind 'chekout'
 5 |   co: {uses: chekout}
   |              ^^^^^^^
    did you mean 'checkout'?
f.yaml:6:33: 'im' needs 'comp', which is no stage
 6 |   im: {uses: image, needs: [co, comp], with: {imag: x, image: [y]}}
   |                                 ^^^^
    did you mean 'co'?
f.yaml:6:47: unknown key 'imag'
 6 |   im: {uses: image, needs: [co, comp], with: {imag: x, image: [y]}}
   |                                               ^^^^
    did you mean 'image'?
f.yaml:6:56: `image:` must be a text, not a list
 6 |   im: {uses: image, needs: [co, comp], with: {imag: x, image: [y]}}
   |                                                        ^^^^^
f.yaml:7:16: unknown key 'tmeout'
 7 |   sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
   |                ^^^^^^
    did you mean 'timeout'?
f.yaml:7:37: `timeout:` '20' is no duration: write 90s, 5m, 1h30m, 7d or 500ms, larger units first
 7 |   sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
   |                                     ^^
f.yaml:7:53: `co:` 'okk' is none of ok, optional, ended, all
 7 |   sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
   |                                                     ^^^
    did you mean 'ok'?
f.yaml:7:65: unknown name `params.z`
 7 |   sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
   |                                                                 ^^^^^^^^
    known: n
f.yaml:7:88: the secret 'gone' is not declared
 7 |   sh: {run: x, tmeout: 3m, timeout: 20, needs: {co: okk}, when: params.z, secrets: {A: gone}}
   |                                                                                        ^^^^
f.yaml:8:3: the key 'sh' stands here twice, first in line 7
 8 |   sh: {run: x}
   |   ^^
f.yaml:9:23: stages need each other in a circle: c1 → c2 → c1
 9 |   c1: {run: x, needs: c2, executor: local}
   |                       ^^
f.yaml:9:27: `executor:` is not built yet
 9 |   c1: {run: x, needs: c2, executor: local}
   |                           ^^^^^^^^
f.yaml:10:37: unknown name `params.q`
 10 |   c2: {run: x, needs: c1, env: {A: "${params.q}"}}
    |                                     ^^^^^^^^^^^
    known: n
15 problems"""
    )


def test_a_problem_shows_a_long_line_around_its_place_and_no_control_character() -> None:
    text = "name: a\nstages: {" + ", ".join(f"s{n}: {{run: x}}" for n in range(100)) + ', last: {rum: "\\e[2J"}}'
    with pytest.raises(InvalidPipeline) as error:
        read(load(text, "f.yaml"), KINDS)
    first, excerpt, carets, hint, count = str(error.value).splitlines()
    assert (first, hint, count) == ("f.yaml:2:1507: unknown key 'rum'", "    did you mean 'run'?", "1 problem")
    assert excerpt[carets.index("^") :].startswith("rum")
    assert len(excerpt) < 160
    assert "\x1b" not in str(error.value)


def test_what_an_author_wrote_cannot_move_the_cursor_of_a_terminal() -> None:
    with pytest.raises(InvalidPipeline) as error:
        read(load('name: a\nstages: {s: {run: x, "\\e[2J\\u202e": y}}', "f.yaml"), KINDS)
    assert str(error.value).splitlines()[0] == "f.yaml:2:22: unknown key '\ufffd[2J\ufffd'"


def test_top_level_keys_with_x_are_ignored_and_may_hold_anchors() -> None:
    assert problems("x-a: &a {run: x}\nx-b: [1]\nname: a\nstages: {s: *a}") == []


def test_the_word_of_the_file_is_free_of_what_a_kind_declares_as_script() -> None:
    assert (
        problems(
            stages(
                "s: {run: [echo, '${HOME}', $x]}\n t: {run: 'echo ${HOME:-x}'}\n u: {uses: shell, with: {script: 'a ${b'}}"
            )
        )
        == []
    )
