"""A small, real `StageContext` for tests of kinds: real processes and threads, everything else in memory."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from pydantic import JsonValue

from pipeline.files import Folder
from pipeline.stage import (
    CauseKind,
    Completed,
    Effect,
    Files,
    Glob,
    Outputs,
    RunInfo,
    Secret,
    Stage,
    StageFailed,
)

__all__ = ["FakeContext", "FakeEffect", "Run"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class FakeEffect:
    """One effect as the kind made it: `proven` is what an earlier attempt left, `value` what this one says."""

    key: str
    intent: Mapping[str, JsonValue]
    proven: Mapping[str, JsonValue] | None = None
    value: Mapping[str, JsonValue] | None = None
    finished: bool = False

    def proof(self, value: Mapping[str, JsonValue]) -> None:
        self.value = value


@dataclass(frozen=True)
class Run:
    """One program that was started: its words and what was laid over the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    stdin: bytes


def _info() -> RunInfo:
    return RunInfo("01JTESTRUN0000000000000000", 7, "sample", "stage", 1)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "JAVA_HOME") if name in os.environ}


@dataclass
class FakeContext:
    """Satisfies `StageContext` and `PreflightContext` of `pipeline.stage`; what the kind did is in the other attributes.

    `FakeContext(tmp_path)` makes `tmp_path/work` and `tmp_path/cache`. Give `facts` or `proven` what an
    earlier stage or attempt left behind. Logs are not masked.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=_environment)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    run: RunInfo = field(default_factory=_info)
    dir: str = ""
    manifest_env: Mapping[str, str] = field(default_factory=dict)
    facts: dict[str, JsonValue] = field(default_factory=dict)
    proven: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)

    earlier: Mapping[str, type[Stage[Outputs]]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    logged: bytearray = field(default_factory=bytearray)
    progressed: list[tuple[str, float | None]] = field(default_factory=list)
    effects: list[FakeEffect] = field(default_factory=list)
    published: list[tuple[str, str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.workspace, self.cache):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self.folder / "work"

    @property
    def workspace(self) -> Path:
        return self.root / self.dir

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def text(self) -> str:
        """The log so far."""
        return self.logged.decode(errors="replace")

    def log(self, text: str | bytes) -> None:
        self.logged += text if isinstance(text, bytes) else text.encode() + b"\n"

    def progress(self, text: str, fraction: float | None = None) -> None:
        self.progressed.append((text, fraction))

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
        folder = cwd or self.workspace
        self.runs.append(Run(tuple(argv), dict(env or {}), folder, stdin))
        captured = bytearray()
        program = _Program(argv, folder, {**self.env, **(env or {})}, stdin)
        try:
            shown = output or self.log
            code = await self.call(program, captured.extend if capture else shown, shown if capture else None)
        except FileNotFoundError as error:
            raise StageFailed(
                f"there is no program '{argv[0]}': install it, or put its folder on PATH", kind=CauseKind.CONFIG
            ) from error
        if check and code:
            raise StageFailed(f"{argv[0]} ended with exit code {code}")
        return Completed(code, bytes(captured))

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        ended = threading.Event()

        def body() -> T:
            try:
                return function(*args, **kwargs)
            finally:
                ended.set()

        try:
            return await anyio.to_thread.run_sync(body, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_stop, function, ended)
            raise

    def secret(self, name: str) -> Secret:
        return self.secrets[name]

    def effect(self, key: str, intent: Mapping[str, JsonValue]) -> AbstractAsyncContextManager[Effect]:
        return self._effect(key, intent)

    @asynccontextmanager
    async def _effect(self, key: str, intent: Mapping[str, JsonValue]) -> AsyncIterator[Effect]:
        effect = FakeEffect(key, dict(intent), self.proven.get(key))
        self.effects.append(effect)
        with anyio.CancelScope(shield=True):
            yield effect
        effect.finished = True

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        if key not in self.facts:
            self.facts[key] = await find()
        return self.facts[key]

    async def files(self) -> Files:
        """What lies in the workspace, as if a checkout were going to bring it."""
        return Folder(self.workspace, self.root)

    async def shared(self, key: str, find: Callable[[], Awaitable[T]]) -> T:
        if key not in self.found:
            self.found[key] = await find()
        found: T = self.found[key]
        return found

    async def tool(self, name: str, ask: Callable[[], Awaitable[str]]) -> None:
        self.facts[f"tool {name}"] = await ask()

    def warn(self, message: str) -> None:
        self.log(f"warning: {message}")
        self.warned.append(message)

    def publish(self, what: Literal["junit"], pattern: Glob) -> None:
        self.published.append((what, pattern))


class _Program:
    """A process that a thread waits for; `stop` kills its process group."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bytes) -> None:
        self._argv, self._cwd, self._env, self._stdin = list(argv), cwd, dict(env), stdin
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, stdout: Callable[[bytes], None], stderr: Callable[[bytes], None] | None) -> int:
        with tempfile.TemporaryFile() as source:
            source.write(self._stdin)
            source.seek(0)
            process = self._process = subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env=self._env,
                stdin=source if self._stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if stderr is None else subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        with process:
            readers = [
                threading.Thread(target=_read, args=(stream, sink))
                for stream, sink in ((process.stdout, stdout), (process.stderr, stderr))
                if stream is not None and sink is not None
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            code = process.wait()
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _read(stream: IO[bytes], sink: Callable[[bytes], None]) -> None:
    while block := stream.read(65536):
        sink(block)


def _stop(function: object, ended: threading.Event) -> None:
    stop = getattr(function, "stop", None)
    if stop is not None and not ended.is_set():
        stop()
        ended.wait(2)
