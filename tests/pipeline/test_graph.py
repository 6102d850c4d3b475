"""Who waits for whom: cycles, order, what lies upstream, and the longest path."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.graph import Reach, ancestors, critical_path, cycles, order, reduced

DIAMOND = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (DIAMOND, ()),
        ({"a": ["a"]}, (("a",),)),
        ({"a": ["b"], "b": ["c"], "c": ["a"], "behind": ["a"]}, (("a", "b", "c"),)),
        ({"x": [], "a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}, (("a", "b"), ("c", "d"))),
        ({"a": ["gone"]}, ()),
    ],
)
def test_every_knot_shows_one_cycle_from_its_first_name(
    needs: dict[str, list[str]], expected: tuple[tuple[str, ...], ...]
) -> None:
    assert cycles(needs) == expected


def test_order_puts_needs_first() -> None:
    assert order(DIAMOND) == ("a", "b", "c", "d")


def test_reach_follows_needs_of_needs() -> None:
    reach = Reach(DIAMOND)
    assert [on for on in DIAMOND if reach.waits("d", on)] == ["b", "c", "a"]
    assert not reach.waits("a", "d")
    assert not reach.waits("d", "nobody")


NEEDS = st.integers(1, 8).flatmap(
    lambda size: st.fixed_dictionaries(
        {str(name): st.lists(st.sampled_from([str(n) for n in range(size)]), max_size=3) for name in range(size)}
    )
)


@given(NEEDS)
def test_reach_agrees_with_networkx_where_there_is_no_cycle(needs: dict[str, list[str]]) -> None:
    if cycles(needs):
        return
    reach = Reach(needs)
    for name in needs:
        assert {on for on in needs if reach.waits(name, on)} == ancestors(needs, name)


@given(NEEDS)
def test_reduced_agrees_with_networkx_where_there_is_no_cycle(needs: dict[str, list[str]]) -> None:
    import networkx as nx

    if cycles(needs):
        return
    graph: nx.DiGraph[str] = nx.DiGraph([(name, on) for name, others in needs.items() for on in others])
    expected = set(nx.transitive_reduction(graph).edges)
    assert {(name, on) for name, others in reduced(needs).items() for on in others} == expected


def test_the_critical_path_is_the_chain_that_took_longest() -> None:
    assert critical_path(DIAMOND, {"a": 1, "b": 5, "c": 2, "d": 1}) == ("a", "b", "d")
    assert critical_path({"a": [], "b": []}, {"a": 1, "b": 9}) == ("b",)


def test_a_graph_without_a_cycle_never_imports_networkx() -> None:
    code = "from pipeline.graph import cycles, Reach; cycles({'a': ['b'], 'b': []}); Reach({'a': []}); import sys; print('networkx' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
