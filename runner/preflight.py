"""The preflight: every stage of a plan is asked, at once and within seconds, whether it can succeed.

It walks the plan as an engine would, but each leaf only *foresees* what it is going to give, so that the next ones can
be filled in; then it looks. Nothing outside is changed.
"""

import shutil
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.abc
from pydantic import JsonValue

from pipeline.conditions import ConditionError, evaluate
from pipeline.files import Below, Folder, Laid
from pipeline.plan import Leaf, Plan
from pipeline.stage import (
    Cause,
    CauseKind,
    Completed,
    Examined,
    Files,
    Finding,
    Foreseen,
    Outcome,
    Outputs,
    RunInfo,
    Secret,
    SecretFile,
    Severity,
    Stage,
    StageErrored,
    StageFailed,
)
from runner import environment
from runner.attempt import Kind, World, bound, looks, stage_of, variables_of
from runner.blocking import call
from runner.context import carried, completed, private_copy
from runner.findings import Told
from runner.hosts import Host
from runner.preload import load
from runner.reopen import above
from runner.results import MissingValue, Results
from runner.schedule import End, Schedule
from runner.secrets import Secrets
from runner.state import RunState
from runner.workspace import attempt_folders

__all__ = ["WITHIN", "Preflight", "Report", "Scene", "scene_of"]

P = ParamSpec("P")
T = TypeVar("T")

WITHIN = 7.0
"""Seconds after which what has not answered could not be checked: with the start of a program, less than ten."""
AGAIN_AFTER = 1.0
"""Seconds before an outage is looked at once more: one lost packet is none."""
THREADS = 24
LITTLE_ROOM = 256 << 20
"""Bytes below which a disk is as good as full."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a preflight needs to know: a plan, the host, and where things lie."""

    plan: Plan
    kind: Callable[[str], Kind]
    host: Host
    secrets: Secrets
    workspace: Path
    """The caller's folder, or the run's: only looked into where no stage checks out."""
    cache: Path
    once: Callable[[str, Callable[[], Awaitable[JsonValue]]], Awaitable[JsonValue]]
    private: Path | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    known: RunState = field(default_factory=RunState)
    """What has ended already is taken as it is."""


def scene_of(world: World) -> Scene:
    """The scene of a run that has begun."""
    return Scene(
        plan=world.plan,
        kind=world.kind,
        host=world.host,
        secrets=world.secrets,
        workspace=world.workspace,
        cache=world.cache,
        once=world.facts.once,
        private=world.private,
        source=world.source,
        known=world.journal.state,
    )


@dataclass
class Report:
    """What came out."""

    found: list[Told] = field(default_factory=list)
    checked: list[tuple[str, str]] = field(default_factory=list)
    """Leaf, and what of it was looked at and is well."""
    intends: list[tuple[str, str]] = field(default_factory=list)
    """Leaf, and what it will do that its file does not show."""
    skipped: dict[str, Cause] = field(default_factory=dict)
    """Leaves that nobody will reach, if all goes well, and why."""
    touches: dict[str, str] = field(default_factory=dict)
    """What the run would change outside, and a fingerprint of how that is now."""
    seconds: float = 0.0


class Preflight:
    """One look ahead at a plan: `run` once."""

    def __init__(self, scene: Scene, within: float = WITHIN) -> None:
        self._scene = scene
        self._within = within
        self._report = Report()
        self._leaves = {leaf.name: leaf for leaf in (*scene.plan.leaves, *scene.plan.finally_)}
        self._known = {name: leaf for name, leaf in scene.known.leaves.items() if leaf.outcome}
        """What had ended when the look began: the run goes on beside it."""
        self._ahead = RunState()
        """The run as it will have gone, if all goes well."""
        self._results = Results(scene.plan, self._ahead, scene.kind)
        self._foreseen: dict[str, Foreseen] = {}
        self._schedule = Schedule(())
        self._shared = _Shared()
        self._deadline = 0.0
        self._scratch = Path()
        self._threads = anyio.CapacityLimiter(THREADS)

    async def run(self) -> Report:
        """Ask all of them."""
        plan, began = self._scene.plan, anyio.current_time()
        self._deadline = began + self._within
        self._scratch = Path(await anyio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="pipe-preflight-")))
        try:
            self._look_at_disks()
            await self._walk(plan.leaves)
            self._results.outcome = Outcome.SUCCEEDED
            await self._walk(plan.finally_)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(shutil.rmtree, self._scratch, ignore_errors=True))
        self._report.seconds = anyio.current_time() - began
        order = {name: at for at, name in enumerate(self._leaves)}
        self._report.found.sort(key=lambda told: order.get(told.leaf, -1))
        return self._report

    # -- the walk ----------------------------------------------------------------------------------

    async def _walk(self, leaves: Sequence[Leaf]) -> None:
        self._schedule = Schedule(leaves)
        for leaf in leaves:
            known = self._known.get(leaf.name)
            if known and known.outcome:
                self._ahead.leaves[leaf.name] = known
                self._results.give(leaf, known.outputs)
                self._schedule.ended(leaf.name, End(known.outcome, known.cause, known.allowed))
        async with anyio.create_task_group() as tasks:
            self._advance(tasks)

    def _advance(self, tasks: anyio.abc.TaskGroup) -> None:
        for leaf, never in self._schedule.ready():
            cause = never or (_condition(leaf, leaf.never) if leaf.never else None)
            if cause:
                self._skip(leaf, cause)
            else:
                tasks.start_soon(self._leaf, leaf, tasks)

    async def _leaf(self, leaf: Leaf, tasks: anyio.abc.TaskGroup) -> None:
        """Foresee, let those go on that wait for it, and look."""
        with self._telling(leaf) as telling:
            reached = self._reached(leaf)
            telling.sure = reached is True
            if reached is False:
                self._skip(leaf, _condition(leaf, f"when: {leaf.when}"))
            elif looks(self._scene.kind(leaf.uses)):
                await load(self._scene.kind(leaf.uses).heavy)
                async with self._looking(leaf) as look:
                    stage = stage_of(self._scene.kind, leaf, partial(self._results.value, leaf))
                    self._ended(leaf, await self._patiently(telling, partial(stage.foresee, look)))
                    self._advance(tasks)
                    self._take(telling, await self._patiently(telling, partial(stage.preflight, look)))
            else:
                self._ended(leaf, Foreseen())
        if self._ahead.leaf(leaf.name).outcome is None:
            self._ended_badly(leaf, telling)
        self._advance(tasks)

    def _reached(self, leaf: Leaf) -> bool | None:
        """Whether the leaf will run if all goes well; None when its condition waits for what only work can know."""
        if not leaf.when:
            return True
        sources = ((self._foreseen.get(source), output) for source, output in leaf.when_references.values())
        if any(foreseen and output in foreseen.made for foreseen, output in sources):
            return None
        try:
            return evaluate(leaf.when, self._results.names(leaf))
        except MissingValue:
            return None
        except ConditionError as error:
            raise StageFailed(f"when: {error}", kind=CauseKind.CONFIG) from error

    def _skip(self, leaf: Leaf, cause: Cause) -> None:
        self._report.skipped[leaf.name] = cause
        self._ahead.leaf(leaf.name).outcome = Outcome.SKIPPED
        self._schedule.ended(leaf.name, End(Outcome.SKIPPED, cause))

    def _ended(self, leaf: Leaf, foreseen: Foreseen) -> None:
        self._foreseen[leaf.name] = foreseen
        state = self._ahead.leaf(leaf.name)
        state.outcome = Outcome.SUCCEEDED
        if foreseen.outputs is not None:
            state.outputs = foreseen.outputs.model_dump(mode="json")
        self._results.give(leaf, state.outputs)
        self._schedule.ended(leaf.name, End(Outcome.SUCCEEDED))

    def _ended_badly(self, leaf: Leaf, telling: "_Telling") -> None:
        """What needs it will not be reached; but where nobody can tell, the others are looked at all the same."""
        unknown = all(finding.severity is Severity.UNKNOWN for finding in telling.findings)
        outcome = Outcome.SUCCEEDED if unknown else Outcome.FAILED
        self._ahead.leaf(leaf.name).outcome = outcome
        self._schedule.ended(leaf.name, End(outcome, telling.findings[0].cause if telling.findings else None))

    # -- one look ----------------------------------------------------------------------------------

    async def _patiently(self, telling: "_Telling", look: Callable[[], Awaitable[T]]) -> T:
        """A look, and another one when the first met an outage."""
        try:
            return await look()
        except StageErrored as error:
            telling.outage = error.cause
        await anyio.sleep(AGAIN_AFTER)
        found = await look()
        telling.outage = None
        return found

    @contextmanager
    def _telling(self, leaf: Leaf) -> Iterator["_Telling"]:
        """Bound a look in time, and make findings of what it raises."""
        telling = _Telling(leaf)
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                yield telling
            except (StageFailed, StageErrored) as failure:
                self._tell(telling, Finding(Severity.FAILS, failure.cause))
            except Exception as error:  # noqa: BLE001 - a look must not end a run that might be well
                self._tell(telling, Finding(Severity.UNKNOWN, _why_unknown(error)))
        if scope.cancelled_caught and telling.outage:
            self._tell(telling, Finding(Severity.FAILS, telling.outage))
        elif scope.cancelled_caught:
            cause = Cause(CauseKind.INFRA, f"no answer within {self._within:g} s")
            self._tell(telling, Finding(Severity.UNKNOWN, cause))

    def _tell(self, telling: "_Telling", finding: Finding) -> None:
        """Only what is sure to be reached, and whose failure counts, is sure to fail the run."""
        excuse = self._excuse(telling) if finding.severity is Severity.FAILS else ""
        if excuse:
            hint = "; ".join(part for part in (excuse, finding.hint) if part)
            finding = replace(finding, severity=Severity.MAY_FAIL, hint=hint)
        telling.findings.append(finding)
        self._report.found.append(Told(telling.leaf.name, finding))

    def _excuse(self, telling: "_Telling") -> str:
        leaf = telling.leaf
        if not telling.sure:
            return f"only if it runs (when: {leaf.when})"
        if leaf.allow_failure:
            return "its failure is allowed"
        return "a failure in finally is a warning" if self._results.outcome else ""

    def _take(self, telling: "_Telling", examined: Examined) -> None:
        for finding in examined.findings:
            self._tell(telling, finding)
        self._report.checked += [(telling.leaf.name, what) for what in examined.checked]
        self._report.intends += [(telling.leaf.name, what) for what in examined.intends]
        self._report.touches |= examined.touches

    def _look_at_disks(self) -> None:
        for what, path in (("workspace", self._scene.workspace), ("cache", self._scene.cache)):
            there = next(place for place in (path, *path.absolute().parents) if place.exists())
            free = shutil.disk_usage(there).free
            if free < LITTLE_ROOM:
                cause = Cause(CauseKind.INFRA, f"only {free >> 20} MiB are free for the {what} in {there}")
                self._report.found.append(Told("", Finding(Severity.MAY_FAIL, cause, hint="make room there")))

    # -- what a look is given ----------------------------------------------------------------------

    @asynccontextmanager
    async def _looking(self, leaf: Leaf) -> AsyncIterator["Look"]:
        scene, run = self._scene, self._scene.plan.run
        info = RunInfo(run.id, run.number, scene.plan.pipeline, leaf.name, 0)
        given = {**self._results.exports(leaf), **variables_of(leaf, partial(self._results.value, leaf))}
        said = {**environment.of_run(info, scene.plan.trigger, scene.workspace), **given}
        with attempt_folders(scene.private) as (outputs, private):
            look = Look(
                run=info,
                cache_place=scene.cache / leaf.uses,
                private=private,
                scratch=self._scratch,
                manifest_env=said,
                env={},
                secrets=scene.secrets,
                earlier={name: scene.kind(self._leaves[name].uses) for name in self._upstream(leaf)},
                find_files=partial(self._files, leaf),
                find_once=scene.once,
                found=self._shared,
                threads=self._threads,
            )
            secrets = {name: bound(look, reference) for name, reference in leaf.secrets.items()}
            host = environment.of_host(scene.host, scene.secrets)
            look.env = {**host, **said, **secrets, **scene.source, **environment.of_pipe(info, outputs)}
            yield look

    def _upstream(self, leaf: Leaf) -> list[str]:
        """Leaves that will have run by then; before those of `finally`, all others."""
        names = above(self._leaves.values(), [leaf.name])
        if self._results.outcome:
            names |= {each.name for each in self._scene.plan.leaves}
        return [name for name in self._leaves if name in names and name not in self._report.skipped]

    async def _files(self, leaf: Leaf) -> Files:
        scene, upstream = self._scene, self._upstream(leaf)
        parts: list[tuple[str, Files]] = []
        if not scene.plan.checks_out or any(name in self._known for name in upstream):
            parts.append((".", Folder(scene.workspace, scene.workspace)))
        for name in upstream:
            foreseen = self._foreseen.get(name)
            if foreseen and foreseen.files:
                parts.append((foreseen.folder, await self._shared.find(f"files {name}", foreseen.files)))
            elif foreseen is None and name not in self._known and scene.kind(self._leaves[name].uses).prepares:
                raise Unforeseeable(f"nobody could tell what {name} brings")
        if not parts:
            raise Unforeseeable("no stage that it needs checks anything out, so its files are not known")
        files: Files = Laid(parts) if len(parts) > 1 or parts[0][0] != "." else parts[0][1]
        return Below(files, leaf.dir) if leaf.dir else files


@dataclass
class _Telling:
    """What is told of one leaf while it is looked at."""

    leaf: Leaf
    sure: bool = True
    """It will be reached, if all goes well."""
    outage: Cause | None = None
    """What the first look met; the second may not be done in time."""
    findings: list[Finding] = field(default_factory=list)


class Unforeseeable(Exception):
    """What a look needs is not known before the run."""


def _why_unknown(error: Exception) -> Cause:
    match error:
        case MissingValue(leaf, output):
            message = f"it waits for ${{stages.{leaf}.{output}}}, which is known when {leaf} has run"
            return Cause(CauseKind.DEPENDENCY, message)
        case Unforeseeable():
            return Cause(CauseKind.DEPENDENCY, str(error))
        case OSError():
            return Cause(CauseKind.INFRA, f"{error.filename or ''} {error.strerror or error}".strip())
    lines = tuple("".join(traceback.format_exception(error)).splitlines())
    return Cause(CauseKind.BUG, f"BUG in pipe: {type(error).__name__}: {error}; please report it", lines[-40:])


def _condition(leaf: Leaf, text: str) -> Cause:
    return Cause(CauseKind.CONDITION, text, (leaf.name,))


@dataclass
class _Result:
    done: anyio.Event = field(default_factory=anyio.Event)
    value: Any = None
    error: Exception | None = None


class _Shared:
    """What several looks need is found by the first of them; a failure is all of theirs, and then forgotten."""

    def __init__(self) -> None:
        self._results: dict[str, _Result] = {}

    async def find(self, key: str, find: Callable[[], Awaitable[T]]) -> T:
        while key in self._results:
            result = self._results[key]
            await result.done.wait()
            if result.error:
                raise result.error
            if key in self._results:  # else whoever looked was ended before there was an answer
                value: T = result.value
                return value
        result = self._results[key] = _Result()
        try:
            result.value = await find()
        except BaseException as error:
            result.error = error if isinstance(error, Exception) else None
            del self._results[key]
            raise
        finally:
            result.done.set()
        return result.value  # type: ignore[no-any-return]


@dataclass
class Look:
    """One leaf's view while it looks ahead; satisfies `pipeline.stage.PreflightContext`."""

    run: RunInfo
    cache_place: Path
    private: Path
    scratch: Path
    env: Mapping[str, str]
    manifest_env: Mapping[str, str]
    secrets: Secrets
    earlier: Mapping[str, type[Stage[Outputs]]]
    find_files: Callable[[], Awaitable[Files]]
    find_once: Callable[[str, Callable[[], Awaitable[JsonValue]]], Awaitable[JsonValue]]
    found: _Shared
    threads: anyio.CapacityLimiter

    @property
    def cache(self) -> Path:
        """The kind's folder that runs share, made when it is asked for."""
        self.cache_place.mkdir(parents=True, exist_ok=True)
        return self.cache_place

    def log(self, text: str | bytes) -> None:
        """There is no log: what matters is a finding."""

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Nobody watches for so short a time."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        capture: bool = False,
        output: Callable[[bytes], None] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a program in an empty folder; see the contract."""
        environ, shown = {**self.env, **(env or {})}, output or self.log
        where = cwd or self.scratch
        ended, captured = await carried(argv, cwd=where, env=environ, stdin=stdin, capture=capture, shown=shown)
        return completed(argv[0], ended, captured, check=check)

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in a thread of the preflight's own."""
        return await call(self.threads, function, *args, **kwargs)

    def secret(self, name: str) -> Secret:
        """A declared secret; a file is a private copy that lives as long as the look."""
        if name not in self.secrets.values:
            raise Unforeseeable(f"the secret '{name}' was not found")
        value = self.secrets.get(name)
        return private_copy(name, value, self.private) if isinstance(value, SecretFile) else value

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        """A fact of the run."""
        return await self.find_once(key, find)

    async def files(self) -> Files:
        """The files of the checkouts before this stage."""
        return await self.find_files()

    async def shared(self, key: str, find: Callable[[], Awaitable[T]]) -> T:
        """Found by one look for all."""
        return await self.found.find(key, find)
