"""`pipe cancel`: ending a run from another terminal or host."""

import getpass
import os
import sys
import time
from pathlib import Path

import click

from pipeline.errors import PipeError
from runner.commands.resume import Options, read_run, resume
from runner.folder import RunFolder
from runner.guardian import Guardian
from runner.orders import Cancel, Orders
from runner.state import fold
from runner.status import status
from runner.store import Store

__all__ = ["cancel"]

ENDS_WITHIN = 15.0
"""Seconds that a cancelled run is waited for: stages get ten, and the console a moment."""


def cancel(words: str, guardian: Guardian | None) -> int:
    """Ask the engine of a run to end it, wherever it is, and wait until it has; end a run itself whose engine died.

    Raises:
        PipeError: the run has ended.
    """
    folder = _meant(words)
    plan, state = read_run(folder)
    name = f"{plan.pipeline}#{plan.run.number}"
    if state.outcome:
        raise PipeError(f"{name} is not running: {state.outcome}")
    if status(folder, name, state).word != "running":
        resume(Options(str(folder.path), cancelled_by=_who(), guardian=guardian))
        return 0 if fold(folder.records()).outcome else 1
    return _ask(folder, name)


def _ask(folder: RunFolder, name: str) -> int:
    try:
        Orders(folder.path).give(Cancel(_who()))
    except OSError as error:
        raise PipeError(f"cannot leave the order in {error.filename}: {error.strerror}") from error
    click.echo(f"{name}: asked to end")
    deadline = time.monotonic() + ENDS_WITHIN
    while time.monotonic() < deadline:
        time.sleep(0.2)
        state = fold(folder.records())
        if state.outcome:
            click.echo(f"{name}: {state.outcome}")
            return 0
        if (how := status(folder, name, state)).word != "running":
            raise PipeError(f"{name} could not end: {how.word}; {how.note}")
    sys.stderr.write(f"pipe: {name} has not ended after {ENDS_WITHIN:g} s; `pipe show '{name}'` tells how it is\n")
    return 1


def _meant(words: str) -> RunFolder:
    store = Store(os.environ, Path.cwd())
    if words:
        return store.find(words)
    alive = [run for run in store.runs() if (owner := run[2].ownership.owner()) and owner.alive()]
    running = [run for run in alive if fold(run[2].records()).outcome is None]
    if len(running) == 1:
        return running[0][2]
    several = ", ".join(f"{name}#{number}" for name, number, _ in running)
    raise PipeError(f"which run do you mean: {several}?" if running else f"nothing is running in {store.path}")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid that nobody has a name for
        user = f"uid {os.getuid()}"
    return f"{user} on {os.uname().nodename}"
