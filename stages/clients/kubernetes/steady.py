"""Whether a pod that is ready now will be so in a moment: kubectl's rules call a crash loop done between two crashes.

Without a readiness probe a container is ready as soon as its process exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stages.clients.kubernetes.objects import Object, dig

__all__ = ["Sightings", "unsteady"]

UNPROBED = 5.0
"""Seconds that a container without a readiness probe must have run."""
AFTER_CRASH = 5.0
"""Seconds that a container must have run longer than it did before its last restart."""
LONG = 60.0
"""Seconds of a life after which its beginning, or a restart before it, says nothing about now."""


@dataclass(slots=True)
class Sightings:
    """When each life of a container was first seen: a busy kubelet tells of an end seconds after it."""

    _since: datetime | None = None
    _first: dict[tuple[str, str, str], datetime] = field(default_factory=dict)

    def look(self, now: datetime) -> None:
        """Begin to look, at the first time."""
        self._since = self._since or now

    def seconds(self, pod: str, container: str, started: str, now: datetime) -> float:
        """For how long it has been seen running without a word of its end, at most as long as it says itself.

        Where we were looking when it started, we know how late its node told so: a word of its end may be as late.
        One that has run for long was seen by its kubelet often enough.
        """
        began = _time(started)
        first = self._first.setdefault((pod, container, started), now)
        late = (first - began).total_seconds() if self._since and began >= self._since else 0.0
        lived, seen = (now - began).total_seconds(), (now - first).total_seconds() - max(late, 0.0)
        return lived if lived >= LONG else max(min(lived, seen), 0.0)

    def forget(self) -> None:
        """Let everything count from when it is seen next."""
        self._since = None
        self._first.clear()


def unsteady(pods: Sequence[Object], now: datetime, sightings: Sightings) -> str | None:
    """Why ready pods are not trusted yet, None if they are; `now` is by the cluster's clock."""
    sightings.look(now)
    # Every container is looked at, so that the time of each counts from the first look.
    doubts = [doubt for pod in pods for doubt in _doubts(pod, now, sightings)]
    return doubts[0] if doubts else None


def _doubts(pod: Object, now: datetime, sightings: Sightings) -> list[str]:
    specs = {each["name"]: each for each in dig(pod, "spec", "containers") or ()}
    found = []
    for status in dig(pod, "status", "containerStatuses") or ():
        needed, why = _needed(status, specs.get(status["name"], {}))
        started = dig(status, "state", "running", "startedAt")
        age = sightings.seconds(pod["metadata"]["uid"], status["name"], started, now) if started else 0.0
        if age < needed:
            where = f"pod {pod['metadata']['name']}: container {status['name']}"
            found.append(f"{where} {why}; it must run for {needed:g} s")
    return found


def _needed(status: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[float, str]:
    last = dig(status, "lastState", "terminated") or {}
    if status.get("restartCount") and last.get("startedAt") and last.get("finishedAt"):
        lived = (_time(last["finishedAt"]) - _time(last["startedAt"])).total_seconds()
        if lived < LONG:
            return max(lived, 0.0) + AFTER_CRASH, "has been restarted"
    return (0.0, "") if "readinessProbe" in spec else (UNPROBED, "has no readinessProbe")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
