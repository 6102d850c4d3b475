"""From a file to a plan: parameters get their values, and what the file leaves open is only what stages will say."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from pydantic import JsonValue

from pipeline.draft import Kinds
from pipeline.errors import InvalidPipeline, PipeError, nearest
from pipeline.layout import Given, Layout
from pipeline.model import Pipeline, PipelineFile
from pipeline.plan import Leaf, Plan, RunIdentity, SecretSource, Trigger
from pipeline.scope import UNSET
from pipeline.spec import ParamSpec
from pipeline.values import Report, entries

__all__ = ["Unset", "assignments", "resolve"]

Unset: TypeAlias = Literal["error", "placeholder"]
_INT: Final = re.compile(r"-?(0|[1-9][0-9]*)")


def resolve(  # noqa: PLR0913 - a plan holds all of its inputs, and each has its own source
    file: PipelineFile,
    pipeline_name: str,
    *,
    run: RunIdentity,
    trigger: Trigger,
    params: Mapping[str, str],
    host_env: Mapping[str, str],
    unset: Unset,
    kinds: Kinds,
) -> Plan:
    """Make the plan of one pipeline of a checked file.

    `params` are those given by `-p`; `unset` says what becomes of one that nobody gives: an error, or
    the text `<unset>` in the plan.

    Raises:
        InvalidPipeline: everything that these values make wrong, or all params that are missing.
    """
    pipeline = file.pipelines[pipeline_name]
    report = Report()
    values = _params(pipeline, params, host_env, unset, report)
    if report.problems:
        raise InvalidPipeline(report.problems)
    layout = Layout(pipeline.name, pipeline.node, pipeline.spec, kinds, Given(run, trigger, values), report)
    if report.problems:
        raise InvalidPipeline(report.problems)
    return Plan(
        pipeline=pipeline.name,
        file=file.name,
        run=run,
        trigger=trigger,
        params=values,
        secrets={name: SecretSource(kind=spec.kind, env=spec.env) for name, spec in pipeline.spec.secrets.items()},
        pools=layout.pools,
        leaves=tuple(leaf for leaf in layout.leaves if not layout.drafts[leaf.stage].last),
        finally_=tuple(leaf for leaf in layout.leaves if layout.drafts[leaf.stage].last),
        checks_out=any(_checks_out(layout, leaf) for leaf in layout.leaves),
    )


def _checks_out(layout: Layout, leaf: Leaf) -> bool:
    kind = layout.drafts[leaf.stage].kind
    return kind is not None and "into" in kind.model_fields and not leaf.skipped


# -- parameters ------------------------------------------------------------------------------------


def assignments(file: PipelineFile, chosen: Sequence[str], words: Sequence[str]) -> dict[str, dict[str, str]]:
    """Split `-p k=v` (to every chosen pipeline that declares `k`) and `-p backend.k=v` (to one).

    Raises:
        PipeError: words that are no assignment, or that no chosen pipeline declares; all of them at once.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in chosen}
    problems = [problem for word in words for problem in _assign(file, chosen, word, found)]
    if problems:
        raise PipeError("\n".join(problems))
    return found


def _assign(file: PipelineFile, chosen: Sequence[str], word: str, found: Mapping[str, dict[str, str]]) -> Iterator[str]:
    name, equals, value = word.partition("=")
    if not equals:
        yield f"-p {word}: write -p NAME=VALUE"
        return
    pipeline, _, param = name.rpartition(".")
    if pipeline and pipeline not in chosen:
        hint = nearest(pipeline, chosen)
        yield (
            f"-p {word}: "
            + ("is not run" if pipeline in file.pipelines else f"there is no pipeline '{pipeline}'")
            + (f"; {hint}" if hint else "")
        )
        return
    asked = [pipeline] if pipeline else list(chosen)
    takers = [name for name in asked if param in file.pipelines[name].spec.params]
    for taker in takers:
        found[taker][param] = value
    if not takers:
        known = {known for name in asked for known in file.pipelines[name].spec.params}
        hint = nearest(param, known) or "the file declares none"
        yield f"-p {word}: there is no parameter '{param}'; {hint}"


def _params(
    pipeline: Pipeline, given: Mapping[str, str], host_env: Mapping[str, str], unset: Unset, report: Report
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, entry in entries(pipeline.node.get("params")):
        spec = pipeline.spec.params[name]
        place = entry.key.place
        if name in given:
            value, origin = _converted(spec, given[name]), f"-p {name}"
        elif spec.env and spec.env in host_env:
            value, origin = _converted(spec, host_env[spec.env]), f"the variable {spec.env}"
        elif "default" in spec.model_fields_set:
            value, origin = _converted(spec, spec.default), "default"
        elif unset == "placeholder":
            found[name] = [UNSET] if spec.type == "list" else UNSET
            continue
        else:
            report.add(place, f"the parameter '{name}' has no value", _ways(name, spec))
            continue
        if fault := check_param(spec, value):
            report.add(place, f"the parameter '{name}', from {origin}: {fault}")
        found[name] = value
    return found


def _ways(name: str, spec: ParamSpec) -> str:
    variable = f", or set the variable {spec.env}" if spec.env else ""
    about = f" ({spec.description})" if spec.description else ""
    return f"give it by -p {name}=VALUE{variable}{about}"


def _converted(spec: ParamSpec, text: JsonValue) -> JsonValue:
    """A text as the type of its parameter; one that cannot be is left for `check_param`."""
    if not isinstance(text, str):
        return text
    if spec.type == "list":
        return [part.strip() for part in text.split(",")] if text else []
    if spec.type == "bool" and text in ("true", "false"):
        return text == "true"
    if spec.type == "int" and _INT.fullmatch(text):
        return int(text)
    return text


def check_param(spec: ParamSpec, value: JsonValue) -> str:
    """What is wrong with the value of a parameter; empty if nothing is."""
    wanted = {"text": str, "bool": bool, "int": int, "list": list}[spec.type]
    if type(value) is not wanted:
        return f"{value!r} is no {spec.type}"
    for item in value if isinstance(value, list) else [value]:
        text = str(item).lower() if isinstance(item, bool) else str(item)
        if spec.choices and text not in spec.choices:
            return f"'{text}' is none of {', '.join(spec.choices)}"
        if spec.pattern is not None and not re.fullmatch(spec.pattern, text):
            return f"'{text}' does not match '{spec.pattern}'"
    return ""
