"""What leaves that ended gave to others: the values of open references, and the variables that they export."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from pipeline.plan import Leaf, Plan
from pipeline.stage import Outcome, Outputs, Stage
from runner.environment import exported
from runner.state import RunState, worst

__all__ = ["MissingValue", "Results"]


@dataclass(eq=False)
class MissingValue(Exception):
    """A value that a needed leaf did not give."""

    leaf: str
    output: str


@dataclass
class Results:
    """What is known so far in one run. In `finally` a value that nobody gave is empty."""

    plan: Plan
    state: RunState
    kind: Callable[[str], type[Stage[Outputs]]]
    outcome: Outcome | None = None
    """The run's, from the moment when it is fixed: `finally` has begun."""
    _given: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """Leaf → variable → the values that it and the leaves upstream of it export."""

    def value(self, leaf: Leaf, reference: str) -> JsonValue:
        """What an open reference of a leaf stands for now.

        Raises:
            MissingValue: nobody gave it.
        """
        return self._given_by(*leaf.references[reference])

    def names(self, leaf: Leaf) -> dict[str, JsonValue]:
        """Every name in a leaf's condition with its value; raises MissingValue."""
        waited = {name: self._given_by(*source) for name, source in leaf.when_references.items()}
        return {**leaf.when_values, **waited}

    def _given_by(self, source: str, output: str) -> JsonValue:
        if output == "outcome":
            return self._outcome_of(source).value
        if output == "end":
            return self._end_of(source)
        outputs = self.state.leaf(source).outputs
        if output in outputs:
            return outputs[output]
        if self.outcome:
            return ""
        raise MissingValue(source, output)

    def _outcome_of(self, source: str) -> Outcome:
        """A leaf's outcome, the run's (""), or the worst of a fan-out."""
        if not source:
            return self.outcome or Outcome.SUCCEEDED
        names = [leaf.name for leaf in self.plan.leaves if source in (leaf.name, leaf.stage)]
        leaves = (self.state.leaves.get(name) for name in names)
        return worst(leaf.outcome for leaf in leaves if leaf and leaf.outcome)

    def _end_of(self, source: str) -> JsonValue:
        """How a leaf ended and why; no file can name it, the plan does."""
        leaf = self.state.leaf(source)
        why = {"kind": leaf.cause.kind.value, "message": leaf.cause.message} if leaf.cause else {}
        return {"outcome": leaf.outcome.value if leaf.outcome else "", **why}

    def exports(self, leaf: Leaf) -> dict[str, str]:
        """Variables from the outputs of all leaves upstream; one that two of them give differently is unset."""
        return {name: next(iter(values)) for name, values in self._inherited(leaf).items() if len(values) == 1}

    def give(self, leaf: Leaf, outputs: Mapping[str, JsonValue]) -> None:
        """Take in what a leaf exports, once it has ended; leaves upstream of it first."""
        given = self._inherited(leaf)
        for variable, value in exported(self.kind(leaf.uses), outputs).items():
            given[variable] = {value}
        if given:
            self._given[leaf.name] = given

    def _inherited(self, leaf: Leaf) -> dict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for need in leaf.needs:
            for source in need.leaves:
                for variable, values in self._given.get(source, {}).items():
                    found[variable] |= values
        return found
