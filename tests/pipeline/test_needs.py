"""`needs` and `each`: which leaves there are, which of them wait for which, and which leaf a value comes from."""

import pytest

from tests.pipeline.fakes import leaf, needs, plan, problems, stages

AB = "each: [a, b]"


def names(text: str) -> list[str]:
    return [item.name for item in plan(stages(text)).leaves]


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ("[a, b]", ["s[a]", "s[b]"]),
        ("[{name: x.1, port: 80}, {name: y-2}]", ["s[x.1]", "s[y-2]"]),
        ("{jdk: [11, 17], os: [a, b]}", ["s[11,a]", "s[11,b]", "s[17,a]", "s[17,b]"]),
        ("[1.10, 08]", ["s[1.10]", "s[08]"]),
    ],
)
def test_each_makes_a_leaf_for_every_entry_in_its_order(each: str, expected: list[str]) -> None:
    assert names(f"s: {{run: x, each: {each}}}") == expected


def test_each_can_be_a_list_of_vars_or_params() -> None:
    top = "params: {only: {type: list, default: 'a,b'}}\nvars: {l: [{name: c, path: p/c}]}\n"
    text = stages("s: {run: x, each: '${params.only}'}\nt: {run: x, each: '${vars.l}', dir: '${each.path}'}", top)
    assert [item.name for item in plan(text).leaves] == ["s[a]", "s[b]", "t[c]"]
    assert leaf(text, "t[c]").dir == "p/c"


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ("[]", ["3:15 `each:` is an empty list, so there is nothing to do"]),
        ("{}", ["3:15 `each:` is an empty map, so there is nothing to do"]),
        ("x", ["3:21 `each:` must be a list, or a map of lists"]),
        ("{a: x}", ["3:25 'a' must be a list (`each:` is a list, or a map of lists for their product)"]),
        ("{a: []}", ["3:22 'a' is an empty list, so there is nothing to do"]),
        ("{a: [[x]]}", ["3:22 the values of 'a' must be texts"]),
        ("[a, a]", ["3:25 'a' is in it twice (the key of every leaf is its own)"]),
        ("[{nam: a}]", ["3:22 an entry of `each:` that is a map needs a `name`"]),
        ("[[a]]", ["3:22 an entry of `each:` is a text or a map with a `name`, not a list"]),
        ("['a b']", ["3:22 'a b' cannot name a leaf: letters, digits, `.`, `_` and `-`, a letter or digit first"]),
        (
            "{a: &n [" + ",".join(map(str, range(101))) + "], b: *n}",
            ["3:15 `each:` makes 10201 leaves, and a stage has at most 1000"],
        ),
    ],
)
def test_an_each_that_makes_no_leaves_is_refused(each: str, expected: list[str]) -> None:
    assert problems(stages(f"s: {{run: x, each: {each}}}")) == expected


def test_each_x_must_be_in_every_entry() -> None:
    text = stages("s: {run: x, each: [{name: a, p: 1}, {name: b}], env: {P: '${each.p}'}, when: each.p == '1'}")
    assert problems(text) == [
        "3:61 unknown name `each.p`: 'b' has no 'p' (known: name)",
        "3:80 unknown name `each.p`: 'b' has no 'p' (known: name)",
    ]


NEEDS = [
    # what the needed stage is, what the needing one says, which leaf, and its needs
    ("t: {run: x}", "needs: t", "s", [(("t",), "ok", False)]),
    ("t: {run: x}", "needs: [t]", "s", [(("t",), "ok", False)]),
    ("t: {run: x}", "needs: {t: ended}", "s", [(("t",), "ended", False)]),
    ("t: {run: x}", "needs: {t: all}", "s", [(("t",), "ok", False)]),
    ("t: {run: x, each: [a, b]}", "needs: t", "s", [(("t[a]", "t[b]"), "ok", True)]),
    ("t: {run: x, each: [a, b]}", "needs: {t: optional}", "s", [(("t[a]", "t[b]"), "optional", True)]),
    ("t: {run: x, each: [a, b]}", "needs: 't[a]'", "s", [(("t[a]",), "ok", False)]),
    ("t: {run: x, each: [a, b]}", "needs: {'t[b]': ended}", "s", [(("t[b]",), "ended", False)]),
    ("t: {run: x}", "needs: t, each: [a, b]", "s[b]", [(("t",), "ok", False)]),
    ("t: {run: x, each: [a, b]}", "needs: t, each: [a, b]", "s[b]", [(("t[b]",), "ok", False)]),
    ("t: {run: x, each: [a, b, c]}", "needs: t, each: [a, b]", "s[b]", [(("t[b]",), "ok", False)]),
    ("t: {run: x, each: [a, b]}", "needs: {t: all}, each: [a, b]", "s[b]", [(("t[a]", "t[b]"), "ok", True)]),
    ("t: {run: x, each: [a, b]}", "needs: {t: [ended, all]}, each: [c]", "s[c]", [(("t[a]", "t[b]"), "ended", True)]),
    ("t: {run: x, each: {i: [1, 2], j: [3]}}", "needs: t, each: {k: [1], l: [3]}", "s[1,3]", [(("t[1,3]",), "ok", False)]),
]  # fmt: skip


@pytest.mark.parametrize(("other", "words", "name", "expected"), NEEDS)
def test_a_need_is_expanded_to_the_leaves_it_waits_for(
    other: str, words: str, name: str, expected: list[tuple[tuple[str, ...], str, bool]]
) -> None:
    assert needs(leaf(stages(f"{other}\ns: {{run: x, {words}}}"), name)) == expected


def test_fan_outs_that_do_not_match_leaf_by_leaf_ask_for_all() -> None:
    text = stages(f"t: {{run: x, {AB}}}\ns: {{run: x, needs: t, each: [a, c]}}")
    assert problems(text) == ["4:22 't' has no leaf for 'c' (to wait for every leaf of it write `{t: all}`)"]


def test_all_and_one_leaf_contradict_each_other() -> None:
    text = stages(f"t: {{run: x, {AB}}}\ns: {{run: x, needs: {{'t[a]': all}}}}")
    assert problems(text) == ["4:23 't[a]' is one leaf, and `all` asks for every one"]


FROM = "t: {run: x, outputs: [o], each: [a, b]}\nu: {run: x, outputs: [o]}\n"
REFERENCES = [
    ("needs: u", "stages.u.o", "s", ("u", "o")),
    ("needs: t, each: [a, b]", "stages.t.o", "s[b]", ("t[b]", "o")),
    ("needs: {t: all}, each: [a, b]", "stages.t.o", "s[b]", ("t[b]", "o")),
    ("needs: t, each: [a, b]", "stages.t.outcome", "s[a]", ("t[a]", "outcome")),
    ("needs: t", "stages.t[a].o", "s", ("t[a]", "o")),
    ("needs: t", "stages.t.outcome", "s", ("t", "outcome")),
    ("needs: {t: all}, each: [c]", "stages.t.outcome", "s[c]", ("t", "outcome")),
    ("needs: u, each: [c]", "stages.u.o", "s[c]", ("u", "o")),
]


@pytest.mark.parametrize(("words", "reference", "name", "expected"), REFERENCES)
def test_a_value_comes_from_the_leaf_with_the_same_key_or_the_one_that_is_named(
    words: str, reference: str, name: str, expected: tuple[str, str]
) -> None:
    text = stages(FROM + f"s: {{run: x, {words}, env: {{V: '${{{reference}}}'}}}}")
    assert leaf(text, name).references == {reference: expected}


CEL = [(words, reference, name, expected) for words, reference, name, expected in REFERENCES if "[a]." not in reference]


@pytest.mark.parametrize(("words", "reference", "name", "expected"), CEL)
def test_a_condition_takes_its_values_from_the_same_leaves(
    words: str, reference: str, name: str, expected: tuple[str, str]
) -> None:
    text = stages(FROM + f"s: {{run: x, {words}, when: {reference} == 'x'}}")
    made = leaf(text, name)
    assert (made.when, made.when_references) == (f"{reference} == 'x'", {reference: expected})


def test_a_condition_names_a_leaf_by_its_key_in_quotes() -> None:
    made = leaf(stages(FROM + "s: {run: x, needs: t, when: \"stages.t['a'].o == 'x'\"}"), "s")
    assert made.when_references == {"stages.t[a].o": ("t[a]", "o")}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (
            "s: {run: x, needs: t, env: {V: '${stages.t.o}'}}",
            "5:35 't' is fanned out, and 's' is not fanned out alike: which leaf is meant? (write `stages.t[a].o`)",
        ),
        (
            "s: {run: x, needs: {t: all}, each: [a, c], env: {V: '${stages.t.o}'}}",
            "5:56 't' is fanned out, and 's' is not fanned out alike: which leaf is meant? (write `stages.t[a].o`)",
        ),
        ("s: {run: x, needs: t, env: {V: '${stages.t[c].o}'}}", "5:35 't' has no leaf 'c' (known: a, b)"),
        (
            "s: {run: x, needs: t, each: [a, b], env: {V: '${stages.t[a].o}'}}",
            "5:3 's[b]' names `stages.t[a].o` and does not wait for it (to wait for every leaf write `needs: {t: all}`)",
        ),
        (
            "s: {run: x, needs: 't[a]', env: {V: '${stages.t[b].o}'}}",
            "5:3 's' names `stages.t[b].o` and does not wait for it (to wait for every leaf write `needs: {t: all}`)",
        ),
    ],
)
def test_a_value_of_an_unclear_or_unneeded_leaf_is_refused(stage: str, expected: str) -> None:
    assert problems(stages(FROM + stage)) == [expected]


def test_values_reach_through_other_stages() -> None:
    text = stages(FROM + "m: {run: x, needs: u}\ns: {run: x, needs: m, env: {V: '${stages.u.o}'}}")
    assert leaf(text, "s").references == {"stages.u.o": ("u", "o")}


def test_leaves_stand_in_the_order_of_the_file() -> None:
    assert names(f"z: {{run: x, needs: a}}\nm: {{run: x, {AB}}}\na: {{run: x}}") == ["z", "m[a]", "m[b]", "a"]
