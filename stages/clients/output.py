"""A program whose output a kind reads while it runs."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio

from pipeline.stage import CauseKind, StageContext, StageFailed

__all__ = ["Lines", "watched"]

BLOCK = 65536
LINE_LIMIT = 8192
BREAK = re.compile(rb"[\r\n]+")
REDIRECT = 'exec "$@" >"$0" 2>&1'


class Lines:
    """Cuts blocks of bytes into lines; a carriage return ends one too, and what is too long is cut."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, block: bytes) -> None:
        """Add a block; every line that it completes is handed on."""
        *lines, self._rest = BREAK.split(self._rest + block)
        for line in lines:
            self._hand(line)
        self._rest = self._rest[:LINE_LIMIT]

    def end(self) -> None:
        """Hand on what is left without an end of line."""
        self._hand(self._rest)
        self._rest = b""

    def _hand(self, line: bytes) -> None:
        if line:
            self._take(line[:LINE_LIMIT].decode(errors="replace"))


async def watched(
    ctx: StageContext,
    argv: Sequence[str],
    sink: Callable[[bytes], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Run a program as `ctx.exec` does; its output goes to `sink`, block by block, not to the log.

    Returns:
        Its exit code.

    Raises:
        StageFailed: there is no such program.
    """
    folder = await ctx.call(_fifo, argv[0], {**ctx.env, **(env or {})}.get("PATH"))
    try:
        source = await ctx.call(os.open, folder / "output", os.O_RDWR | os.O_NONBLOCK)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_carry, source, sink)
                wrapped = ["/bin/sh", "-c", REDIRECT, str(folder / "output"), *argv]
                ended = await ctx.exec(wrapped, env=env, cwd=cwd, check=False)
                tasks.cancel_scope.cancel()
            _drain(source, sink)
        finally:
            os.close(source)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.call(shutil.rmtree, folder, ignore_errors=True)
    return ended.exit_code


def _fifo(program: str, path: str | None) -> Path:
    if shutil.which(program, path=path) is None:
        message = f"there is no program '{program}': install it, or put its folder on PATH"
        raise StageFailed(message, kind=CauseKind.CONFIG)
    folder = Path(tempfile.mkdtemp(prefix="pipe-"))
    os.mkfifo(folder / "output", 0o600)
    return folder


async def _carry(source: int, sink: Callable[[bytes], None]) -> None:
    while True:
        await anyio.wait_readable(source)
        _drain(source, sink, blocks=16)


def _drain(source: int, sink: Callable[[bytes], None], blocks: int = 1 << 20) -> None:
    for _ in range(blocks):
        try:
            block = os.read(source, BLOCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            raise
        sink(block)
