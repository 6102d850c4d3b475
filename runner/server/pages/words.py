"""How times, ends and defaults are written on pages: the filters of their templates."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pipeline.spec import ParamSpec
from runner.server.shown import Delivery, Run
from runner.sinks.closing import count
from runner.sinks.tree import Row, clock
from runner.sinks.view import clean
from runner.sizes import size
from runner.state import LeafState

__all__ = ["FILTERS"]

_RUNS = {"queued": "busy", "running": "busy", "waiting": "busy", "succeeded": "good", "skipped": ""}
_REPORTS = {
    "junit.xml": "every stage and test, for programs",
    "summary.html": "this run as a page to keep or to mail",
    "problems.sarif": "what compilers complained of, for editors and forges",
}
_FOUND = {"hook": "told by a hook", "poll": "found by a look at the repository, no hook told of it"}
_A_RUN = re.compile(r"(?P<pipeline>\S+): #(?P<number>[0-9]{1,9}) ")
"""Of the note of a delivery a line that names a run."""
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


def _mood(shown: Run | Delivery | Row | LeafState) -> str:
    """The style of how something is; what is neither good nor under way is bad."""
    match shown:
        case Run():
            return _RUNS.get(shown.outcome or shown.state, "bad")
        case Delivery():
            return _DELIVERIES[shown.state] if shown.state != "done" or _runs_of(shown) else ""
        case _:
            return _RUNS.get(shown.outcome, "bad") if shown.outcome else "busy" if shown.running else ""


def _took(run: Run, now: float) -> str:
    return clock((run.ended or now) - run.started) if run.started else ""


def _became(delivery: Delivery) -> str:
    """What became of a delivery, in a word or two."""
    if delivery.state == "done":
        return "runs" if _runs_of(delivery) else "nothing started"
    return "waits" if delivery.state == "new" else delivery.state


def _runs_of(delivery: Delivery) -> bool:
    return any(map(_A_RUN.match, delivery.note.splitlines()))


def _told(delivery: Delivery) -> Any:
    """What is noted of a delivery, where each run that it names is a link."""
    from markupsafe import Markup, escape

    def line(text: str) -> Markup:
        if not (run := _A_RUN.match(text)):
            return escape(text)
        path = f"/projects/{quote(delivery.project)}/runs/{quote(run['pipeline'])}/{run['number']}"
        return Markup('<a href="{}">{}</a>').format(path, text)

    return Markup("\n").join(map(line, delivery.note.splitlines()))


def _lines(found: Iterable[str]) -> str:
    return "\n".join(clean(line.encode()) for line in found)


def _because(run: Run) -> str:
    """Why a run is there: `push by ann, told by a hook`."""
    by = f" by {run.trigger.author}" if run.trigger.author else ""
    match run.trigger.kind:
        case "manual":
            return f"started by hand{by}"
        case "cron":
            return "its time had come (`cron:`)"
        case "pipeline":
            return "another run had ended"
        case kind:
            return f"{kind.replace('_', ' ')}{by}, {_FOUND.get(run.found_by, run.found_by)}"


def _titled(name: str) -> tuple[str, str]:
    """The name of a row of the tree, and what stands behind it: a title, or how many leaves are green."""
    name, _, rest = name.partition("  ")
    return name, rest


def _kept(path: str) -> tuple[str, str]:
    """What a file that a run left is called, and which stage left it; reports are of the whole run."""
    _, _, rest = path.partition("/")
    leaf, slash, name = rest.partition("/")
    if not slash:
        return path, _REPORTS.get(path, "")
    leaf, _, attempt = leaf.rpartition(".")
    return name, f"of {leaf.replace('%2F', '/')}" + (f", attempt {attempt}" if attempt != "1" else "")


def _web(url: str) -> str:
    """An address that came from outside, if a link may lead there; else nothing."""
    return url if url.startswith(("https://", "http://")) else ""


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
    "because": _because,
    "titled": _titled,
    "kept": _kept,
    "tested": count,
    "web": _web,
    "became": _became,
    "told": _told,
}
