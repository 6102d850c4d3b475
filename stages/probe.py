"""`uses: probe`: a stage that does whatever it is told, to try pipelines and the engine without docker or a cluster."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import anyio
import anyio.lowlevel
from pydantic import Field, JsonValue

from pipeline.stage import (
    Cause,
    CauseKind,
    Duration,
    Examined,
    Finding,
    Foreseen,
    Login,
    Outputs,
    PreflightContext,
    Secret,
    SecretRef,
    SecretText,
    Settled,
    Severity,
    Stage,
    StageContext,
    StageErrored,
    StageFailed,
)

__all__ = ["Probe", "ProbeOutputs"]

NONE = timedelta()
LINES_AT_ONCE = 1000


class ProbeOutputs(Outputs):
    """What a probe was told to say."""

    value: str
    """The text of the field `output`."""
    attempt: int
    """Which attempt it was."""


class Probe(Stage[ProbeOutputs]):
    """Do as told: sleep, log, fail, crash, ignore a cancel, make effects. Needs nothing installed."""

    output: str = ""
    """Its output `value`."""
    log: str = ""
    """A text for the log."""
    lines: int = Field(default=0, ge=0)
    """How many numbered lines to log."""
    secret: Annotated[str, SecretRef(("text", "login", "file", "ssh"))] = ""
    """A secret to write to the log, where it has to come out masked."""
    sleep: Duration = NONE
    """How long it takes."""
    ignore_cancel: Duration = NONE
    """How long it goes on after it was cancelled."""
    effects: int = Field(default=0, ge=0)
    """How many changes to the outside to make, one after the other; one that is proven is not repeated."""
    effect_sleep: Duration = NONE
    """How long each change takes."""
    effect_file: str = ""
    """A file in the workspace that gets a line for each change made."""
    settles: Literal["done", "absent", "unknown", "file"] = "unknown"
    """What it answers about a change that an attempt intended and did not prove; `file`: what `effect_file` says."""
    fail: str = ""
    """Fail with this message."""
    exit_code: int = 0
    """Fail as a program does that ends with this code."""
    error: str = ""
    """End as errored, with this message and the cause infra."""
    crash: bool = False
    """Break with an error that no kind should let through: a bug."""
    cause: CauseKind = CauseKind.USER
    """The cause that `fail` and `exit_code` name."""
    evidence: tuple[str, ...] = ()
    """Lines that prove the cause."""
    fail_times: int = Field(default=0, ge=0)
    """Fail in the first attempts only, as the fields above say (infra when they say nothing); 0: in all."""

    finds: str = ""
    """What its look ahead finds wrong."""
    finds_how: Severity = Severity.FAILS
    """How sure that is; with the cause `infra` it is raised as an outage."""
    look: Duration = NONE
    """How long the look takes."""

    async def foresee(self, ctx: PreflightContext) -> Foreseen:  # noqa: ARG002
        """The text that it was told to give."""
        return Foreseen(ProbeOutputs(value=self.output, attempt=1), made=frozenset({"attempt"}))

    async def preflight(self, ctx: PreflightContext) -> Examined:  # noqa: ARG002
        """Look as long as told, and find what was told."""
        await anyio.sleep(self.look.total_seconds())
        if self.finds and self.cause is CauseKind.INFRA:
            raise StageErrored(self.finds)
        found = [Finding(self.finds_how, Cause(self.cause, self.finds, self.evidence))] if self.finds else []
        return Examined(found, ["a probe"])

    async def run(self, ctx: StageContext) -> ProbeOutputs:
        """Log, sleep, make the effects, then end as told."""
        await self._write(ctx)
        await self._sleep()
        for number in range(1, self.effects + 1):
            await self._change(ctx, number)
        self._end(ctx.run.attempt)
        return ProbeOutputs(value=self.output, attempt=ctx.run.attempt)

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:
        """Answer as told, or look."""
        if self.settles == "file":
            line = f"{ctx.run.stage} {intent['number']}\n"
            there = await ctx.call(_holds, ctx.workspace / self.effect_file, line)
            return Settled("done" if there else "absent", {"found": True})
        return Settled(self.settles, {"settled": True} if self.settles == "done" else {}, f"probe: {key}")

    async def _write(self, ctx: StageContext) -> None:
        if self.log:
            ctx.log(self.log)
        if self.secret:
            ctx.log(await ctx.call(_clear, ctx.secret(self.secret)))
        for start in range(1, self.lines + 1, LINES_AT_ONCE):
            end = min(start + LINES_AT_ONCE, self.lines + 1)
            ctx.log("".join(f"line {number}\n" for number in range(start, end)).encode())
            await anyio.lowlevel.checkpoint()

    async def _sleep(self) -> None:
        try:
            await anyio.sleep(self.sleep.total_seconds())
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.ignore_cancel.total_seconds())
            raise

    async def _change(self, ctx: StageContext, number: int) -> None:
        async with ctx.effect(f"probe {number}", {"number": number}) as effect:
            if effect.proven is not None:
                effect.proof(effect.proven)
                return
            await anyio.sleep(self.effect_sleep.total_seconds())
            if self.effect_file:
                await ctx.call(_append, ctx.workspace / self.effect_file, f"{ctx.run.stage} {number}\n")
            effect.proof({"number": number, "attempt": ctx.run.attempt})

    def _end(self, attempt: int) -> None:
        if self.fail_times and attempt > self.fail_times:
            return
        if self.crash:
            raise RuntimeError("probe was told to crash")
        if self.error:
            raise StageErrored(self.error, evidence=self.evidence)
        if self.fail or self.exit_code:
            message = self.fail or f"ended with exit code {self.exit_code}"
            raise StageFailed(message, kind=self.cause, evidence=self.evidence)
        if self.fail_times:
            raise StageErrored(f"attempt {attempt} was told to fail", evidence=self.evidence)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _holds(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def _clear(secret: Secret) -> str:
    if isinstance(secret, SecretText):
        return secret.value
    if isinstance(secret, Login):
        return f"{secret.username} {secret.password}"
    return secret.path.read_text()
