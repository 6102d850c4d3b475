"""One cause out of all that was seen: the sentence, the lines that prove it, and the way out. Pure functions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.clients.crashlog import Complaint, complaint, excerpt, last_complaint
from stages.clients.kubernetes.diagnosis import Trouble
from stages.clients.kubernetes.objects import Object, dig
from stages.clients.kubernetes.remedies import remedy

__all__ = ["Explanation", "Seen", "explain"]

_EVENTS = 6
_LINES = 30
_WIDTH = 500
_RUNS = {"probe", "gate", "starting", "registry"}
"""Troubles of programs that run."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found about one trouble: events, the newest last, and logs of the right container, as they ended.

    `before` is the log of the time before its last restart, `now` that of the present one; `claims` are events about
    the claims that a pod waits for, by the names of these.
    """

    events: Sequence[Object] = ()
    container: str = ""
    before: Sequence[str] = ()
    now: Sequence[str] = ()
    claims: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    missing: str = ""
    """Why there may be more, if so."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`because` is added to what is known of the trouble itself; empty if there is no more to say."""

    because: str
    evidence: tuple[str, ...]
    hint: str


def explain(trouble: Trouble | None, verdict: str, seen: Seen) -> Explanation:
    """Say why, from the trouble, from what was judged of its object, and from what was seen of it."""
    sort = trouble.sort if trouble else ""
    said = _complaint(seen, sort)
    because = _because(said, crashed=sort == "crash") if said else _of_claims(seen)
    message = trouble.message if trouble else verdict
    evidence = tuple(line[:_WIDTH] for line in _evidence(trouble, seen))
    if sort in _RUNS:
        # What the cluster says of a program that runs is sure; what its log says may be another matter.
        ways = (remedy(sort, message), said.hint if said else "")
        return Explanation(because, evidence, "; and ".join(filter(None, ways)))
    return Explanation(because, evidence, (said.hint if said else "") or remedy(sort, f"{message}{because}"))


def _complaint(seen: Seen, sort: str) -> Complaint | None:
    """What the program says; of one that runs only what it complains of now, of one that crashed its last words too."""
    read = last_complaint if sort in _RUNS else complaint
    found = [said for said in (read(seen.now), read(seen.before)) if said]
    sure = next((said for said in found if said.sure), None)
    return sure or (next(iter(found), None) if sort == "crash" else None)


def _because(said: Complaint, *, crashed: bool) -> str:
    if not said.sure:
        return f"; its last words: {said.message}"
    return f": {said.message}" if crashed else f"; its log says: {said.message}"


def _of_claims(seen: Seen) -> str:
    for name, events in seen.claims.items():
        wrong = [event for event in events if event.get("type") != "Normal"]
        if wrong:
            return f"; PersistentVolumeClaim {name}: {_text(wrong[-1])}"
    return ""


def _evidence(trouble: Trouble | None, seen: Seen) -> list[str]:
    lines = [trouble.detail] if trouble and trouble.detail else []
    lines += [_event(event) for event in seen.events if event.get("type") != "Normal"][-_EVENTS:]
    for name, events in seen.claims.items():
        lines += [f"PersistentVolumeClaim {name}: {_event(event)}" for event in events][-_EVENTS:]
    same = list(seen.before) == list(seen.now)
    lines += _titled(f"log of {seen.container} before its last restart", [] if same else seen.before)
    lines += _titled(f"log of {seen.container}", seen.now)
    return lines + ([f"there may be more: {seen.missing}"] if seen.missing else [])


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    """The lines of a log that are worth reading; of an empty log nothing."""
    gone = len(lines) == 1 and lines[0].startswith("unable to retrieve container logs")
    useful = excerpt(lines, _LINES) if lines and not gone else []
    return [f"--- {title}, {len(useful)} of its last {len(lines)} lines ---", *useful] if useful else []


def _event(event: Mapping[str, Any]) -> str:
    count = event.get("count") or dig(event, "series", "count") or 1
    times = f" ({count} times)" if count > 1 else ""
    return f"event {event.get('reason')}{times}: {_text(event)}"


def _text(event: Mapping[str, Any]) -> str:
    return re.sub(r"\s+", " ", str(event.get("message"))).strip()
