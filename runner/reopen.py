"""Which leaves of a run that has ended are run again, and why: pure functions of its plan and its state."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import PipeError, hinted
from pipeline.plan import Leaf, Plan
from pipeline.stage import CauseKind, Outcome
from runner.state import LeafState, RunState

__all__ = ["above", "all_leaves", "below", "failed_leaves", "leaves_from"]

ASKED = "somebody asked for it"


def all_leaves(plan: Plan) -> dict[str, str]:
    """Everything again."""
    return _with_finally(plan, {leaf.name: ASKED for leaf in plan.leaves})


def leaves_from(plan: Plan, names: Sequence[str]) -> dict[str, str]:
    """These stages or leaves, and what needs them.

    Raises:
        PipeError: there is no such stage or leaf in the plan.
    """
    chosen: dict[str, str] = {}
    for name in names:
        found = [leaf.name for leaf in plan.leaves if name in (leaf.name, leaf.stage)]
        if not found:
            known = {leaf.stage for leaf in plan.leaves} | {leaf.name for leaf in plan.leaves}
            raise PipeError(hinted(f"{plan.pipeline} has no stage '{name}'", name, known))
        chosen |= dict.fromkeys(found, ASKED)
    return _with_finally(plan, below(plan, chosen))


def failed_leaves(plan: Plan, state: RunState) -> dict[str, str]:
    """All that did not succeed and was not skipped by a condition, and what needs it.

    Raises:
        PipeError: there is nothing of that sort.
    """
    chosen = {
        leaf.name: f"it was {state.leaves[leaf.name].outcome}"
        for leaf in plan.leaves
        if leaf.name in state.leaves and _is_bad(state.leaves[leaf.name])
    }
    if not chosen:
        raise PipeError(f"nothing in {plan.pipeline}#{plan.run.number} failed: there is nothing to run again")
    return _with_finally(plan, below(plan, chosen))


def below(plan: Plan, chosen: Mapping[str, str]) -> dict[str, str]:
    """The chosen leaves with everything that needs one of them, in the plan's order."""
    found = dict(chosen)
    needed_by = _needed_by(plan.leaves)
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        for other in needed_by.get(name, ()):
            if other not in found:
                found[other] = f"it needs {name}, which runs again"
                waiting.append(other)
    return {leaf.name: found[leaf.name] for leaf in plan.leaves if leaf.name in found}


def above(leaves: Iterable[Leaf], names: Iterable[str]) -> set[str]:
    """Everything that one of these leaves needs, directly or through others."""
    needs = {leaf.name: [name for need in leaf.needs for name in need.leaves] for leaf in leaves}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        for name in needs[waiting.pop()]:
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _needed_by(leaves: Iterable[Leaf]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for leaf in leaves:
        for need in leaf.needs:
            for name in need.leaves:
                found.setdefault(name, []).append(leaf.name)
    return found


def _with_finally(plan: Plan, chosen: Mapping[str, str]) -> dict[str, str]:
    return {**chosen, **{leaf.name: "it follows every run" for leaf in plan.finally_}}


def _is_bad(leaf: LeafState) -> bool:
    by_condition = leaf.cause is not None and leaf.cause.kind is CauseKind.CONDITION
    return leaf.outcome is not Outcome.SUCCEEDED and not by_condition
