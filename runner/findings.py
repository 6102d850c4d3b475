"""Findings of a preflight: as they stand in the journal, as causes of ends, and as lines for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from pipeline.stage import Cause, CauseKind, Finding, Outcome, Severity

__all__ = ["Told", "as_json", "blocking", "lines", "read", "verdict"]

MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Told:
    """A finding and the leaf that it is about."""

    leaf: str
    finding: Finding


def as_json(told: Told) -> dict[str, JsonValue]:
    """One flat record."""
    finding = told.finding
    return {
        "stage": told.leaf,
        "severity": finding.severity.value,
        "kind": finding.cause.kind.value,
        "message": finding.cause.message,
        "evidence": list(finding.cause.evidence),
        "place": finding.place,
        "about": finding.about,
        "source": finding.source,
        "hint": finding.hint,
    }


def read(record: Mapping[str, Any]) -> Told:
    """From what `as_json` gave."""
    cause = Cause(CauseKind(record["kind"]), record["message"], tuple(record["evidence"]))
    words = {name: str(record[name]) for name in ("place", "about", "source", "hint")}
    return Told(record["stage"], Finding(Severity(record["severity"]), cause, **words))


def blocking(found: Iterable[Told]) -> dict[str, list[Finding]]:
    """The leaves that will fail, each with the reasons."""
    by_leaf: dict[str, list[Finding]] = {}
    for told in found:
        if told.finding.severity is Severity.FAILS:
            by_leaf.setdefault(told.leaf, []).append(told.finding)
    return by_leaf


def verdict(findings: Sequence[Finding]) -> tuple[Outcome, Cause]:
    """How a leaf that will fail ends without having begun: by its first finding, with all others as evidence."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    _, *evidence = (line for finding in findings for line in _told(finding))
    outcome = Outcome.ERRORED if first.cause.kind is CauseKind.INFRA else Outcome.FAILED
    return outcome, Cause(first.cause.kind, f"preflight: {_headline(first)}{more}", tuple(evidence))


def lines(found: Iterable[Told]) -> Iterator[str]:
    """What will fail first. One finding about many leaves is told once."""
    groups: dict[Finding, list[str]] = {}
    for told in found:
        groups.setdefault(told.finding, []).append(told.leaf)
    for severity in Severity:
        for finding, leaves in groups.items():
            if finding.severity is severity:
                first, *details = _told(finding)
                yield f"{severity}: {_names(leaves)}: {first}"
                yield from (f"    {line}" for line in details)


def _names(leaves: Sequence[str]) -> str:
    names = [name for name in leaves if name]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "the run"


def _headline(finding: Finding) -> str:
    where = f" ({finding.place})" if finding.place else ""
    about = f"{finding.about}{where}: " if finding.about else f"{finding.place}: " if finding.place else ""
    return f"{about}{finding.cause.message}"


def _told(finding: Finding) -> Iterator[str]:
    yield _headline(finding)
    yield from finding.cause.evidence
    if finding.source:
        yield f"says {finding.source}"
    if finding.hint:
        yield f"way out: {finding.hint}"
