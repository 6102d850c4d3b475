"""Which leaf may start now and which never can: pure bookkeeping over the needs of a plan."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.plan import Leaf, Need, NeedWord
from pipeline.stage import Cause, CauseKind, Outcome

__all__ = ["End", "Schedule"]


@dataclass(frozen=True, slots=True)
class End:
    """How a leaf ended; `allowed` when its failure counts as met."""

    outcome: Outcome
    cause: Cause | None = None
    allowed: bool = False

    @property
    def met(self) -> bool:
        """It does what a need asks for by default."""
        return self.outcome is Outcome.SUCCEEDED or self.allowed

    @property
    def skipped_by_condition(self) -> bool:
        """A `when:` skipped it, its own or one upstream."""
        return self.outcome is Outcome.SKIPPED and self.cause is not None and self.cause.kind is CauseKind.CONDITION


class _NeedCount:
    """One need on its way to be decided; every leaf's end is counted once, so a wide graph stays cheap."""

    __slots__ = ("blocked_by", "met", "need", "open", "uncounted")

    def __init__(self, need: Need) -> None:
        self.need = need
        self.open = len(need.leaves)
        self.met = 0
        self.uncounted: tuple[str, End] | None = None
        self.blocked_by: tuple[str, End] | None = None

    def count(self, name: str, end: End) -> None:
        self.open -= 1
        lenient = self.need.word is NeedWord.OPTIONAL and end.skipped_by_condition
        if self.need.word is NeedWord.ENDED or end.met or lenient:
            self.met += 1
        elif self.need.group and end.skipped_by_condition:
            self.uncounted = self.uncounted or (name, end)
        elif self.blocked_by is None or (self.blocked_by[1].skipped_by_condition and not end.skipped_by_condition):
            self.blocked_by = (name, end)
        if self.open == 0 and self.met == 0:
            self.blocked_by = self.blocked_by or self.uncounted

    @property
    def failed(self) -> bool:
        """It will never be met, and not because of a condition."""
        return self.blocked_by is not None and not self.blocked_by[1].skipped_by_condition


class Schedule:
    """The leaves of a plan in its order, from the first that can start to the last that has ended."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.leaves = {leaf.name: leaf for leaf in leaves}
        self._counts: dict[str, list[_NeedCount]] = {}
        self._watchers: dict[str, list[tuple[str, _NeedCount]]] = defaultdict(list)
        self._open: dict[str, int] = {}
        self._waiting: dict[str, None] = {}
        self._fresh: deque[str] = deque()
        for leaf in leaves:
            self._add(leaf)

    def _add(self, leaf: Leaf) -> None:
        counts = [_NeedCount(need) for need in leaf.needs]
        self._counts[leaf.name] = counts
        self._open[leaf.name] = sum(count.open > 0 for count in counts)
        self._waiting[leaf.name] = None
        self._fresh.append(leaf.name)
        for count in counts:
            for name in count.need.leaves:
                self._watchers[name].append((leaf.name, count))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Leaves that have neither been handed out nor ended."""
        return tuple(self._waiting)

    def ended(self, name: str, end: End) -> None:
        """Take in how a leaf ended."""
        self._waiting.pop(name, None)
        for watcher, count in self._watchers.pop(name, ()):
            count.count(name, end)
            self._open[watcher] -= count.open == 0
            if watcher in self._waiting and (count.failed or not self._open[watcher]):
                self._fresh.append(watcher)

    def ready(self) -> Iterator[tuple[Leaf, Cause | None]]:
        """Leaves that can start now (None) or never will (the cause); each is handed out once.

        Report what never starts with `ended` while iterating: its own dependants follow.
        """
        while self._fresh:
            name = self._fresh.popleft()
            if name not in self._waiting:
                continue
            counts = self._counts[name]
            blocked = next((count for count in counts if count.failed), None)
            if blocked is None and self._open[name]:
                continue  # also when a condition blocks it: a failure to come would weigh more, whoever is quicker
            blocked = blocked or next((count for count in counts if count.blocked_by), None)
            del self._waiting[name]
            yield self.leaves[name], _why_never(blocked) if blocked else None


def _why_never(count: _NeedCount) -> Cause:
    """The cause of a skip: its kind and root are those of the first leaf up the line that did not just skip."""
    name, end = count.blocked_by or ("", End(Outcome.ERRORED))
    if end.skipped_by_condition and end.cause:
        return Cause(CauseKind.CONDITION, f"needs {count.need.on}, {_root_text(end.cause)}", end.cause.evidence)
    if end.outcome is Outcome.SKIPPED and end.cause and end.cause.kind is CauseKind.DEPENDENCY:
        root, how = end.cause.evidence
        return Cause(CauseKind.DEPENDENCY, f"needs {count.need.on}: {root} {how}", end.cause.evidence)
    return Cause(CauseKind.DEPENDENCY, f"needs {count.need.on}: {name} {end.outcome}", (name, end.outcome.value))


def _root_text(cause: Cause) -> str:
    return f"skipped by {cause.evidence[0]}" if cause.evidence else cause.message
