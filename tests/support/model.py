"""A reference model of a run: what each leaf must end as, worked out by recursion from the words of LANGUAGE alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from pydantic import JsonValue

from pipeline.plan import Leaf, Need, NeedWord
from pipeline.stage import Outcome
from tests.support.runs import probe

__all__ = ["Task", "ends", "graphs", "leaves"]


@dataclass(frozen=True)
class Task:
    """One leaf: what it does when it starts, and what it waits for."""

    does: str
    """`succeed`, `fail`, `flake` (once, then succeed), `crash`, or `skip` by its own condition."""
    retries: int = 0
    allowed: bool = False
    needs: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Leaves of one need, several of them as a fan-out that is needed as a whole → the word."""


Graph = Mapping[str, Task]


@dataclass(frozen=True)
class Expected:
    """How a leaf ends: its outcome, whether that counts as met, whether a condition skipped it, and its attempts."""

    outcome: Outcome
    met: bool
    by_condition: bool = False
    attempts: int = 0


def ends(graph: Graph) -> dict[str, Expected]:
    """How every leaf of a graph ends when nobody interferes."""
    found: dict[str, Expected] = {}
    for name, task in graph.items():  # a leaf needs earlier ones only
        found[name] = _end(task, found)
    return found


def _end(task: Task, known: Mapping[str, Expected]) -> Expected:
    unmet = [reason for names, word in task.needs.items() for reason in _unmet([known[name] for name in names], word)]
    if unmet:
        # a failure weighs more than a condition, whichever came first
        return Expected(Outcome.SKIPPED, met=False, by_condition=all(unmet))
    if task.does == "skip":
        return Expected(Outcome.SKIPPED, met=False, by_condition=True)
    if task.does == "succeed":
        return Expected(Outcome.SUCCEEDED, met=True, attempts=1)
    if task.does == "flake" and task.retries:
        return Expected(Outcome.SUCCEEDED, met=True, attempts=2)
    # only trouble of the world around is worth another try: that is all `flake` fails of
    outcome = Outcome.FAILED if task.does == "fail" else Outcome.ERRORED
    return Expected(outcome, met=task.allowed, attempts=1)


def _unmet(ends: Sequence[Expected], word: str) -> Sequence[bool]:
    """Why a need is not met: for each reason whether it is a condition. Of a fan-out what a condition skipped does
    not count, but one must be left.
    """
    good = [end for end in ends if word == "ended" or end.met or (word == "optional" and end.by_condition)]
    bad = [end for end in ends if end not in good]
    if len(ends) == 1 or not bad:
        return [end.by_condition for end in bad]
    failed = [False for end in bad if not end.by_condition]
    return failed or ([] if good else [True])


# -- as hypothesis and the engine have it ----------------------------------------------------------


def leaves(graph: Graph) -> list[Leaf]:
    """The graph as leaves of a plan."""
    return [_leaf(name, task) for name, task in graph.items()]


FIELDS: Mapping[str, Mapping[str, JsonValue]] = {
    "fail": {"fail": "no"},
    "flake": {"fail_times": 1},
    "crash": {"crash": True},
}


def _leaf(name: str, task: Task) -> Leaf:
    fields = FIELDS.get(task.does, {})
    options: dict[str, object] = {
        "allow_failure": task.allowed,
        "skipped": "false" if task.does == "skip" else "",
        "retry": {"times": task.retries, "wait": "0s"},
    }
    needs = [
        Need(on=names[0], leaves=names, word=NeedWord(word), group=len(names) > 1) for names, word in task.needs.items()
    ]
    return probe(name, needs=needs, options=options, **fields)


@st.composite
def graphs(draw: st.DrawFn, *, largest: int = 9, steady: bool = False) -> Graph:
    """Graphs of a few leaves that end in every way there is; steady ones do so in every attempt."""
    ways = ["succeed", "succeed", "succeed", "fail", "crash", "skip", *([] if steady else ["flake"])]
    graph: dict[str, Task] = {}
    for number in range(draw(st.integers(1, largest))):
        earlier = (
            st.lists(st.sampled_from(sorted(graph)), unique=True, min_size=1, max_size=3) if graph else st.just([])
        )
        chosen = draw(st.lists(earlier.map(tuple), unique=True, max_size=3)) if graph else []
        needs = {names: draw(st.sampled_from(["ok", "ok", "optional", "ended"])) for names in chosen}
        does = draw(st.sampled_from(ways))
        graph[f"s{number}"] = Task(does, draw(st.integers(0, 2)), draw(st.booleans()), needs)
    return graph
