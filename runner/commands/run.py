"""`pipe run`: load, resolve, run, report."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path

import anyio
from ulid import ULID

from pipeline.errors import PipeError
from pipeline.plan import Plan, RunIdentity
from pipeline.stage import Outcome
from runner.attempt import World
from runner.commands.load import Call, open_call
from runner.context import Facts
from runner.engine import Engine, Pools
from runner.guardian import Guardian
from runner.hosts import Host, detect
from runner.journal import Journal
from runner.mask import MINIMUM, Masker
from runner.secrets import Secrets, find_secrets
from runner.settings import RunFolder, Store, cache_folder, default_jobs
from runner.sinks.sink import Renderer, Sink
from runner.sinks.view import RunView
from runner.stopper import Stopper
from runner.workspace import run_workspace
from stages.catalog import kind

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
    output: str = "auto"
    guardian: Guardian | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    plan: Plan
    folder: RunFolder
    secrets: Secrets


def run(options: Options) -> int:
    """Run the chosen pipelines of a file side by side and return the exit code.

    Raises:
        PipeError: the file or the call is wrong; nothing was started.
    """
    host = detect(dict(os.environ))
    call = open_call(options.file, options.pipelines, options.params, host)
    store = Store(host.environ, Path.cwd())
    prepared = _prepare(call, store, host, options)
    sink = Sink(_renderer(options.output, host.environ))
    engines = [_engine(item, call, options, sink, several=len(prepared) > 1) for item in prepared]
    sizes: dict[str, int] = {}
    for item in prepared:
        for name, size in item.plan.pools.items():
            sizes[name] = min(size, sizes.get(name, size))
    pools = Pools(options.jobs or default_jobs(), sizes)
    try:
        return anyio.run(_run_all, [make(pools) for make in engines], sink, options.guardian)
    finally:
        sink.stop()
        if options.guardian and options.guardian.private:  # the guardian may be dead
            shutil.rmtree(options.guardian.private, ignore_errors=True)
        if sink.failure and not isinstance(sink.failure, BrokenPipeError):
            sys.stderr.write(f"pipe: the console failed, the run did not: {sink.failure!r}\n")


# -- before anything starts ------------------------------------------------------------------------


def _prepare(call: Call, store: Store, host: Host, options: Options) -> list[_Prepared]:
    """Check everything that can be checked, for all pipelines at once; only then take numbers."""
    problems: list[PipeError] = []
    found: list[tuple[str, Secrets]] = []
    if options.source and not Path(options.source).is_dir():
        raise PipeError(f"--source {options.source}: no such folder")
    for name in call.pipelines:
        try:
            plan = call.plan(name, _identity(store, name, store.next_number(name)))
            _check_source(plan, options)
            found.append((name, find_secrets(plan, host.environ, store.path)))
        except PipeError as error:
            problems.append(error)
    if problems:
        raise PipeError("\n".join(dict.fromkeys(map(str, problems))))
    hidden = frozenset[str]().union(*(secrets.variables for _, secrets in found))
    return [_take(call, store, host, name, replace(secrets, variables=hidden)) for name, secrets in found]


def _check_source(plan: Plan, options: Options) -> None:
    """`--source` puts one folder in the place of one checkout, and what no commit holds is not released by accident."""
    if not options.source:
        return
    checkouts = [leaf.name for leaf in plan.leaves if leaf.uses == "checkout" and not leaf.skipped]
    if len(checkouts) != 1:
        raise PipeError(
            f"--source stands for one checkout, and {plan.pipeline} has {len(checkouts)}"
            f"{': ' + ', '.join(checkouts) if checkouts else ''}"
        )
    deploys = sorted({leaf.stage for leaf in plan.leaves if leaf.uses == "deploy" and not leaf.skipped})
    if deploys and not options.allow_dirty:
        raise PipeError(
            f"--source builds what no commit holds, and {plan.pipeline} would release it ({', '.join(deploys)}): "
            "add --allow-dirty if you mean it"
        )


def _identity(store: Store, pipeline: str, number: int) -> RunIdentity:
    return RunIdentity(id=str(ULID()), number=number, previous=store.previous(pipeline, number))


def _take(call: Call, store: Store, host: Host, name: str, secrets: Secrets) -> _Prepared:
    number, folder = store.take(name, host.number)
    store.sweep(name)
    plan = call.plan(name, _identity(store, name, number))
    folder.write_plan(plan.model_dump_json(by_alias=True, exclude_defaults=True))
    return _Prepared(plan, folder, secrets)


def _engine(item: _Prepared, call: Call, options: Options, sink: Sink, *, several: bool) -> Callable[[Pools], Engine]:
    masker = Masker()
    short = [text for text in item.secrets.texts() if not masker.add(text)]
    journal = Journal(item.folder, masker)
    journal.subscribe(sink.reader(RunView(item.plan, item.folder, item.plan.pipeline if several else "")))
    if short:
        sys.stderr.write(f"pipe: {len(short)} secret(s) of fewer than {MINIMUM} characters cannot be masked in logs\n")
    world = World(
        plan=item.plan,
        journal=journal,
        masker=masker,
        secrets=item.secrets,
        host=call.host,
        workspace=run_workspace(item.plan, item.folder, Path.cwd()),
        cache=cache_folder(call.host.environ),
        kind=kind,
        facts=Facts(journal),
        private=Path(options.guardian.private) if options.guardian and options.guardian.private else None,
        source=_source(call.path, options.source),
    )
    return lambda pools: Engine(world, pools, fail_fast=options.fail_fast)


def _source(file: Path, folder: str) -> Mapping[str, str]:
    named = {"PIPE_SOURCE": str(file.absolute().parent)}
    if folder:
        named["PIPE_SOURCE_DIR"] = str(Path(folder).absolute())
    return named


def _renderer(output: str, environ: Mapping[str, str]) -> Renderer:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if output == "auto":
        on_screen = sys.stdout.isatty() and environ.get("TERM") != "dumb" and not environ.get("CI")
        output = "tty" if on_screen else "plain"
    if output == "json":
        from runner.sinks.json_lines import JsonLines

        return JsonLines(sys.stdout.buffer)
    if output == "tty":
        from runner.sinks.tty import Tty

        return Tty(sys.stdout, colour="NO_COLOR" not in environ)
    from runner.sinks.plain import Plain

    return Plain(sys.stdout)


# -- running ---------------------------------------------------------------------------------------


async def _run_all(engines: Sequence[Engine], sink: Sink, guardian: Guardian | None) -> int:
    outcomes: list[Outcome] = []
    stopper = Stopper(engines, sink)
    sink.start()

    async def one(engine: Engine) -> None:
        outcomes.append(await engine.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stopper.obey_signals)
        tasks.start_soon(stopper.last_resort)
        if guardian is not None:
            tasks.start_soon(stopper.obey_guardian, guardian.pipe)
        async with anyio.create_task_group() as runs:
            for engine in engines:
                runs.start_soon(one, engine)
        tasks.cancel_scope.cancel()
    return stopper.exit_code or int(any(outcome is not Outcome.SUCCEEDED for outcome in outcomes))
