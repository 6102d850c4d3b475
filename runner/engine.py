"""Executing a plan: every leaf starts the moment its own needs are met, and ends with an outcome and a cause."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.abc
import anyio.lowlevel
from pydantic import JsonValue

from pipeline import __version__
from pipeline.conditions import ConditionError, evaluate
from pipeline.plan import Leaf
from pipeline.stage import Cause, CauseKind, Finding, Outcome, StageErrored
from runner import events
from runner.attempt import Result, World, attempt, gone, looks
from runner.blocking import call
from runner.control import Control, Interrupt
from runner.leaks import Look, shown_by_arguments
from runner.logs import join_ends
from runner.orders import Cancel, Orders, obey
from runner.preload import load_heavy_modules
from runner.process import MARK
from runner.reopen import above, below
from runner.results import MissingValue, Results
from runner.schedule import End, Schedule
from runner.state import run_outcome
from runner.turns import Turn, in_turn

__all__ = ["FIRST", "STOP_WITHIN", "Engine", "Pools", "Request"]

LONGEST_PAUSE = 120.0
FEWEST_RETRIES = 10
"""Further attempts that a run has in all; one with more leaves has as many as leaves."""
CLOSE_AFTER_CANCEL = 4.0
"""Seconds that what closes others' work may take after a cancel, to say what was done and what was not."""
FINALLY_AFTER_CANCEL = 8.0
CHECKS_AT_ONCE = 10
CHECK_WITHIN = 30.0
"""Seconds that the question may take whether an earlier result is still there."""
LOOK_WITHIN, LOOK_AFTER_CANCEL = 30.0, 1.0
LOOK_EVERY = 0.5
"""Seconds that the look for secrets in what the run wrote may take."""
STOP_WITHIN = 10.0
"""Seconds after a cancel when nobody waits any longer for stages that do not stop."""

_BAD = (Outcome.FAILED, Outcome.ERRORED, Outcome.TIMED_OUT)


class Pools:
    """What bounds how many stages run at once, shared by all pipelines of this process."""

    def __init__(self, jobs: int, sizes: Mapping[str, int]) -> None:
        self._limiters = {name: anyio.CapacityLimiter(size) for name, size in sizes.items()}
        self._jobs = anyio.CapacityLimiter(jobs)

    def needed(self, leaf: Leaf) -> list[tuple[str, anyio.CapacityLimiter]]:
        """The limiters a leaf must hold, in one order for all, so that no two leaves wait for each other."""
        pools = [(name, self._limiters[name]) for name in sorted(leaf.pools)]
        return [*pools, ("jobs", self._jobs)] if leaf.computes else pools


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants of an engine beside the plan."""

    fail_fast: bool = False
    jobs: int = 0
    strict: bool = False
    """Force every record to disk before going on, not only those before effects."""
    again: Mapping[str, str] | None = None
    """Leaves that are to be run although they have ended, and why; None when the run just goes on."""
    cancelled_by: str = ""
    """Who wants the run only ended: nothing more starts but its `finally`."""
    preflight: bool = True
    """Look ahead before anything is computed."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What is found once a run and is known beforehand: the commits of a plan that was approved."""


FIRST = Request()


@dataclass
class _Wave:
    """Leaves that run together: the stages, and after them those of `finally`."""

    schedule: Schedule
    last: bool = False
    controls: dict[str, Control] = field(default_factory=dict)
    stop: Interrupt | None = None
    """Why no further leaf starts."""
    stopped_stages: dict[str, Interrupt] = field(default_factory=dict)
    """Why no further leaf of one stage starts."""

    def halt(self, leaves: Iterable[str], interrupt: Interrupt) -> None:
        for name in leaves:
            self.controls[name].stop(interrupt)


class Engine:
    """Runs one plan in its folder: `run` once, `cancel` at any time."""

    def __init__(self, world: World, pools: Pools, request: Request = FIRST) -> None:
        self.world = world
        self.journal = world.journal
        self._pools = pools
        self._request = request
        self._ends: dict[str, End] = {}
        self._wave = _Wave(Schedule(()))
        self._cancel: Interrupt | None = None
        self._late: Interrupt | None = None
        self._cancelled_at = 0.0
        self._cancelled = anyio.Event()
        self.stopping = anyio.Event()
        """Set when the run is to end before its time: it was cancelled, or let go of."""
        self.gone = anyio.Event()
        """Set when `run` has returned, however, or when nobody waits for that any longer."""
        self.let_go_because = ""
        self._scope: anyio.CancelScope | None = None
        self._most_retries = max(FEWEST_RETRIES, len(world.plan.leaves))
        self._looked: set[str] = set()
        """Leaves whose earlier results were looked for."""
        self._checks = anyio.CapacityLimiter(CHECKS_AT_ONCE)
        self._results = Results(world.plan, world.journal.state, world.kind)
        self._cleared = anyio.Event()
        """Set when the preflight is over, or there is none: until then only what prepares others may begin."""
        self._looking: anyio.CancelScope | None = None

    # -- from outside ------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Execute everything and return how the run ended; the last event is on disk by then."""
        self._take_run()
        outcome = None
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            tasks.start_soon(self.journal.keep_forced)
            tasks.start_soon(load_heavy_modules, self.world)
            tasks.start_soon(self._watch_arguments)
            tasks.start_soon(obey, Orders(self.journal.folder.path), self._obey)
            async with in_turn(self._turn(), self._queued, self._cancelled, self.let_go) as ours:
                tasks.start_soon(self._bound_run)
                outcome = await self._run_stages(clean_up=ours or self.journal.state.work_began > 0)
            await self._look_for_leaks()
            tasks.cancel_scope.cancel()
        if outcome is None or self.over:  # let go of, or left behind
            self.journal.close()
            return self.journal.state.outcome or Outcome.ERRORED
        self._close(outcome)
        return self.journal.state.outcome or outcome

    def cancel(self, by: str, *, superseded: bool = False) -> None:
        """End the run: running stages stop, waiting ones never start, `finally` gets eight seconds."""
        if self._cancel or self.over:
            return
        self.journal.append(events.CancelRequested(by, superseded))
        self._begin_cancel()
        if not self._wave.last and self._cancel:
            self._stop_all(self._cancel)

    def _begin_cancel(self) -> None:
        """Take in a cancel that stands in the journal, of this engine's time or of one before it."""
        by, superseded = self.journal.state.cancelled_by, self.journal.state.superseded
        kind = CauseKind.SUPERSEDED_BY if superseded else CauseKind.CANCELLED_BY
        message = f"{by} took its place" if superseded else f"cancelled by {by}"
        self._cancel = Interrupt(Outcome.CANCELLED, Cause(kind, message, (by,)))
        self._cancelled_at = anyio.current_time()
        self._cancelled.set()
        self.stopping.set()

    def _obey(self, order: Cancel) -> None:
        self.cancel(order.by, superseded=order.superseded)

    def let_go(self, why: str) -> None:
        """Stop without an end: attempts are ended and lost, effects that have begun finished, and the run resumable."""
        self.let_go_because = self.let_go_because or why
        self.stopping.set()
        for control in self._wave.controls.values():
            control.bound_effects()
        if self._scope:
            self._scope.cancel()

    def cut(self) -> None:
        """After a cancel: end even effects that have begun; the journal then cannot say what became of them."""
        for control in self._wave.controls.values():
            control.cut()

    @property
    def over(self) -> bool:
        """Nothing more is to be written: the run has its end, or was let go of without one."""
        return self.journal.state.outcome is not None or bool(self.let_go_because)

    def abandon(self) -> None:
        """Write down that stages did not stop in time; they are to end with the process."""
        if self.over:
            return
        stuck = Cause(CauseKind.CANCELLED_BY, "did not stop in time; what it was doing is unknown")
        never = Cause(CauseKind.CANCELLED_BY, "no time was left for it")
        running = self._running()
        for leaf in (*self.world.plan.leaves, *self.world.plan.finally_):
            if leaf.name not in self._ends:
                self._finish(leaf, Result(Outcome.CANCELLED, stuck if leaf.name in running else never))
        self._close(Outcome.CANCELLED)
        if self._scope:
            self._scope.cancel()

    async def _bound_run(self) -> None:
        """End the stages when the run's own time is over; it counts from the first stage that ever started."""
        if self.world.plan.timeout is None:
            return
        limit = self.world.plan.timeout.total_seconds()
        began = self.journal.state.work_began or time.time()
        await anyio.sleep(max(0.0, began + limit - time.time()))
        reason = f"the run was not done after {limit:g} s, the pipeline's timeout"
        self._late = Interrupt(Outcome.TIMED_OUT, Cause(CauseKind.TIMEOUT, reason))
        if not self._wave.last:
            self._stop_all(self._late)

    def _turn(self) -> Turn | None:
        plan = self.world.plan
        if plan.concurrency is None:
            return None
        name = f"{plan.pipeline}#{plan.run.number}"
        return Turn(self.world.store, plan.concurrency, self.journal.folder.path, plan.run.id, name)

    def _queued(self, group: str, behind: str) -> None:
        self.journal.append(events.RunQueued(group, behind))

    # -- waves -------------------------------------------------------------------------------------

    def _take_run(self) -> None:
        state, epoch = self.journal.state, self.journal.epoch
        if epoch > 1:
            again = self._request.again
            taken = events.RunResumed(
                epoch, state.seq, again is not None, self.world.host.name, os.getpid(), __version__, self._private
            )
            self.journal.append(taken)
            self._lose_attempts()
            list(Orders(self.journal.folder.path).take())  # they were meant for an engine that is gone
            if again is not None:
                self.journal.append(events.RunReopened(again))
        if not state.id:
            self._begin_run()
        if self._request.cancelled_by and not state.cancelled_by:
            self.journal.append(events.CancelRequested(self._request.cancelled_by))
        if state.cancelled_by:
            self._begin_cancel()

    @property
    def _private(self) -> str:
        return str(self.world.private or "")

    def _begin_run(self) -> None:
        plan = self.world.plan
        self.journal.append(
            events.RunStarted(
                id=plan.run.id,
                number=plan.run.number,
                pipeline=plan.pipeline,
                host=self.world.host.name,
                pid=os.getpid(),
                trigger=plan.trigger.kind,
                version=__version__,
                jobs=self._request.jobs,
                fail_fast=self._request.fail_fast,
                strict=self._request.strict,
                preflight=self._request.preflight,
                private=self._private,
                folder=str(self.world.workspace),
                source=dict(self.world.source),
            )
        )
        for key, value in self._request.facts.items():
            self.journal.append(events.FactFound(key, value))

    def _lose_attempts(self) -> None:
        """Attempts that were under way died with their engine."""
        cause = Cause(CauseKind.INFRA, "the engine died while it was running")
        for leaf in list(self.journal.state.leaves.values()):
            if leaf.running and not leaf.again_at:
                join_ends(self.journal.folder.log(leaf.name, leaf.attempt))
                self.journal.append(events.StageLost(leaf.name, leaf.attempt, cause))

    async def _watch_arguments(self) -> None:
        """Warn when a script hands a secret to a program as an argument; one that ends between two looks is missed."""
        told: set[tuple[str, str]] = set()
        own = anyio.CapacityLimiter(1)
        while self.world.unsaid.needles() is not None:
            await anyio.sleep(LOOK_EVERY)
            for leaf, program in sorted(await call(own, shown_by_arguments, self.world.unsaid, MARK) - told):
                told.add((leaf, program))
                place = f"the arguments of {program}, which every user of the machine can list"
                if place not in self.journal.state.leaks:
                    way = "hand it over in a file or by standard input"
                    self.journal.append(events.RunWarned(f"a secret stands among {place}: {way}", leaf))

    async def _look_for_leaks(self) -> None:
        """See that no secret stands in what the run wrote; bounded, and after a cancel there is hardly any time."""
        world = self.world
        if world.unsaid.needles() is None:
            return
        look = Look(self.journal.folder, world.unsaid, LOOK_AFTER_CANCEL if self._cancel else LOOK_WITHIN)
        try:
            found = await call(anyio.CapacityLimiter(1), look)
        except OSError as error:
            self.journal.append(events.RunWarned(f"nobody looked for secrets in what it wrote: {error}"))
            return
        for where in found:
            self.journal.append(events.SecretLeaked(where))
        if look.unread:
            message = f"nobody looked for secrets in {look.unread} file(s) of the run: no time was left, or no right"
            self.journal.append(events.RunWarned(message))

    def _close(self, outcome: Outcome) -> None:
        """Write the end. A run that shows a secret is not green, whatever its stages are."""
        cause = None
        if leaks := self.journal.state.leaks:
            cause = Cause(CauseKind.CONFIG, f"a secret can be read in {leaks[0]}: change it", tuple(leaks))
            outcome = Outcome.FAILED if outcome is Outcome.SUCCEEDED else outcome
        self.journal.append(events.RunFinished(outcome, cause))
        self.journal.close()

    async def _reopen_what_is_gone(self) -> None:
        """An earlier result is used again only if what it left is still there; else it and what needs it run again."""
        while found := await self._look_for_gone():
            self.journal.append(events.RunReopened(found))

    async def _look_for_gone(self) -> dict[str, str]:
        """Leaves with results that are wanted and gone, and those that need them; what they need is looked for next."""
        plan, leaves = self.world.plan, self.journal.state.leaves
        ended = {name for name, leaf in leaves.items() if leaf.outcome}
        used = above(plan.leaves, [leaf.name for leaf in plan.leaves if leaf.name not in ended])
        found: dict[str, str] = {}

        async def look(leaf: Leaf) -> None:
            async with self._checks:
                if reason := await self._gone(leaf):
                    found[leaf.name] = reason

        async with anyio.create_task_group() as tasks:
            for leaf in plan.leaves:
                if leaf.name in (used & ended) - self._looked and leaves[leaf.name].outcome is Outcome.SUCCEEDED:
                    self._looked.add(leaf.name)
                    tasks.start_soon(look, leaf)
        return {name: reason for name, reason in below(plan, found).items() if name in ended}

    async def _gone(self, leaf: Leaf) -> str:
        outputs = self.journal.state.leaves[leaf.name].outputs
        try:
            with anyio.fail_after(CHECK_WITHIN):
                return await gone(self.world, leaf, outputs, partial(self._results.value, leaf))
        except (StageErrored, TimeoutError, MissingValue) as error:
            reason = str(error) or f"no answer within {CHECK_WITHIN:g} s"
            self.journal.append(events.RunWarned(f"used again without a look: {reason}", leaf.name))
            return ""

    async def _run_stages(self, *, clean_up: bool) -> Outcome:
        """The stages, then those of `finally`; a run whose turn never came has nothing to clean up."""
        plan, state = self.world.plan, self.journal.state
        if self.journal.epoch > 1 and not self._cancel:
            await self._reopen_what_is_gone()
        await self._run_wave(_Wave(Schedule(plan.leaves), stop=self._cancel or self._late), look=True)
        outcome = Outcome.CANCELLED if self._cancel else run_outcome(state.leaves.values())
        self._results.outcome = outcome
        await self._run_finally(_Wave(Schedule(plan.finally_), last=True, stop=None if clean_up else self._cancel))
        return outcome

    async def _run_wave(self, wave: _Wave, *, look: bool = False) -> None:
        self._wave = wave
        self._restore(wave)
        async with anyio.create_task_group() as tasks:
            if look:
                self._look_ahead(tasks)
            self._advance(tasks)

    def _restore(self, wave: _Wave) -> None:
        """Take in how leaves ended before this engine took the run."""
        leaves = self.journal.state.leaves
        known = [leaves[name] for name in wave.schedule.leaves if name in leaves and leaves[name].outcome]
        for state in sorted(known, key=lambda state: state.ended):
            end = self._ends[state.name] = End(state.outcome or Outcome.ERRORED, state.cause, state.allowed)
            self._results.give(wave.schedule.leaves[state.name], state.outputs)
            wave.schedule.ended(state.name, end)
        for state in known if self._request.again is None else ():
            if state.outcome in _BAD and not state.allowed and not wave.last:
                self._failed(wave.schedule.leaves[state.name])

    async def _run_finally(self, wave: _Wave) -> None:
        """After a cancel the stages of `finally` share what time is left; what fails there is a warning."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._bound_finally, wave)
            await self._run_wave(wave)
            tasks.cancel_scope.cancel()
        for leaf in self.world.plan.finally_:
            end = self._ends[leaf.name]
            if end.outcome not in (Outcome.SUCCEEDED, Outcome.SKIPPED) and end.cause:
                self.journal.append(events.RunWarned(f"{end.outcome} in finally: {end.cause.message}", leaf.name))

    async def _bound_finally(self, wave: _Wave) -> None:
        await self._cancelled.wait()
        used = anyio.current_time() - self._cancelled_at
        await anyio.sleep(max(1.0, min(FINALLY_AFTER_CANCEL, STOP_WITHIN - 1 - used)))
        wave.stop = Interrupt(Outcome.CANCELLED, Cause(CauseKind.TIMEOUT, "no time was left after the cancel"))
        wave.halt(self._running(), wave.stop)
        self.cut()

    def _advance(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start what can start and end what never will."""
        wave = self._wave
        for leaf, never in wave.schedule.ready():
            cause = never or (_condition(leaf, leaf.never) if leaf.never else None)
            stop = self._stop_for(leaf, begun=cause is None and bool(leaf.needs))
            if stop and (self._cancel or not cause):
                self._finish(leaf, Result(stop.outcome, stop.cause))
            elif cause:
                self._finish(leaf, Result(Outcome.SKIPPED, cause))
            else:
                control = wave.controls[leaf.name] = Control()
                if self._cancel and leaf.closes:
                    control.expect(self._cancel, self._time_to_close)
                tasks.start_soon(self._run_leaf, leaf, control, tasks)

    def _stop_for(self, leaf: Leaf, *, begun: bool) -> Interrupt | None:
        """Why a leaf may not start any more.

        One that closes what others began is stopped by the end of the run alone; by a cancel if nothing was begun.
        """
        if leaf.closes:
            return self._late or (None if begun else self._cancel)
        return self._wave.stop or self._wave.stopped_stages.get(leaf.stage)

    @property
    def _time_to_close(self) -> float:
        """Seconds that closing may take after a cancel, so that some are left for `finally`."""
        used = anyio.current_time() - self._cancelled_at
        return max(0.5, min(CLOSE_AFTER_CANCEL, STOP_WITHIN - 2 - used))

    # -- before anything is computed ---------------------------------------------------------------

    def _look_ahead(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin the preflight, unless nobody wants one or there is nothing to look at."""
        wave = self._wave
        waiting = (wave.schedule.leaves[name] for name in wave.schedule.waiting)
        kinds = {leaf.uses for leaf in waiting if not leaf.never} if self._request.preflight else set()
        if wave.stop is None and any(looks(self.world.kind(name)) for name in kinds):
            tasks.start_soon(self._preflight, tasks)
        else:
            self._cleared.set()

    async def _preflight(self, tasks: anyio.abc.TaskGroup) -> None:
        """Look ahead; what will fail ends the run now, before it has cost anything."""
        from runner.findings import as_json, blocking
        from runner.preflight import Preflight, scene_of

        report = None
        with anyio.CancelScope() as self._looking:
            try:
                report = await Preflight(scene_of(self.world)).run()
            except OSError as error:  # where it cannot work, the run may
                self.journal.append(events.RunWarned(f"no preflight: {error}"))
        if report and not self.over:
            found = [as_json(told) for told in report.found]
            self.journal.append(events.RunPreflighted(found, len(report.checked), round(report.seconds, 3)))
            self._refuse(blocking(report.found))
            self._advance(tasks)
        self._cleared.set()

    def _refuse(self, found: Mapping[str, Sequence[Finding]]) -> None:
        """End the leaves that will fail as if they had, and start no other."""
        from runner.findings import verdict

        found = {name: findings for name, findings in found.items() if name not in self._ends}
        if not found:
            return
        first = next(iter(found))
        cause = Cause(CauseKind.CANCELLED_BY, f"not run: the preflight says that {first} will fail", (first,))
        for name, findings in found.items():
            outcome, why = verdict(findings)
            if name in self._wave.controls:
                self._wave.controls[name].stop(Interrupt(outcome, why))
            else:
                self._finish(self._wave.schedule.leaves[name], Result(outcome, why))
        self._stop_all(Interrupt(Outcome.CANCELLED, cause))

    # -- one leaf ----------------------------------------------------------------------------------

    async def _run_leaf(self, leaf: Leaf, control: Control, tasks: anyio.abc.TaskGroup) -> None:
        result = None
        with control.scope:
            await anyio.lowlevel.checkpoint()  # it may have been stopped before it began
            result = self._kept_from_starting(leaf)
            state = self.journal.state.leaf(leaf.name)
            await anyio.sleep(max(0.0, state.again_at - time.time()))
            if not self._cleared.is_set() and not self.world.kind(leaf.uses).prepares:
                await self._cleared.wait()
            number = state.attempt
            while result is None:
                number += 1
                result = await self._attempt(leaf, number, control)
        if result is None and control.interrupt:
            result = Result(control.interrupt.outcome, control.interrupt.cause)
        if result and not self.over:
            self._finish(leaf, result)
            self._advance(tasks)

    def _kept_from_starting(self, leaf: Leaf) -> Result | None:
        """The end of a leaf whose needs are met but which must not start: its condition, or a missing value."""
        try:
            if leaf.when and not evaluate(leaf.when, self._results.names(leaf)):
                return Result(Outcome.SKIPPED, _condition(leaf, f"when: {leaf.when}"))
            for reference in leaf.references:
                self._results.value(leaf, reference)
        except ConditionError as error:
            return Result(Outcome.FAILED, Cause(CauseKind.CONFIG, f"when: {error}"))
        except MissingValue as missing:
            how = self._ends[missing.leaf].outcome.value if missing.leaf in self._ends else "missing"
            message = f"needs ${{stages.{missing.leaf}.{missing.output}}}: {missing.leaf} {how}"
            return Result(Outcome.SKIPPED, Cause(CauseKind.DEPENDENCY, message, (missing.leaf, how)))
        return None

    async def _attempt(self, leaf: Leaf, number: int, control: Control) -> Result | None:
        """One attempt; None when another one follows."""
        async with AsyncExitStack() as held:
            for name, limiter in self._pools.needed(leaf):
                if limiter.available_tokens < 1:
                    self.journal.append(events.StageQueued(leaf.name, name))
                await held.enter_async_context(limiter)
            self.journal.append(events.StageStarted(leaf.name, number))
            lookup = partial(self._results.value, leaf)
            result = await attempt(self.world, leaf, number, control, lookup, self._results.exports(leaf))
        if self.over:  # left behind meanwhile: its end is written
            return result
        tries = self.journal.state.leaf(leaf.name).tries
        if result.cause is None or tries >= leaf.retry.times:
            return result
        if not leaf.retry.repeats(result.cause.kind):
            kind = result.cause.kind.value
            if kind in ("user", "timeout") and not leaf.closes:
                hint = f"not tried again: `retry:` is for {', '.join(leaf.retry.on)} unless `on:` names {kind} too"
                self.journal.append(events.RunWarned(hint, leaf.name))
            return result
        if sum(state.tries for state in self.journal.state.leaves.values()) >= self._most_retries:
            used_up = f"{result.cause.message} (no further attempt: {self._most_retries} in this run were enough)"
            return replace(result, cause=replace(result.cause, message=used_up))
        pause = min(LONGEST_PAUSE, leaf.retry.wait.total_seconds() * 2**tries)
        self.journal.append(events.StageRetrying(leaf.name, number, result.outcome, result.cause, pause))
        await anyio.sleep(pause)
        return None

    def _finish(self, leaf: Leaf, result: Result) -> None:
        state = self.journal.state.leaf(leaf.name)
        number = state.attempt
        if state.lost:
            self._warn_of_unproven(leaf)
        bad = result.outcome in _BAD
        end = self._ends[leaf.name] = End(result.outcome, result.cause, bad and leaf.allow_failure)
        self.journal.append(
            events.StageFinished(leaf.name, number, end.outcome, end.cause, result.outputs, end.allowed)
        )
        self._results.give(leaf, result.outputs)
        self._wave.schedule.ended(leaf.name, end)
        if bad and not end.allowed and not self._wave.last:
            self._failed(leaf)

    def _warn_of_unproven(self, leaf: Leaf) -> None:
        """Its engine died within an effect, and nobody will ask any more what became of that."""
        for (name, key), effect in list(self.journal.state.effects.items()):
            if name == leaf.name and effect.proof is None:
                self.journal.append(events.RunWarned(f"nobody can say whether '{key}' took place", leaf.name))

    # -- ending others -----------------------------------------------------------------------------

    def _failed(self, leaf: Leaf) -> None:
        cause = Cause(CauseKind.CANCELLED_BY, f"cancelled because {leaf.name} failed", (leaf.name,))
        interrupt = Interrupt(Outcome.CANCELLED, cause)
        if self._request.fail_fast:
            self._wave.stop = self._wave.stop or interrupt
            self._wave.halt(
                [name for name in self._running() if not self._wave.schedule.leaves[name].closes], interrupt
            )
        elif leaf.fail_fast:
            wave = self._wave
            wave.stopped_stages[leaf.stage] = interrupt
            wave.halt([name for name in self._running() if wave.schedule.leaves[name].stage == leaf.stage], interrupt)

    def _stop_all(self, interrupt: Interrupt) -> None:
        if self._looking:
            self._looking.cancel()
        self._wave.stop = self._wave.stop or interrupt
        self._wave.halt(self._running(), interrupt)

    def _running(self) -> list[str]:
        return [name for name in self._wave.controls if name not in self._ends]


def _condition(leaf: Leaf, text: str) -> Cause:
    return Cause(CauseKind.CONDITION, text, (leaf.name,))
