"""`${…}`: what it is, what it becomes, and that nothing is ever filled in twice."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from pipeline.expressions import ExpressionError, bind, fill, is_open, names, parse, quote, shown


def _unexpected(name: str) -> JsonValue:
    pytest.fail(f"nothing is open, and {name} was looked up")


def filled(text: str, **values: JsonValue) -> JsonValue:
    known = {name.replace("__", "."): value for name, value in values.items()}
    return fill(parse(text).form, known.__getitem__)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${params.a}", [1, "x"]),
        ("${params.n}", 3),
        ("v${params.n}", "v3"),
        ("${params.b}!", "true!"),
        ("${params.t}${params.t}", "tt"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("$${params.t}", "${params.t}"),
        ("$$${params.t}", "$t"),
        ("$HOME costs 5$", "$HOME costs 5$"),
        ("$(date)", "$(date)"),
        ("${stages.a[x,y].out}", "leaf"),
    ],
)
def test_a_name_in_braces_is_replaced_and_a_doubled_dollar_is_one(text: str, result: JsonValue) -> None:
    known: dict[str, JsonValue] = {
        "params.a": [1, "x"],
        "params.n": 3,
        "params.b": True,
        "params.t": "t",
        "stages.a[x,y].out": "leaf",
    }
    assert fill(parse(text).form, known.__getitem__) == result


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("a ${x", 2, "`${` is not closed by `}`"),
        ("${HOME}", 0, "`${HOME}` is no name"),
        ("${params.a:-b}", 0, "`${params.a:-b}` is no name"),
        ("${params.a + 1}", 0, "`${params.a + 1}` is no name"),
        ("${ params.a }", 0, "`${ params.a }` has spaces inside"),
        ("${}", 0, "`${}` is no name"),
        ("${a.b.c.d}", 0, "`${a.b.c.d}` is no name"),
        ("${params.a-b}", 0, "`${params.a-b}` is no name"),
    ],
)
def test_anything_but_a_name_in_braces_is_a_fault_at_its_column(text: str, start: int, message: str) -> None:
    assert [(fault.start, fault.message) for fault in parse(text).faults] == [(start, message)]


@pytest.mark.parametrize("value", [[1], {"a": 1}, None])
def test_inside_a_text_only_scalars_can_stand(value: JsonValue) -> None:
    with pytest.raises(ExpressionError, match=r"`\$\{params.a\}` is .*, which cannot stand inside a text"):
        filled("x${params.a}", params__a=value)


def test_what_is_not_known_stays_open_and_reads_as_it_was_written() -> None:
    form = bind(parse("a ${params.a} ${stages.s.out}").form, {"params.a": "$$ ${stages.s.out}"})
    assert form == {"$": ["a $$ ${stages.s.out} ", {"ref": "stages.s.out"}]}
    assert list(names(form)) == ["stages.s.out"]
    assert shown(form) == "a $$ ${stages.s.out} ${stages.s.out}"


def test_a_name_beside_an_empty_text_is_still_inside_a_text() -> None:
    form = bind(parse("${params.empty}${stages.s.n}").form, {"params.empty": ""})
    assert fill(form, {"stages.s.n": 3}.__getitem__) == "3"


def test_an_open_value_goes_into_another_with_its_text() -> None:
    tag = parse("v${run.number}").form
    form = bind(parse("repo:${vars.tag}").form, {"vars.tag": tag})
    assert form == {"$": ["repo:v", {"ref": "run.number"}]}


def test_keys_are_never_filled_and_no_map_passes_for_a_tag() -> None:
    value: JsonValue = {"${params.a}": 1, "$": [{"ref": "params.a"}], "$$": {"$": ["x"]}}
    assert fill(quote(value), _unexpected) == value
    assert not is_open(quote(value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("$ {}.abstagespr", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("$a", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_plain_value_survives_becoming_a_form(value: JsonValue) -> None:
    form = json.loads(json.dumps(quote(value)))
    assert fill(form, _unexpected) == value


@given(JSON, st.text("$ {}.abstages", max_size=12))
def test_a_filled_in_value_is_never_read_again(value: JsonValue, beside: str) -> None:
    """In the plan and once more at run time: what a parameter says stays what it says."""
    alone = bind(parse("${params.p}").form, {"params.p": quote(value)})
    assert fill(json.loads(json.dumps(alone)), _unexpected) == value
    text = bind(parse("<${params.p}|${stages.s.out}>").form, {"params.p": beside})
    assert fill(json.loads(json.dumps(text)), lambda _: "$${params.p}") == f"<{beside}|$${{params.p}}>"


@given(st.text("ab$ ", max_size=20))
def test_dollars_without_names_are_unescaped_exactly_once(text: str) -> None:
    assert fill(parse(text.replace("$", "$$")).form, _unexpected) == text


@given(st.text(max_size=30))
def test_any_text_can_be_parsed(text: str) -> None:
    fill(parse(text).form, lambda _: "x")
