"""`pipe run`: load, resolve, take numbers, drive."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue
from ulid_transform import ulid_now

from pipeline.errors import PipeError
from pipeline.plan import Plan, RunIdentity
from runner.commands.drive import Ready, Wanted, drive
from runner.commands.load import Call, open_call
from runner.commands.resume import go_on, resumable
from runner.commands.source import source_of
from runner.engine import Request
from runner.eviction import bounds
from runner.folder import RunFolder
from runner.guardian import Guardian
from runner.handover import receive
from runner.hosts import Host, detect
from runner.leftovers import clear
from runner.plans import read_plan
from runner.secrets import Secrets, find_secrets
from runner.sinks.mirror import TOKEN, mirrored
from runner.store import Store
from runner.sweep import policy, sweep

__all__ = ["Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """The words of `pipe run`."""

    file: str
    pipelines: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    jobs: int | None = None
    fail_fast: bool = False
    source: str = ""
    allow_dirty: bool = False
    durability: str = "batched"
    resume: bool = False
    blind: bool = False
    """Do not look ahead first."""
    saved: str = ""
    """The file of a plan that was approved, instead of a pipeline's."""
    output: str = "auto"
    secrets_fd: int | None = None
    mirror: str = ""
    junit: str = ""
    summary: str = ""
    guardian: Guardian | None = None


def run(options: Options) -> int:
    """Run the chosen pipelines of a file side by side and return the exit code.

    Raises:
        PipeError: the file or the call is wrong; nothing was started.
    """
    given = receive(options.secrets_fd)
    host = detect(dict(os.environ), given)
    store = Store(host.environ, Path.cwd())
    for note in host.notes:
        sys.stderr.write(f"pipe: {note}\n")
    call, facts = _call(options, host, store)
    ongoing = _ongoing(call, store) if options.resume else {}
    call = replace(call, pipelines=tuple(name for name in call.pipelines if name not in ongoing))
    asked = Request(options.fail_fast, options.jobs or 0, options.durability == "strict", preflight=not options.blind)
    prepared = [go_on(folder, host, store, asked) for folder in ongoing.values()]
    prepared += [
        replace(item, request=replace(asked, facts=facts.get(item.plan.pipeline, {})))
        for item in _prepare(call, store, host, options)
    ]
    # what one of them has as a secret is no variable of another's processes
    hidden = frozenset[str]().union(*(item.secrets.variables for item in prepared))
    prepared = [replace(item, secrets=replace(item.secrets, variables=hidden)) for item in prepared]
    with mirrored(options.mirror, host.environ.get(TOKEN, ""), [item.folder for item in prepared]):
        return drive(prepared, host, options.output, options.guardian, Wanted(options.junit, options.summary))


# -- before anything starts ------------------------------------------------------------------------


def _call(options: Options, host: Host, store: Store) -> tuple[Call, Mapping[str, Mapping[str, JsonValue]]]:
    """What is to be run, and by pipeline what of it is known already."""
    if options.saved:
        from runner.commands.saved import approved

        return approved(Path(options.saved), host, store)
    return open_call(options.file, options.pipelines, options.params, host), {}


def _ongoing(call: Call, store: Store) -> dict[str, RunFolder]:
    """The newest run of each pipeline, where it has no end and nobody works on it."""
    newest: dict[str, RunFolder] = {}
    for name, _, folder in store.runs():
        newest.setdefault(name, folder)
    found = {name: newest[name] for name in call.pipelines if name in newest and resumable(newest[name])}
    given = [name for name in found if call.params[name]]
    if given:
        raise PipeError(
            f"{', '.join(given)} would go on with the parameters that it began with: leave -p or --resume out"
        )
    return found


def _prepare(call: Call, store: Store, host: Host, options: Options) -> list[Ready]:
    """Check everything that can be checked, for all pipelines at once; only then take numbers."""
    keep = policy(host.environ)
    bounds(host.environ)  # one that cannot be read is told before anything begins
    problems: list[PipeError] = []
    found: list[tuple[Plan, Secrets]] = []
    if options.source and not Path(options.source).is_dir():
        raise PipeError(f"--source {options.source}: no such folder")
    for name in call.pipelines:
        try:
            plan = call.plan(name, _identity(store, call.host, name, call.host.number or store.next_number(name)))
            _check_source(plan, options)
            found.append((plan, find_secrets(plan, host, store.path)))
        except PipeError as error:
            problems.append(error)
    if problems:
        raise PipeError("\n".join(dict.fromkeys(map(str, problems))))
    source = source_of(call.path, options.source, host)
    taken = [_take(call, store, plan, secrets, source) for plan, secrets in found]
    if removed := sweep(store, keep):
        sys.stderr.write(f"pipe: little room in {store.path}: removed the workspace(s) of {', '.join(removed)}\n")
    return taken


def _check_source(plan: Plan, options: Options) -> None:
    """`--source` puts one folder in the place of one checkout, and what no commit holds is not released by accident."""
    if not options.source:
        return
    checkouts = [leaf.name for leaf in plan.leaves if leaf.uses == "checkout" and not leaf.never]
    if len(checkouts) != 1:
        raise PipeError(
            f"--source stands for one checkout, and {plan.pipeline} has {len(checkouts)}"
            f"{': ' + ', '.join(checkouts) if checkouts else ''}"
        )
    deploys = sorted({leaf.stage for leaf in plan.leaves if leaf.uses == "deploy" and not leaf.never})
    if deploys and not options.allow_dirty:
        raise PipeError(
            f"--source builds what no commit holds, and {plan.pipeline} would release it ({', '.join(deploys)}): "
            "add --allow-dirty if you mean it"
        )


def _identity(store: Store, host: Host, pipeline: str, number: int) -> RunIdentity:
    previous = store.previous(pipeline, number)
    return RunIdentity(id=host.run or ulid_now(), number=number, previous=previous, url=host.url)


def _take(call: Call, store: Store, plan: Plan, secrets: Secrets, source: Mapping[str, str]) -> Ready:
    """Take a number; the plan was made for the one that was free then."""
    name = plan.pipeline
    _tell_of_the_last(store, name)
    number, folder = store.take(name, call.host.number)
    if number != plan.run.number:
        plan = call.plan(name, _identity(store, call.host, name, number))
    folder.write_plan(plan.model_dump_json(by_alias=True, exclude_defaults=True))
    return Ready(plan, folder, secrets, store.path, caller=Path.cwd(), source=source)


def _tell_of_the_last(store: Store, pipeline: str) -> None:
    """A run that died is not forgotten: what it left is ended, and how to go on with it is said."""
    newest = next((folder for name, _, folder in store.runs() if name == pipeline), None)
    if newest is None or not resumable(newest):
        return
    plan = read_plan(newest)
    name, left = f"{pipeline}#{plan.run.number}", clear(newest, plan)
    ended = f", and {left} process(es) that it had left are ended now" if left else ""
    sys.stderr.write(f"pipe: the engine of {name} died{ended}; `pipe resume '{name}'` goes on with it\n")
