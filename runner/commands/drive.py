"""Driving runs to their ends: an engine for each, one console, signals, and the exit code."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from pipeline.errors import PipeError
from pipeline.plan import Plan
from pipeline.stage import Outcome
from runner.attempt import World
from runner.context import Facts
from runner.engine import FIRST, Engine, Pools, Request
from runner.eviction import bounds, due, evict
from runner.folder import RunFolder
from runner.guardian import Guardian
from runner.hosts import Host
from runner.journal import EpochLost, Journal
from runner.mask import MINIMUM, Masker
from runner.secrets import Secrets
from runner.settings import cache_folder, default_jobs
from runner.sinks.choice import renderer
from runner.sinks.sink import Sink
from runner.sinks.view import KeptLogs, RunView
from runner.state import fold
from runner.stopper import Stopper
from runner.workspace import run_workspace
from stages.catalog import kind

__all__ = ["Ready", "Wanted", "drive"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where the call wants reports besides; empty: nowhere."""

    junit: str = ""
    summary: str = ""


NOWHERE = Wanted()
CACHES_WITHIN = 15.0
"""Seconds that a run that is over may look at how large caches are."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A run that this process has taken and can go on with."""

    plan: Plan
    folder: RunFolder
    secrets: Secrets
    store: Path
    epoch: int = 1
    caller: Path = Path()
    """The workspace of a run that checks nothing out."""
    source: Mapping[str, str] = field(default_factory=dict)
    """`PIPE_SOURCE` and `PIPE_SOURCE_DIR`, for checkouts without a url."""
    request: Request = FIRST


def drive(runs: Sequence[Ready], host: Host, output: str, guardian: Guardian | None, wanted: Wanted = NOWHERE) -> int:
    """Drive the runs side by side and return the exit code: that of a signal, else 1 if one is not green.

    However they end, there are reports on them when this returns.
    """
    sink = Sink(renderer(output, host.environ))
    pools = Pools(max(item.request.jobs for item in runs) or default_jobs(), _sizes(runs))
    engines = [_engine(item, host, sink, guardian, pools, several=len(runs) > 1) for item in runs]
    report = partial(_report, engines, wanted)
    try:
        return anyio.run(_run_all, engines, sink, guardian, report)
    finally:
        report()
        if not sink.stop(hurried=any(engine.stopping.is_set() for engine in engines)):
            sys.stderr.write("pipe: nobody took the rest of the output in time; `pipe logs` has all of it\n")
        _trace(runs, host.environ)
        if guardian and guardian.private:  # the guardian may be dead
            shutil.rmtree(guardian.private, ignore_errors=True)
        if sink.failure and not isinstance(sink.failure, BrokenPipeError):
            sys.stderr.write(f"pipe: the console failed, the run did not: {sink.failure!r}\n")
        _bound_caches(host.environ, runs[0].store, hurried=any(engine.stopping.is_set() for engine in engines))


def _report(engines: Sequence[Engine], wanted: Wanted) -> None:
    """Write the reports; what goes wrong with them changes nothing of how the runs ended."""
    from runner.reports.files import Ended, write_all

    ended = []
    for engine in engines:
        folder = engine.journal.folder
        view = RunView(engine.world.plan, KeptLogs(folder))
        ended.append(Ended(view, folder, engine.world.masker, engine.journal.epoch))
    try:
        write_all(ended, junit=wanted.junit, summary=wanted.summary)
    except Exception as error:  # noqa: BLE001 - a bug in a report is no reason to lose an exit code
        sys.stderr.write(f"pipe: BUG: the reports could not be written: {error!r}; please report it\n")


def _bound_caches(environ: Mapping[str, str], store: Path, *, hurried: bool) -> None:
    """Let go what caches have too much; whoever ends this process has no time for it."""
    cache = cache_folder(environ, store)
    try:
        if not hurried and due(cache):
            evict(cache, bounds(environ), CACHES_WITHIN)
    except TimeoutError:
        what = f"how large caches are was not learnt within {CACHES_WITHIN:.0f} s"
        sys.stderr.write(f"pipe: {what}: `pipe cache list` tells it, `pipe cache clear` makes room\n")
    except (OSError, PipeError, KeyboardInterrupt) as error:
        sys.stderr.write(f"pipe: caches were not looked at: {str(error) or 'interrupted'}\n")


def _trace(runs: Sequence[Ready], environ: Mapping[str, str]) -> None:
    """Send what happened to a collector, if the host names one; that it failed changes nothing."""
    from runner.telemetry import export, parent_of, wanted

    if not wanted(environ):
        return
    for item in runs:
        try:
            note = export(item.folder, parent=parent_of(environ))
        except KeyboardInterrupt:  # the run has its end and its exit code already
            note = "interrupted"
        if note:
            sys.stderr.write(f"pipe: the trace of {item.plan.pipeline} was not taken: {note}\n")


def _sizes(runs: Sequence[Ready]) -> dict[str, int]:
    """Pools are shared by all pipelines of a process; of two sizes the smaller one holds."""
    sizes: dict[str, int] = {}
    for item in runs:
        for name, size in item.plan.pools.items():
            sizes[name] = min(size, sizes.get(name, size))
    return sizes


def _engine(item: Ready, host: Host, sink: Sink, guardian: Guardian | None, pools: Pools, *, several: bool) -> Engine:
    masker = Masker()
    short = [text for text in item.secrets.texts() if not masker.add(text)]
    journal = Journal(item.folder, masker, item.epoch, strict=item.request.strict)
    view = RunView(item.plan, KeptLogs(item.folder), item.plan.pipeline if several else "", fold(item.folder.records()))
    journal.subscribe(sink.reader(view))
    if short:
        sys.stderr.write(f"pipe: {len(short)} secret(s) of fewer than {MINIMUM} characters cannot be masked in logs\n")
    world = World(
        plan=item.plan,
        journal=journal,
        masker=masker,
        secrets=item.secrets,
        host=host,
        emptied=item.epoch > 1 and item.plan.checks_out and not item.folder.work.exists(),
        workspace=run_workspace(item.plan, item.folder, item.caller),
        cache=cache_folder(host.environ, item.store, trusted=item.plan.trigger.trusted),
        kind=kind,
        facts=Facts(journal),
        store=item.store,
        private=Path(guardian.private) if guardian and guardian.private else None,
        source=item.source,
    )
    return Engine(world, pools, item.request)


async def _run_all(engines: Sequence[Engine], sink: Sink, guardian: Guardian | None, report: Callable[[], None]) -> int:
    outcomes: list[Outcome] = []
    stopper = Stopper(engines, sink, report)
    sink.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stopper.obey_signals, guardian.early if guardian else ())
        tasks.start_soon(stopper.last_resort)
        if guardian is not None:
            tasks.start_soon(stopper.obey_guardian, guardian.pipe)
        async with anyio.create_task_group() as runs:
            for engine in engines:
                runs.start_soon(_run, engine, outcomes)
        tasks.cancel_scope.cancel()
    return stopper.exit_code or int(any(outcome is not Outcome.SUCCEEDED for outcome in outcomes))


async def _run(engine: Engine, outcomes: list[Outcome]) -> None:
    try:
        outcomes.append(await engine.run())
        if engine.journal.state.outcome is None:
            name = engine.world.plan.pipeline
            sys.stderr.write(f"pipe: {name} was stopped, for {engine.let_go_because}; `pipe resume` goes on with it\n")
        else:
            engine.journal.folder.ownership.release(engine.journal.epoch)
    except* EpochLost:
        sys.stderr.write(f"pipe: {EpochLost(engine.journal.folder)}\n")
        outcomes.append(Outcome.ERRORED)
    finally:
        engine.gone.set()
