"""Who waits for whom: cycles, order, what lies upstream, and the longest path.

A graph is a mapping of a name to the names that it needs. networkx costs as much to import as the rest
of a start, so it is asked where it answers more than a yes: a graph without a cycle never loads it.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["Needs", "Reach", "ancestors", "critical_path", "cycles", "order", "reduced"]

Needs: TypeAlias = Mapping[str, Iterable[str]]


def cycles(needs: Needs) -> tuple[tuple[str, ...], ...]:
    """One cycle of every knot of the graph, each from its first name in the graph's order; empty if there is none."""
    knotted = set(needs) - set(_peeled(needs))
    if not knotted:
        return ()
    import networkx as nx

    graph = _graph({name: [on for on in needs[name] if on in knotted] for name in needs if name in knotted})
    found = []
    for knot in nx.strongly_connected_components(graph):
        first = next(name for name in needs if name in knot)
        if len(knot) > 1 or graph.has_edge(first, first):
            edges = nx.find_cycle(graph.subgraph(knot), first)
            found.append(_from_first([edge[0] for edge in edges], list(needs)))
    return tuple(sorted(found, key=lambda cycle: list(needs).index(cycle[0])))


def order(needs: Needs) -> tuple[str, ...]:
    """Names so that each comes after those it needs, else in the graph's own order. The graph has no cycle."""
    return tuple(_peeled(needs))


class Reach:
    """Who waits for whom, directly or through others. What is on or behind a cycle waits for nobody."""

    def __init__(self, needs: Needs) -> None:
        self._bits = {name: 1 << index for index, name in enumerate(needs)}
        self._waits = dict.fromkeys(needs, 0)
        for name in _peeled(needs):
            for on in needs[name]:
                self._waits[name] |= self._bits.get(on, 0) | self._waits.get(on, 0)

    def waits(self, name: str, on: str) -> bool:
        """Whether `name` starts after `on` has ended."""
        return bool(self._waits.get(name, 0) & self._bits.get(on, 0))

    def direct(self, others: Iterable[str]) -> tuple[str, ...]:
        """Those of some names that no other of them waits for."""
        others = tuple(others)
        behind = 0
        for name in others:
            behind |= self._waits.get(name, 0)
        return tuple(name for name in others if not behind & self._bits.get(name, 0))


def reduced(needs: Needs) -> dict[str, tuple[str, ...]]:
    """The graph without the needs that follow from others (its transitive reduction). The graph has no cycle."""
    reach = Reach(needs)
    return {name: reach.direct(others) for name, others in needs.items()}


def ancestors(needs: Needs, name: str) -> frozenset[str]:
    """All that one name needs, directly or through others."""
    import networkx as nx

    return frozenset(nx.descendants(_graph(needs), name))


def critical_path(needs: Needs, durations: Mapping[str, float]) -> tuple[str, ...]:
    """The chain of needs that took longest: what has to become faster for the whole to become faster."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(needs)
    graph.add_edges_from(
        (on, name, {"weight": durations.get(name, 0.0)}) for name, others in needs.items() for on in others
    )
    # a path's weight is on its edges: every first one hangs on a common start
    first = [name for name in needs if not graph.in_degree(name)]
    graph.add_edges_from(("", name, {"weight": durations.get(name, 0.0)}) for name in first)
    return tuple(nx.dag_longest_path(graph)[1:])


def _graph(needs: Needs) -> "nx.DiGraph[str]":
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(needs)
    graph.add_edges_from((name, on) for name, others in needs.items() for on in others)
    return graph


def _peeled(needs: Needs) -> list[str]:
    """Names in an order in which they could start; those on or behind a cycle never can and are missing."""
    waiting = {name: len({on for on in others if on in needs}) for name, others in needs.items()}
    watchers: dict[str, list[str]] = {name: [] for name in needs}
    for name, others in needs.items():
        for on in set(others) & needs.keys():
            watchers[on].append(name)
    ready = [name for name, count in waiting.items() if count == 0]
    for name in ready:
        for watcher in watchers[name]:
            waiting[watcher] -= 1
            if waiting[watcher] == 0:
                ready.append(watcher)
    return ready


def _from_first(cycle: list[str], names: list[str]) -> tuple[str, ...]:
    start = min(range(len(cycle)), key=lambda index: names.index(cycle[index]))
    return tuple(cycle[start:] + cycle[:start])
