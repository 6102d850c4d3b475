"""`triggers:`: what is wrong in them, and whether an event starts a run of a pipeline, with which parameters."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Final

from pydantic import JsonValue

from pipeline import conditions
from pipeline.errors import nearest
from pipeline.expressions import ExpressionError, fill, parse
from pipeline.globs import compiled, takes
from pipeline.graph import cycles
from pipeline.plan import Trigger
from pipeline.repository import same_repository
from pipeline.scope import Scope, UnknownName
from pipeline.source import List, Map, Text
from pipeline.spec import (
    CronTrigger,
    PipelineSpec,
    PipelineTrigger,
    PullRequestTrigger,
    PushTrigger,
    TagTrigger,
    Triggers,
    TriggerSpec,
    WebhookTrigger,
)
from pipeline.values import Report, Use, entries, read_value

__all__ = ["Decision", "Event", "check_triggers", "circle", "decide", "repositories_followed"]

_PAYLOAD: Final[Mapping[str, conditions.Type]] = {"body": "any", "headers": "any"}
_SKIP: Final = re.compile(r"\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]", re.IGNORECASE)
_GLOBS: Final = ("branches", "tags", "paths")

# -- checking --------------------------------------------------------------------------------------


def check_triggers(node: Map, spec: PipelineSpec, scope: Scope, report: Report) -> None:
    """Report names and patterns in `triggers:` that mean nothing."""
    whole = dict(entries(node)).get("triggers")
    if whole is None:
        return
    for use in read_value(whole.value, report).uses:
        try:
            _check_name(use, spec)
            scope.find(use.name)
        except UnknownName as error:
            report.add(use.place, str(error), error.hint)
    for word, trigger in _each(whole.value):
        _check(word, trigger, node, report)


def _check_name(use: Use, spec: PipelineSpec) -> None:
    """A trigger is looked at before there is a run: nothing that a run decides can be in it."""
    root, _, name = use.name.partition(".")
    param = spec.params.get(name) if root == "params" else None
    if root == "trigger" and "params" in use.path:
        return
    if param and param.default is None and param.env is None:
        raise UnknownName(f"`triggers:` may use params with a default, and '{name}' has none")
    if root != "params":
        raise UnknownName(f"`triggers:` cannot use `{use.name}`", "use params, and in its `params:` also `trigger.`")


def _each(triggers: object) -> Iterator[tuple[str, Map]]:
    for word, entry in entries(triggers if isinstance(triggers, Map) else None):
        found = entry.value.items if isinstance(entry.value, List) else [entry.value]
        yield from ((word, item) for item in found if isinstance(item, Map))


def _check(word: str, trigger: Map, node: Map, report: Report) -> None:
    declared = dict(entries(node.get("params")))
    for name, entry in (*entries(trigger.get("params")), *entries(trigger.get("values"))):
        if name not in declared:
            report.add(entry.key.place, f"there is no parameter '{name}'", nearest(name, declared))
    for text in _texts(trigger, _GLOBS):
        try:
            compiled(text.value.removeprefix("!"))
        except ValueError as error:
            report.add(text.place, str(error))
    if word == "webhook":
        values = [entry.value for _, entry in entries(trigger.get("values"))]
        for condition in (trigger.get("when"), *values):
            if isinstance(condition, Text):
                _check_payload(condition, report)


def _texts(trigger: Map, keys: Sequence[str]) -> Iterator[Text]:
    for key in keys:
        found = trigger.get(key)
        yield from (item for item in (found.items if isinstance(found, List) else ()) if isinstance(item, Text))


def _check_payload(text: Text, report: Report) -> None:
    for fault in conditions.check(text.value, _PAYLOAD, any_type=True):
        report.add(text.at(fault.start, fault.length), fault.message, "names begin with body, headers")


# -- deciding --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in a repository or elsewhere, as far as it is known."""

    trigger: Trigger
    message: str = ""
    """Of the head commit."""
    paths: Sequence[str] | None = None
    """What changed since the commit of the pipeline's last run there; None when that cannot be said."""
    pipeline: str = ""
    outcome: str = ""
    """Of an event of kind `pipeline`: whose run ended, and how."""
    cron: tuple[str, str] = ("", "")
    """Of an event of kind `cron`: the five fields and the zone whose time has come."""
    body: JsonValue = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of an event of kind `webhook`; names of headers in small letters."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a run starts; if so its parameters, as `-p` would give them, else why not."""

    starts: bool
    why: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


def decide(spec: PipelineSpec, event: Event, *, repo: str, variables: Mapping[str, str]) -> Decision:
    """Whether an event starts a run of a pipeline. The first trigger that it meets gives the parameters.

    `repo` is the repository that the file is in, which triggers without a `repo:` mean; `variables` are those
    of the host, for params with an `env:`.
    """
    kind = event.trigger.kind
    found: Iterable[TriggerSpec] = getattr(spec.triggers or Triggers(), kind, ())
    reasons = []
    for trigger in found:
        reader = _Reader(spec, event, variables)
        try:
            reason = _unmet(trigger, event, repo, reader)
            if not reason:
                return Decision(starts=True, params=_params(trigger, event, reader))
        except (ExpressionError, conditions.ConditionError) as error:
            reason = str(error)
        reasons.append(reason)
    return Decision(starts=False, why="; ".join(dict.fromkeys(reasons)) or f"it has no `{kind}:` trigger")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Fills the names in the values of a trigger."""

    spec: PipelineSpec
    event: Event
    variables: Mapping[str, str]

    def text(self, value: str) -> str:
        filled = fill(parse(value).form, self._known)
        return ",".join(map(str, filled)) if isinstance(filled, list) else _word(filled)

    def texts(self, values: Sequence[str]) -> list[str]:
        return [self.text(value) for value in values]

    def _known(self, name: str) -> JsonValue:
        root, _, word = name.partition(".")
        if root == "trigger":
            return str(getattr(self.event.trigger, word))
        param = self.spec.params[word]
        known: JsonValue = self.variables.get(param.env or "", param.default)
        return known


def _word(value: JsonValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unmet(trigger: TriggerSpec, event: Event, repo: str, reader: _Reader) -> str:
    """Why an event does not meet a trigger; empty when it does."""
    meant = reader.text(trigger.repo) if trigger.repo else repo
    if event.trigger.repo and not same_repository(meant, event.trigger.repo):
        return f"it is for {meant}"
    return _not_met(trigger, event, reader)


@singledispatch
def _not_met(trigger: TriggerSpec, event: Event, reader: _Reader) -> str:  # noqa: ARG001
    return ""


@_not_met.register
def _(trigger: PushTrigger, event: Event, reader: _Reader) -> str:
    return _unmet_change(trigger, event.trigger.branch, event, reader)


@_not_met.register
def _(trigger: PullRequestTrigger, event: Event, reader: _Reader) -> str:
    if event.trigger.fork and not trigger.forks:
        return "pull requests of forks are not taken (`forks: true`)"
    return _unmet_change(trigger, event.trigger.base, event, reader)


@_not_met.register
def _(trigger: TagTrigger, event: Event, reader: _Reader) -> str:
    return _not_taken("tag", reader.texts(trigger.tags), event.trigger.tag)


@_not_met.register
def _(trigger: PipelineTrigger, event: Event, reader: _Reader) -> str:  # noqa: ARG001
    met = (trigger.name, trigger.outcome) == (event.pipeline, event.outcome)
    return "" if met else f"it waits for {trigger.name} {trigger.outcome}"


@_not_met.register
def _(trigger: CronTrigger, event: Event, reader: _Reader) -> str:  # noqa: ARG001
    return "" if (trigger.at, trigger.zone) == event.cron else f"its time is {trigger.at} in {trigger.zone}"


@_not_met.register
def _(trigger: WebhookTrigger, event: Event, reader: _Reader) -> str:  # noqa: ARG001
    if not trigger.when:
        return ""
    try:
        met = conditions.evaluate(trigger.when, _payload(event))
    except conditions.ConditionError as error:
        return f"`when: {trigger.when}` cannot be decided: {error}"
    return "" if met else f"`when: {trigger.when}` is false"


def _unmet_change(trigger: PushTrigger, branch: str, event: Event, reader: _Reader) -> str:
    """Branch and paths, and what the author says."""
    if reason := _not_taken("branch", reader.texts(trigger.branches), branch):
        return reason
    patterns = reader.texts(trigger.paths)
    if patterns and event.paths is not None and not any(takes(patterns, path) for path in event.paths):
        return f"none of the {len(event.paths)} changed files is in `paths:`"
    return _skipped(event)


def _skipped(event: Event) -> str:
    """How the author says that nothing is to start, in the head commit's message or the pull request's title.

    The words are those of GitHub ("skipping workflow runs") and GitLab ("skip a pipeline"), in any case.
    """
    if found := _SKIP.search(event.message):
        return f"the head commit's message says {found[0]}"
    if _skips_checks(event.message):
        return "the head commit's message says skip-checks: true"
    if event.trigger.kind == "pull_request" and (found := _SKIP.search(event.trigger.title)):
        return f"the title of the pull request says {found[0]}"
    return ""


def _skips_checks(message: str) -> bool:
    """Whether one of the trailers, the last paragraph of a message, is `skip-checks: true`."""
    lines = message.rstrip().rpartition("\n\n")[2].splitlines() if "\n\n" in message.rstrip() else []
    return any(re.fullmatch(r"skip-checks:\s*true", line.strip(), re.IGNORECASE) for line in lines)


def _not_taken(what: str, patterns: Sequence[str], name: str) -> str:
    if not patterns or takes(patterns, name):
        return ""
    return f"the {what} {name} is not in {', '.join(patterns)}"


def _params(trigger: TriggerSpec, event: Event, reader: _Reader) -> dict[str, str]:
    found = {name: _param(value, reader) for name, value in trigger.params.items()}
    if isinstance(trigger, WebhookTrigger):
        found |= {name: _value(text, event) for name, text in trigger.values.items()}
    return found


def _param(value: JsonValue, reader: _Reader) -> str:
    return ",".join(_param(item, reader) for item in value) if isinstance(value, list) else reader.text(_word(value))


def _value(text: str, event: Event) -> str:
    try:
        found = conditions.value(text, _payload(event))
    except conditions.ConditionError as error:
        raise conditions.ConditionError(f"`{text}` has no value: {error}") from None
    return ",".join(map(_word, found)) if isinstance(found, list) else _word(found)


def _payload(event: Event) -> dict[str, JsonValue]:
    return {"body": event.body, "headers": dict(event.headers)}


def repositories_followed(spec: PipelineSpec) -> Iterator[tuple[str, str]]:
    """The repository and pipeline of each `pipeline:` trigger that names a repository."""
    reader = _Reader(spec, Event(Trigger(kind="pipeline")), {})
    for trigger in spec.triggers.pipeline if spec.triggers else ():
        if trigger.repo:
            yield reader.text(trigger.repo), trigger.name


def circle(specs: Mapping[str, PipelineSpec]) -> tuple[str, ...]:
    """Pipelines whose ends start each other without end, the first one again at the end; empty if there are none."""
    waits = {
        name: [each.name for each in spec.triggers.pipeline if not each.repo and each.name in specs]
        if spec.triggers
        else []
        for name, spec in specs.items()
    }
    return next(((*found, found[0]) for found in cycles(waits)), ())
