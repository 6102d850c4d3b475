"""`pipe cancel`: ending a run from another terminal or host."""

import getpass
import os
import sys
import time
from pathlib import Path

import click

from pipeline.errors import PipeError
from runner.commands.resume import Options, read_run, resumable, resume
from runner.folder import RunFolder
from runner.guardian import Guardian, guard, leave
from runner.orders import Cancel, Orders
from runner.state import fold
from runner.status import status
from runner.store import Store

__all__ = ["cancel"]

ENDS_WITHIN = 15.0
"""Seconds that a cancelled run is waited for: stages get ten, and the console a moment."""


def cancel(words: str) -> int:
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
        return _end(folder) if sys.platform != "linux" else guard(lambda guardian: leave(_end(folder, guardian)))
    return _ask(folder, name)


def _end(folder: RunFolder, guardian: Guardian | None = None) -> int:
    """Become the engine of a run whose own one died, only to run its `finally`."""
    try:
        resume(Options(str(folder.path), cancelled_by=_who(), guardian=guardian))
    except PipeError as error:
        click.echo(error, err=True)
        return 2
    return 0 if fold(folder.records()).outcome else 1


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
    if running:
        raise PipeError(f"which run do you mean: {several}?")
    dead = next((f"{name}#{number}" for name, number, folder in store.runs() if resumable(folder)), "")
    hint = f"; {dead} died, `pipe cancel '{dead}'` ends it" if dead else ""
    raise PipeError(f"nothing is running in {store.path}{hint}")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid that nobody has a name for
        user = f"uid {os.getuid()}"
    return f"{user} on {os.uname().nodename}"
