"""One attempt at one leaf: its folder, its environment, its limit, and one place that names how it ended."""

import json
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from pydantic import JsonValue, ValidationError

from pipeline.expressions import ExpressionError, fill, scalar_text
from pipeline.plan import Leaf, Plan
from pipeline.stage import (
    Cause,
    CauseKind,
    Login,
    Outcome,
    Outputs,
    RunInfo,
    SecretFile,
    SecretText,
    Stage,
    StageErrored,
    StageFailed,
    Surroundings,
)
from runner import environment
from runner.cgroups import Group, NoGroup, named, out_of_memory_here
from runner.context import Context, Facts
from runner.control import Control
from runner.events import EffectProven, RunWarned
from runner.evidence import collected, note_problems
from runner.hosts import Host
from runner.journal import Journal
from runner.logs import StageLog
from runner.mask import Masker
from runner.secrets import Secrets
from runner.workspace import attempt_folders, leaf_folder

__all__ = ["Kind", "Lookup", "Result", "World", "attempt", "bound", "gone", "looks", "stage_of", "variables_of"]

OUTPUT_LIMIT = 65536
HEARD_WITHIN = 1.0
"""Seconds after which an abort that ends a stage's processes has reached us too."""
Lookup = Callable[[str], JsonValue]
Kind = type[Stage[Outputs]]
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """What all attempts of a run have in common."""

    plan: Plan
    journal: Journal
    masker: Masker
    secrets: Secrets
    host: Host
    workspace: Path
    cache: Path
    kind: Callable[[str], Kind]
    facts: Facts
    store: Path = Path()
    """Where all runs are, and where those of one group take turns."""
    emptied: bool = False
    """The workspace was removed since the run worked in it last."""
    private: Path | None = None
    """Where attempts keep files with secrets; removed with the run whatever happens to this process."""
    source: Mapping[str, str] = field(default_factory=dict)
    """`PIPE_SOURCE` and, with `--source`, `PIPE_SOURCE_DIR`: what `checkout` takes when it has no url."""

    @cached_property
    def unsaid(self) -> Masker:
        """The secrets but for what the plan, or the place where it runs, says in clear anyway."""
        if self.masker.needles() is None:
            return self.masker
        known = (
            self.plan.model_dump_json(by_alias=True),
            str(self.journal.folder.path),
            str(self.workspace),
            self.host.name,
        )
        return self.masker.apart_from("\n".join(known).encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended."""

    outcome: Outcome
    cause: Cause | None = None
    outputs: Mapping[str, JsonValue] = field(default_factory=dict)


async def attempt(
    world: World, leaf: Leaf, number: int, control: Control, lookup: Lookup, exports: Mapping[str, str]
) -> Result:
    """Run a leaf once. `lookup` answers open references, `exports` are variables that needed stages gave.

    A cancel of the leaf passes through; everything else becomes a Result.
    """
    log = StageLog(world.journal.folder.log(leaf.name, number), world.masker, leaf.log)
    limit = leaf.timeout.total_seconds()
    with control.attempt(limit) as scope:
        ended = await _result(_run(world, leaf, number, control, log, lookup, exports))
    if not scope.cancelled_caught:
        if ended.outcome is Outcome.FAILED and world.kind(leaf.uses).starts_processes:
            await note_problems(world.journal, leaf.name, number, world.workspace)
        if ended.cause and (control.signalled or world.host.sweeps):
            await anyio.sleep(HEARD_WITHIN)  # it may be the first we see of a cancel, which then ends this too
        return ended
    reason = control.expired or f"not done after {limit:g} s, its timeout"
    return Result(Outcome.TIMED_OUT, Cause(CauseKind.TIMEOUT, reason))


async def _heard(work: Awaitable[T], leaf: Leaf, log: StageLog, control: Control) -> T:
    """The work of a stage; the attempt is ended when that has been silent for too long."""
    if leaf.silence is None:
        return await work
    failure: Exception | None = None
    limit = leaf.silence.total_seconds()

    async def listen() -> None:
        while (rest := log.heard + limit - time.monotonic()) > 0:  # noqa: ASYNC110 - threads write logs too
            await anyio.sleep(rest)
        control.expire(f"no output for {limit:g} s, its limit of silence")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        try:
            result = await work
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure:
        raise failure
    return result


async def gone(world: World, leaf: Leaf, outputs: Mapping[str, JsonValue], lookup: Lookup) -> str:
    """What is not there any more of an earlier result, in a few words; empty if all is.

    Raises:
        StageErrored: it cannot be found out.
    """
    kind = world.kind(leaf.uses)
    if kind.gone is Stage.gone:
        return "the workspace that it worked in is gone" if world.emptied else ""
    declared = {name: value for name, value in outputs.items() if name in kind.outputs_model().model_fields}
    log = StageLog(world.journal.folder.log(leaf.name, 0), world.masker)
    try:
        stage = stage_of(world.kind, leaf, lookup)
        async with _context(world, leaf, 0, Control(), log, variables_of(leaf, lookup)) as ctx:
            return await stage.gone(ctx, kind.outputs_model().model_validate(declared))
    except StageFailed as failure:
        return failure.cause.message
    except ValidationError:
        return "what it left was made by another version of its kind"
    except StageErrored:
        raise
    except Exception as error:
        raise StageErrored(f"{type(error).__name__}: {error}") from error
    finally:
        log.close()


def looks(kind: Kind) -> bool:
    """Whether a kind has something to look at before it runs."""
    return kind.preflight is not Stage.preflight or kind.foresee is not Stage.foresee


async def _result(work: Awaitable[dict[str, JsonValue]]) -> Result:
    """The one place that turns an end into an outcome."""
    try:
        return Result(Outcome.SUCCEEDED, None, await work)
    except StageFailed as failure:
        return Result(Outcome.FAILED, failure.cause)
    except StageErrored as error:
        return Result(Outcome.ERRORED, error.cause)
    except OSError as error:
        return _of_host(error)
    except ExceptionGroup as group:
        return _of_group(group)
    except Exception as error:  # noqa: BLE001 - whatever a kind lets through is a bug that must not take siblings along
        return _bug(error)


def _of_group(group: "ExceptionGroup[Exception]") -> Result:
    """A kind that used a task group may fail several times over; the first that says why is told."""
    leaves = list(_flat(group))
    for error in leaves:
        if isinstance(error, StageFailed):
            return Result(Outcome.FAILED, error.cause)
    for error in leaves:
        if isinstance(error, StageErrored):
            return Result(Outcome.ERRORED, error.cause)
    for error in leaves:
        if isinstance(error, OSError):
            return _of_host(error)
    return _bug(group)


def _of_host(error: OSError) -> Result:
    """A full disk or a place that cannot be written is the host's trouble, not ours."""
    place = f"{error.filename}: " if error.filename else ""
    return Result(Outcome.ERRORED, Cause(CauseKind.INFRA, f"{place}{error.strerror or error}"))


def _flat(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error


def _bug(error: Exception) -> Result:
    lines = tuple("".join(traceback.format_exception(error)).splitlines())
    cause = Cause(CauseKind.BUG, f"BUG in pipe: {type(error).__name__}: {error}; please report it", lines[-40:])
    return Result(Outcome.ERRORED, cause)


# -- running ---------------------------------------------------------------------------------------


async def _run(
    world: World,
    leaf: Leaf,
    number: int,
    control: Control,
    log: StageLog,
    lookup: Lookup,
    exports: Mapping[str, str],
) -> dict[str, JsonValue]:
    async with _closed(log):
        stage = stage_of(world.kind, leaf, lookup)
        given = variables_of(leaf, lookup)
        async with _context(world, leaf, number, control, log, {**exports, **given}) as ctx:
            await _settle(stage, ctx)
            async with _kept(ctx, leaf, world), collected(ctx, leaf):
                outputs = await _heard(_remembering(stage.run(ctx), ctx), leaf, log, control)
                found = outputs.model_dump(mode="json")
                if leaf.outputs:
                    found |= await ctx.call(_written, ctx, leaf)
    _check_outputs(found, world.masker)
    return found


@asynccontextmanager
async def _closed(log: StageLog) -> AsyncIterator[None]:
    """Close the log; what is kept of a long one's end is put behind its beginning in a thread."""
    try:
        yield
    finally:
        if log.long:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(log.close)
        log.close()


@asynccontextmanager
async def _kept(ctx: Context, leaf: Leaf, world: World) -> AsyncIterator[None]:
    """What `cache:` says, around the work."""
    if not leaf.cache:
        yield
        return
    from runner.caches import cached  # with archives and all, which few runs need

    async with cached(ctx, leaf, world.plan, world.cache):
        yield


async def _remembering(work: Awaitable[Outputs], ctx: Context) -> Outputs:
    """The work; if it fails because the kernel killed a process for want of memory, that is the cause."""
    try:
        outputs = await work
    except StageFailed as failure:
        known = (failure.cause.message, *failure.cause.evidence)
        if ctx.group and ctx.group.killed():
            message = f"out of memory: the kernel killed a process at the stage's limit of {ctx.group.memory}"
            raise StageFailed(message, kind=CauseKind.CONFIG, evidence=known) from failure
        if ctx.saw_kill and out_of_memory_here() > ctx.killed_before:
            message = "out of memory: the kernel killed a process, for this machine or container has no more"
            raise StageErrored(message, evidence=known) from failure
        raise
    if ctx.group and ctx.group.killed():
        ctx.warn("the kernel killed a process of it that went over the limit in `resources:`")
    return outputs


def _check_outputs(found: Mapping[str, JsonValue], masker: Masker) -> None:
    """Outputs are stored and shown in clear, and a masked one would be a wrong one."""
    for name, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if masker.mask_text(text) != text:
            raise StageFailed(f"the output '{name}' holds a secret: outputs are stored and shown in clear")
    if len(json.dumps(found)) > OUTPUT_LIMIT:
        raise StageFailed("the outputs are larger than 64 KiB: write a file and name its path instead")


async def _settle(stage: "Stage[Outputs]", ctx: Context) -> None:
    """Ask the kind about every effect that an earlier attempt intended and did not prove."""
    effects = ctx.journal.state.effects.items()
    unproven = [(key, known.intent) for (leaf, key), known in effects if leaf == ctx.run.stage and known.proof is None]
    for key, intent in unproven:
        answer = await stage.settle(ctx, key, intent)
        if answer.state == "done":
            ctx.journal.append(EffectProven(ctx.run.stage, ctx.run.attempt, key, answer.proof))
        elif answer.state == "unknown":
            message = answer.message or f"'{key}': unknown whether it took place"
            ctx.journal.append(RunWarned(message, ctx.run.stage))


def stage_of(kind: Callable[[str], Kind], leaf: Leaf, lookup: Lookup) -> "Stage[Outputs]":
    """The stage that a leaf describes, its open values filled in; StageFailed (config) if they do not fit."""
    try:
        return kind(leaf.uses).model_validate(fill(leaf.fields, lookup))
    except ExpressionError as error:
        raise StageFailed(str(error), kind=CauseKind.CONFIG) from error
    except ValidationError as error:
        lines = [f"with.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise StageFailed("; ".join(lines), kind=CauseKind.CONFIG) from error


@asynccontextmanager
async def _context(
    world: World, leaf: Leaf, number: int, control: Control, log: StageLog, given: Mapping[str, str]
) -> AsyncIterator[Context]:
    run = world.plan.run
    cancelled_by = world.journal.state.cancelled_by
    info = RunInfo(run.id, run.number, world.plan.pipeline, leaf.name, number, cancelled_by)
    async with leaf_folder(leaf, world.workspace, world.journal.folder.copies) as (root, folder):
        with attempt_folders(world.private) as (outputs, private):
            said = {**environment.of_run(info, world.plan.trigger, root), **given}
            ctx = Context(
                run=info,
                root=root,
                workspace=folder,
                cache_place=world.cache / leaf.uses,
                private=private,
                env={},
                manifest_env=said,
                journal=world.journal,
                facts=world.facts,
                stage_log=log,
                secrets=world.secrets,
                unsaid=world.unsaid,
                control=control,
            )
            secrets = {name: bound(ctx, reference) for name, reference in leaf.secrets.items()}
            host = environment.of_host(world.host, world.secrets)
            ctx.env = {**host, **said, **secrets, **world.source, **environment.of_pipe(info, outputs)}
            async with _group(leaf, ctx):
                yield ctx


@asynccontextmanager
async def _group(leaf: Leaf, ctx: Context) -> AsyncIterator[None]:
    """Hold the attempt's processes to `resources:`; where the host cannot, say so and go on."""
    if leaf.resources is None:
        yield
        return
    try:
        ctx.group = await ctx.call(Group, named(ctx.run.id, ctx.run.stage, ctx.run.attempt), leaf.resources)
    except NoGroup as reason:
        ctx.warn(f"`resources:` cannot be held to here: {reason}")
    try:
        yield
    finally:
        if ctx.group:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(ctx.group.close)


def bound(ctx: Surroundings, reference: str) -> str:
    """What an entry of `secrets:` puts into its variable."""
    name, _, part = reference.rpartition(".")
    if part not in ("username", "password"):
        name = reference
    match ctx.secret(name):
        case SecretText(value):
            return value
        case Login() as login:
            return login.username if part == "username" else login.password
        case SecretFile(path):
            return str(path)


def variables_of(leaf: Leaf, lookup: Lookup) -> dict[str, str]:
    """The variables that the file gives a leaf; StageFailed (config) if one is no text."""
    try:
        filled = {name: fill(value, lookup) for name, value in leaf.env.items()}
        return {name: scalar_text(value, name) for name, value in filled.items()}
    except ExpressionError as error:
        raise StageFailed(f"env: {error}", kind=CauseKind.CONFIG) from error


def _written(ctx: Context, leaf: Leaf) -> dict[str, JsonValue]:
    """What a `run:` stage wrote to `$PIPE_OUTPUT/<name>`: UTF-8, one last newline cut."""
    found: dict[str, JsonValue] = {}
    for name in leaf.outputs:
        try:
            text = (Path(ctx.env["PIPE_OUTPUT"]) / name).read_bytes().decode()
        except FileNotFoundError:
            raise StageFailed(f"the output '{name}' was not written to $PIPE_OUTPUT/{name}") from None
        except UnicodeDecodeError:
            raise StageFailed(f"the output '{name}' is not UTF-8") from None
        found[name] = text.removesuffix("\n")
    return found
