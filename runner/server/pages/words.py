"""How times, ends and defaults are written on pages: the filters of their templates."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.spec import ParamSpec
from runner.server.shown import Delivery, Run
from runner.sinks.tree import Row, clock
from runner.sinks.view import clean
from runner.sizes import size

__all__ = ["FILTERS"]

_RUNS = {"queued": "busy", "running": "busy", "waiting": "busy", "succeeded": "good", "skipped": ""}
_DELIVERIES = {"new": "busy", "done": "good", "failed": "bad", "refused": "bad"}


def _when(at: float) -> Any:
    """A moment, in UTC, for people and for scripts that know where the reader is; nothing for 0."""
    from markupsafe import Markup

    if not at:
        return ""
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"{moment:%Y-%m-%d %H:%M:%S}"
    )


def _mood(shown: Run | Delivery | Row) -> str:
    """The style of how something is; what is neither good nor under way is bad."""
    match shown:
        case Run():
            return _RUNS.get(shown.outcome or shown.state, "bad")
        case Delivery():
            return _DELIVERIES[shown.state]
        case _:
            return _RUNS.get(shown.outcome, "bad") if shown.outcome else "busy" if shown.running else ""


def _took(run: Run, now: float) -> str:
    return clock((run.ended or now) - run.started) if run.started else ""


def _lines(found: Iterable[str]) -> str:
    return "\n".join(clean(line.encode()) for line in found)


def _default_of(spec: ParamSpec) -> str:
    """What a parameter is when nobody gives it."""
    if spec.env:
        return f"the server's {spec.env}"
    if spec.default is None:
        return "has to be given"
    if isinstance(spec.default, list):
        return ", ".join(map(str, spec.default)) or "empty"
    return str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default) or "empty"


def _key(name: str) -> str:
    """What tells a leaf from the others of its stage: `service-hosp` of `image[service-hosp]`, with its title."""
    _, bracket, rest = name.partition("[")
    key, _, title = rest.partition("]")
    return f"{key}{title}" if bracket else name


FILTERS: Mapping[str, Callable[..., Any]] = {
    "when": _when,
    "mood": _mood,
    "took": _took,
    "lines": _lines,
    "default_of": _default_of,
    "key": _key,
    "size": size,
}
