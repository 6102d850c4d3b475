"""From a file to a plan: parameters get their values, and what the file leaves open is only what stages will say."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.draft import Kind, Kinds
from pipeline.errors import InvalidPipeline, PipeError, hinted, nearest
from pipeline.layout import Given, Layout
from pipeline.model import PipelineFile
from pipeline.params import Offered, Unset, gather
from pipeline.plan import Concurrency, Leaf, Plan, RunIdentity, SecretSource, Trigger
from pipeline.untrusted import apart, withhold
from pipeline.values import Report

__all__ = ["assignments", "resolve"]


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
    values = gather(pipeline.node, pipeline.spec.params, Offered(params, host_env, unset), report)
    if report.problems:
        raise InvalidPipeline(report.problems)
    layout = Layout(pipeline.name, pipeline.node, pipeline.spec, kinds, Given(run, trigger, values), report)
    if report.problems:
        raise InvalidPipeline(report.problems)
    kind_of = {name: made.kind for name, made in layout.drafts.items()}
    last = layout.last
    leaves = layout.leaves if trigger.trusted else [withhold(leaf, kind_of.get(leaf.stage)) for leaf in layout.leaves]
    return Plan(
        pipeline=pipeline.name,
        file=file.name,
        digest=file.digest,
        run=run,
        trigger=trigger,
        params=values,
        secrets={name: SecretSource(kind=spec.kind, env=spec.env) for name, spec in pipeline.spec.secrets.items()},
        pools=layout.pools,
        timeout=layout.bounds.timeout,
        concurrency=_concurrency(layout) if trigger.trusted else apart(_concurrency(layout)),
        leaves=tuple(leaf for leaf in leaves if leaf.stage not in last),
        finally_=tuple(leaf for leaf in leaves if leaf.stage in last),
        checks_out=any(_checks_out(kind_of.get(leaf.stage), leaf) for leaf in leaves),
    )


def _concurrency(layout: Layout) -> Concurrency | None:
    found = layout.bounds.concurrency
    return Concurrency(group=found.group, busy=found.busy) if found else None


def _checks_out(kind: Kind | None, leaf: Leaf) -> bool:
    return kind is not None and "into" in kind.model_fields and not leaf.never


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
        there = pipeline in file.pipelines
        yield f"-p {word}: " + (f"'{pipeline}' is not run" if there else _no_pipeline(pipeline, chosen))
        return
    asked = [pipeline] if pipeline else list(chosen)
    takers = [name for name in asked if param in file.pipelines[name].spec.params]
    for taker in takers:
        found[taker][param] = value
    if not takers:
        known = {known for name in asked for known in file.pipelines[name].spec.params}
        hint = nearest(param, known) or "the file declares none"
        yield f"-p {word}: there is no parameter '{param}'; {hint}"


def _no_pipeline(name: str, chosen: Sequence[str]) -> str:
    return hinted(f"there is no pipeline '{name}'", name, chosen)
