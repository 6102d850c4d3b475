"""Whether a pod that is ready now will be so in a moment: kubectl's rules call a crash loop done between two crashes.

Without a readiness probe a container is ready as soon as its process exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from stages.clients.kubernetes.objects import Object, dig

__all__ = ["applied_at", "unsteady"]

UNPROBED = 5.0
"""Seconds that a container without a readiness probe must have run."""
AFTER_CRASH = 5.0
"""Seconds that a container must have run longer than it did before its last restart."""
LONG = 60.0
"""Seconds that it must have lived before, for the restart to say nothing about now."""


def unsteady(pods: Sequence[Object], now: datetime) -> str | None:
    """Why ready pods are not trusted yet, None if they are; `now` is by the cluster's clock."""
    for pod in pods:
        specs = {each["name"]: each for each in dig(pod, "spec", "containers") or ()}
        for status in dig(pod, "status", "containerStatuses") or ():
            needed, why = _needed(status, specs.get(status["name"], {}))
            started = dig(status, "state", "running", "startedAt")
            age = (now - _time(started)).total_seconds() if started else 0.0
            if age < needed:
                return f"pod {pod['metadata']['name']}: container {status['name']} {why}; it must run for {needed:g} s"
    return None


def _needed(status: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[float, str]:
    last = dig(status, "lastState", "terminated") or {}
    if status.get("restartCount") and last.get("startedAt") and last.get("finishedAt"):
        lived = (_time(last["finishedAt"]) - _time(last["startedAt"])).total_seconds()
        if lived < LONG:
            return max(lived, 0.0) + AFTER_CRASH, "has been restarted"
    return (0.0, "") if "readinessProbe" in spec else (UNPROBED, "has no readinessProbe")


def applied_at(things: Iterable[Object], manager: str) -> datetime | None:
    """When the cluster took the newest of these applies, by its own clock; None if it does not say."""
    times = [
        _time(entry["time"])
        for thing in things
        for entry in thing["metadata"].get("managedFields") or ()
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and entry.get("time")
    ]
    return max(times, default=None)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
