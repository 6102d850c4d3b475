"""`when:` in CEL: its names, what is wrong with it, and what it says."""

import pytest
from pydantic import JsonValue

from pipeline.conditions import ConditionError, check, check_syntax, evaluate, uses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size(params.only) == 0 || each.name in params.only", ["params.only", "each.name", "params.only"]),
        ("params.x.startsWith('a')", ["params.x"]),
        ("stages.a.outcome == 'succeeded'", ["stages.a.outcome"]),
        ("stages.a['x,y'] . out == stages.b[\"z\"].out", ["stages.a[x,y].out", "stages.b[z].out"]),
        ("'params.a' == r'params.b' // params.c", []),
        ('"""params.a" params.b""" == ""', []),
        ("a.params.b == 1", []),
        ("params.list.exists(x, x == params.a)", ["params.list", "params.a"]),
        ("stages.a-b == 1", ["stages.a"]),
        ("params", ["params"]),
    ],
)
def test_the_names_of_a_condition_are_found_outside_of_its_texts(text: str, expected: list[str]) -> None:
    assert [use.name for use in uses(text)] == expected


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("params.t == 1", 9, "`==` cannot take (text, int)"),
        ("params.t + 1 == 2", 9, "`+` cannot take (text, int)"),
        ("params.t", 0, "a condition is true or false, this is a text"),
        ("params.n", 0, "a condition is true or false, this is a number"),
        ("1 +", 3, "not valid CEL: it ends too early"),
        ("params.n == 1\n  && oops", 19, "unknown name 'oops'"),
        ("stages.s['k'].t == 1", 16, "`==` cannot take (text, int)"),
        ("!params.t", 0, "`!` cannot take (text)"),
    ],
)
def test_what_cel_finds_wrong_is_said_at_its_column(text: str, start: int, message: str) -> None:
    faults = check(text, {"params.t": "text", "params.n": "int", "stages.s[k].t": "text"})
    assert [(fault.start, fault.message) for fault in faults] == [(start, message)]


@pytest.mark.parametrize("text", ["params.b", "!params.b && params.f > 1.0", "size(params.l) > 0", "'x' in params.m"])
def test_a_sound_condition_has_no_faults(text: str) -> None:
    assert check(text, {"params.b": "bool", "params.f": "float", "params.l": "list", "params.m": "map"}) == ()


def test_syntax_is_checked_whatever_the_names_mean() -> None:
    assert check_syntax("nothing.known == 1") == ()
    assert [fault.message for fault in check_syntax("a ? b")] == ["not valid CEL: it ends too early"]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("size(params.only) == 0", {"params.only": []}, True),
        ("each.name in params.only", {"each.name": "a", "params.only": ["b"]}, False),
        ("params.n > 2 && !trigger.fork", {"params.n": 3, "trigger.fork": False}, True),
        ("params.t.matches('^v')", {"params.t": "v1"}, True),
        ("params.t.matches('v')", {"params.t": "a-v-b"}, True),
        ("stages.s['11,a'].out == 'x'", {"stages.s[11,a].out": "x"}, True),
        ("stages.s['a'].n + stages.s['b'].n == 3", {"stages.s[a].n": 1, "stages.s[b].n": 2}, True),
        ("run.outcome != 'succeeded'", {"run.outcome": "failed"}, True),
    ],
)
def test_a_condition_says_true_or_false(text: str, names: dict[str, JsonValue], expected: bool) -> None:  # noqa: FBT001
    assert evaluate(text, names) is expected


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("params.l[3] == 'a'", {"params.l": ["a"]}, "a list of 1 has no item 3"),
        ("vars.m.q == 'b'", {"vars.m": {}}, "vars.m has no 'q'"),
        ("params.t", {"params.t": "true"}, "it is neither true nor false but 'true'"),
        ("params.t.matches('(')", {"params.t": "a"}, "invalid regular expression: missing ): ("),
        ("params.gone", {}, "unknown name 'params.gone'"),
    ],
)
def test_a_condition_that_cannot_be_evaluated_is_an_error_and_never_true(
    text: str, names: dict[str, JsonValue], message: str
) -> None:
    with pytest.raises(ConditionError) as error:
        evaluate(text, names)
    assert str(error.value) == message
