"""`pipe resume` and `pipe rerun`: going on with a run whose engine died, and running parts of one again that ended."""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipeError
from pipeline.plan import Plan
from runner.commands.drive import Ready, Wanted, drive
from runner.engine import Request
from runner.folder import RunFolder
from runner.guardian import Guardian
from runner.handover import receive
from runner.hosts import Host, detect
from runner.leftovers import clear
from runner.ownership import Taken
from runner.plans import read_plan, read_run
from runner.reopen import all_leaves, failed_leaves, leaves_from
from runner.secrets import find_secrets
from runner.sinks.mirror import TOKEN, mirrored
from runner.state import RunState, fold
from runner.store import Store

__all__ = ["Again", "Options", "go_on", "resumable", "resume"]


@dataclass(frozen=True, slots=True)
class Again:
    """Which part of a run that has ended is wanted once more: everything unless something is named."""

    stages: tuple[str, ...] = ()
    failed: bool = False

    def leaves(self, plan: Plan, state: RunState) -> Mapping[str, str]:
        """The leaves, each with the reason why."""
        if self.failed:
            return failed_leaves(plan, state)
        return leaves_from(plan, self.stages) if self.stages else all_leaves(plan)


@dataclass(frozen=True, slots=True)
class Options:
    """The words of `pipe resume` (`again` is None) and `pipe rerun`; `cancelled_by`: take it over only to end it."""

    run: str = ""
    again: Again | None = None
    jobs: int | None = None
    output: str = "auto"
    cancelled_by: str = ""
    blind: bool = False
    """Do not look ahead first."""
    secrets_fd: int | None = None
    mirror: str = ""
    junit: str = ""
    summary: str = ""
    guardian: Guardian | None = None


def resume(options: Options) -> int:
    """Take a run over and drive it to its end; the exit code is that of `pipe run`.

    Raises:
        PipeError: there is no such run, somebody has it, or there is nothing left to do.
    """
    given = receive(options.secrets_fd)
    host = detect(dict(os.environ), given)
    store = Store(host.environ, Path.cwd())
    folder = _meant(options, store)
    with mirrored(options.mirror, host.environ.get(TOKEN, ""), [folder]):  # also of a run that has ended already
        return _resume(options, host, store, folder)


def _resume(options: Options, host: Host, store: Store, folder: RunFolder) -> int:
    epoch = _claim(folder)
    try:
        ready, state = _reopened(folder, epoch, host, store, last_only=bool(options.cancelled_by))
        again = _wanted(options.again, ready.plan, state)
    except PipeError:
        folder.ownership.release(epoch)
        raise
    asked = Request(jobs=options.jobs or 0, again=again, cancelled_by=options.cancelled_by, preflight=not options.blind)
    ready = replace(ready, request=_as_begun(state, asked))
    return drive([ready], host, options.output, options.guardian, Wanted(options.junit, options.summary))


def _as_begun(state: RunState, asked: Request) -> Request:
    """What the call that began the run wanted, and what is asked for on top of it now."""
    begun = state.begun
    return replace(
        asked,
        fail_fast=asked.fail_fast or begun.fail_fast,
        jobs=asked.jobs or begun.jobs,
        strict=asked.strict or begun.strict,
        preflight=asked.preflight and begun.preflight,
    )


def _wanted(again: Again | None, plan: Plan, state: RunState) -> Mapping[str, str] | None:
    """What is to be run again; None when a run just goes on."""
    name = f"{plan.pipeline}#{plan.run.number}"
    if again is None and state.outcome:
        raise PipeError(f"{name} has ended: {state.outcome}; `pipe rerun '{name}'` runs it or a part of it again")
    if again is not None and not state.outcome:
        raise PipeError(f"{name} has no end yet: `pipe resume '{name}'` goes on with it")
    return again.leaves(plan, state) if again else None


def _meant(options: Options, store: Store) -> RunFolder:
    """The run that is named; to resume of a pipeline, or of all, the newest one that has no end."""
    names = {name for name, _, _ in store.runs()}
    if options.again or (options.run and options.run not in names):
        return store.find(options.run)
    for name, _, folder in store.runs():
        if options.run in ("", name) and resumable(folder):
            return folder
    raise PipeError(f"there is nothing to resume in {store.path}: every run has ended, or is running")


def resumable(folder: RunFolder) -> bool:
    """Whether a run has begun, has no end, and nobody works on it."""
    owner = folder.ownership.owner()
    if not folder.plan.exists() or (owner and owner.alive()):
        return False
    try:
        return fold(folder.records()).outcome is None
    except ValueError:  # somebody has spoiled its journal
        return False


def go_on(folder: RunFolder, host: Host, store: Store, asked: Request) -> Ready:
    """Become the engine of a run that has no end.

    Raises:
        PipeError: a secret is missing, another engine has the run, or it has ended meanwhile.
    """
    epoch = _claim(folder)
    try:
        ready, state = _reopened(folder, epoch, host, store)
        _wanted(None, ready.plan, state)
    except PipeError:
        folder.ownership.release(epoch)
        raise
    return replace(ready, request=_as_begun(state, asked))


def _claim(folder: RunFolder) -> int:
    plan = read_plan(folder)
    try:
        return folder.ownership.claim()
    except Taken as taken:
        raise PipeError(f"{plan.pipeline}#{plan.run.number} is being run by {taken.owner}") from None


def _reopened(
    folder: RunFolder, epoch: int, host: Host, store: Store, *, last_only: bool = False
) -> tuple[Ready, RunState]:
    """A run that is ours now, and what had become of it."""
    plan, state = read_run(folder)
    home = _home(folder, plan, store)
    secrets = find_secrets(plan, host, home, last_only=last_only)
    if left := clear(folder, plan):
        sys.stderr.write(f"pipe: ended {left} process(es) that the dead engine had left\n")
    _tell_of_changes(plan, state)
    caller = Path(state.begun.folder)
    if not plan.checks_out and not (state.begun.folder and caller.is_dir()):
        caller = Path.cwd()
    return Ready(plan, folder, secrets, home, epoch, caller, dict(state.begun.source)), state


def _home(folder: RunFolder, plan: Plan, store: Store) -> Path:
    """The store that a run lies in; of a folder that was copied elsewhere the one that we stand in."""
    above = folder.path.parent
    in_store = (folder.path.name, above.name) == (str(plan.run.number), plan.pipeline)
    return above.parent if in_store else store.path


def _tell_of_changes(plan: Plan, state: RunState) -> None:
    """The plan of the run holds, whatever its file says by now."""
    file = Path(state.begun.source.get("PIPE_SOURCE", "."), Path(plan.file).name)
    try:
        changed = plan.digest and hashlib.sha256(file.read_bytes()).hexdigest() != plan.digest
    except OSError:
        return
    if changed:
        sys.stderr.write(f"pipe: {file} has changed since; the plan of the run is used, not the file\n")
