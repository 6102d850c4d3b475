"""What a stage is given: the engine's side of `StageContext`."""

import os
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from pydantic import JsonValue

from pipeline.stage import CauseKind, Completed, Effect, Glob, RunInfo, Secret, SecretFile, StageErrored, StageFailed
from runner import events
from runner.blocking import call
from runner.cgroups import Group, out_of_memory_here
from runner.control import Control
from runner.journal import Journal
from runner.logs import StageLog
from runner.mask import Masker
from runner.process import Ended, NoProgramError, execute
from runner.secrets import Secrets

__all__ = ["Context", "Facts", "carried", "completed", "private_copy"]

P = ParamSpec("P")
T = TypeVar("T")

CAPTURE_LIMIT = 4 << 20
PROGRESS_EVERY = 0.5
THREADS = 64


class Facts:
    """What a run finds once and uses everywhere; one search at a time for each key."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self.asked: set[str] = set()
        """Tools that this engine has asked for their versions."""

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        """The journaled fact, found now if it is not known yet."""
        async with self._locks[key]:
            known = self._journal.state.facts
            if key not in known:
                self._journal.append(events.FactFound(key, await find()))
                await self._journal.force()
            return known[key]


class _Effect:
    def __init__(self, proven: Mapping[str, JsonValue] | None) -> None:
        self.proven = proven
        self.value: Mapping[str, JsonValue] | None = None

    def proof(self, value: Mapping[str, JsonValue]) -> None:
        self.value = value


@dataclass
class Context:
    """One attempt's view of the run; satisfies `pipeline.stage.StageContext`."""

    run: RunInfo
    root: Path
    workspace: Path
    cache_place: Path
    private: Path
    env: Mapping[str, str]
    manifest_env: Mapping[str, str]
    journal: Journal
    facts: Facts
    stage_log: StageLog
    secrets: Secrets
    unsaid: Masker
    control: Control
    published: list[tuple[str, Glob]] = field(default_factory=list)
    """Of which sort, and where, reports will lie at the end."""
    group: Group | None = None
    killed_before: int = field(default_factory=out_of_memory_here)
    saw_kill: bool = False
    """A program of it was ended by SIGKILL, or says that one was."""
    _threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))
    _progressed: float = 0.0
    _said: tuple[str, float | None] = ("", None)

    @property
    def cache(self) -> Path:
        """The kind's folder that runs share, made when it is asked for."""
        self.cache_place.mkdir(parents=True, exist_ok=True)
        return self.cache_place

    def log(self, text: str | bytes) -> None:
        """Add to the stage's log."""
        if isinstance(text, str):
            self.stage_log.line(text)
        else:
            self.stage_log.write(text)

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Say what is going on, at most twice a second."""
        now = time.monotonic()
        if now - self._progressed >= PROGRESS_EVERY and (text, fraction) != self._said:
            self._progressed, self._said = now, (text, fraction)
            self.stage_log.heard = now
            self.journal.append(events.StageProgressed(self.run.stage, text, fraction))

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
        """Run a program in the workspace; see the contract."""
        program, environ = argv[0], {**self.env, **(env or {})}
        where = cwd or self.workspace
        if self.group and shutil.which(where / program if "/" in program else program, path=environ.get("PATH")):
            argv = self.group.wrap(argv)
        if self.unsaid.holds(b"\0".join(map(os.fsencode, argv))):
            place = f"the arguments of {Path(program).name}, which every user of the machine can list"
            self.journal.append(events.SecretLeaked(place, self.run.stage))
        shown = output or self.stage_log.stream()
        ended, captured = await carried(argv, cwd=where, env=environ, stdin=stdin, capture=capture, shown=shown)
        self.saw_kill = self.saw_kill or ended.exit_code == 128 + signal.SIGKILL
        self.control.signalled |= ended.exit_code - 128 in (signal.SIGTERM, signal.SIGINT)
        if ended.left_behind:
            self.warn(f"{program} ended, but a process that it left behind keeps its output open; no longer reading")
        return completed(program, ended, captured, check=check)

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in a thread of this attempt's own."""
        return await call(self._threads, function, *args, **kwargs)

    def secret(self, name: str) -> Secret:
        """A declared secret; a file is a private copy that lives as long as the attempt."""
        value = self.secrets.get(name)
        return private_copy(name, value, self.private) if isinstance(value, SecretFile) else value

    def effect(self, key: str, intent: Mapping[str, JsonValue]) -> AbstractAsyncContextManager[Effect]:
        """Intent on disk before the body, proof after it; a cancel waits inside."""
        return self._effect(key, intent)

    @asynccontextmanager
    async def _effect(self, key: str, intent: Mapping[str, JsonValue]) -> AsyncIterator[Effect]:
        await anyio.lowlevel.checkpoint()
        self.journal.append(events.EffectIntended(self.run.stage, self.run.attempt, key, intent))
        await self.journal.force()
        await anyio.lowlevel.checkpoint()  # a cancel that came meanwhile ends it before it begins
        self.journal.check()
        effect = _Effect(self.journal.state.effects[self.run.stage, key].earlier)
        with self.control.effect() as scope:
            yield effect
            if effect.value is None:
                raise RuntimeError(f"the kind gave no proof of its effect '{key}'")
            self.journal.append(events.EffectProven(self.run.stage, self.run.attempt, key, effect.value))
            await self.journal.force()
        if scope.cancelled_caught:
            self.warn(f"'{key}' was cut short: nobody can say whether it took place")
            await anyio.lowlevel.checkpoint()  # the cancel or time-out that ended it
            raise StageErrored(f"'{key}' was cut short: nobody can say whether it took place")
        await anyio.lowlevel.checkpoint()  # a cancel or time-out that had to wait for it

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        """A fact found once a run."""
        return await self.facts.once(key, find)

    async def tool(self, name: str, ask: Callable[[], Awaitable[str]]) -> None:
        """Note a version where it is not known by this engine yet."""
        if name in self.facts.asked:
            return
        self.facts.asked.add(name)
        try:
            version = await ask()
        except (StageFailed, StageErrored, OSError) as error:
            self.stage_log.line(f"which {name} it is cannot be told: {error}")
            return
        if version and self.journal.state.facts.get(f"tool {name}") != version:
            self.journal.append(events.FactFound(f"tool {name}", version))

    def publish(self, what: Literal["junit"], pattern: Glob) -> None:
        """Note where reports will lie."""
        self.published.append((what, pattern))
        self.journal.append(events.ReportPublished(self.run.stage, what, pattern))

    def warn(self, message: str) -> None:
        """Tell people something that does not change the outcome."""
        self.stage_log.line(f"warning: {message}")
        self.journal.append(events.RunWarned(message, self.run.stage, logged=True))


def private_copy(name: str, secret: SecretFile, folder: Path) -> SecretFile:
    """A copy of a secret's file in a folder that nobody else can read, made once."""
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / re.sub(r"[^\w.-]", "_", f"secret-{name}")
    if not copy.exists():
        copy.touch(mode=0o600)
        shutil.copyfile(secret.path, copy)
    return SecretFile(copy)


async def carried(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes,
    capture: bool,
    shown: Callable[[bytes], None],
) -> tuple[Ended, bytes]:
    """Run a program; what it says goes to `shown`, but its standard output is returned if it is to be captured.

    Raises:
        StageFailed: (config) there is no such program.
    """
    captured = bytearray()

    def keep(data: bytes) -> None:
        captured.extend(data[: CAPTURE_LIMIT - len(captured)])

    streams = {"stdout": keep, "stderr": shown} if capture else {"stdout": shown}
    try:
        ended = await execute(argv, cwd=cwd, env=env, stdin=stdin, **streams)
    except NoProgramError as error:
        raise StageFailed(str(error), kind=CauseKind.CONFIG) from error
    return ended, bytes(captured)


def completed(program: str, ended: Ended, captured: bytes, *, check: bool) -> Completed:
    """How a program ended, as a stage is told; a bad end raises StageFailed if it is to be checked."""
    if check and ended.exit_code:
        raise StageFailed(_ending(program, ended.exit_code))
    return Completed(ended.exit_code, captured)


def _ending(program: str, code: int) -> str:
    if code > 128:
        return f"{program} was ended by signal {code - 128}"
    return f"{program} ended with exit code {code}"
