"""`pipe cancel`: ending a run from another terminal or host."""

import getpass
import os
import sys
import time

import click

from pipeline.errors import PipeError
from runner.commands.resume import Options, resumable, resume
from runner.commands.where import where
from runner.folder import RunFolder
from runner.guardian import Guardian, guard, leave
from runner.runs import KeptRun, Run, Runs
from runner.state import fold

__all__ = ["cancel"]

ENDS_WITHIN = 15.0
"""Seconds that a cancelled run is waited for: stages get ten, and the console a moment."""


def cancel(words: str, server: str) -> int:
    """Ask the engine of a run to end it, wherever it is, and wait until it has; end a run itself whose engine died.

    Raises:
        PipeError: the run has ended.
    """
    known = where(server)
    run = _meant(known, words)
    found = run.summary()
    if found.outcome:
        raise PipeError(f"{run.name} is not running: {found.outcome}")
    if isinstance(run, KeptRun) and found.status.word != "running":
        folder = run.folder
        return _end(folder) if sys.platform != "linux" else guard(lambda guardian: leave(_end(folder, guardian)))
    return _ask(run, known)


def _end(folder: RunFolder, guardian: Guardian | None = None) -> int:
    """Become the engine of a run whose own one died, only to run its `finally`."""
    try:
        resume(Options(str(folder.path), cancelled_by=_who(), guardian=guardian))
    except PipeError as error:
        click.echo(error, err=True)
        return 2
    return 0 if fold(folder.records()).outcome else 1


def _ask(run: Run, known: Runs) -> int:
    run.cancel(_who())
    click.echo(f"{run.name}: asked to end")
    deadline = time.monotonic() + ENDS_WITHIN
    while time.monotonic() < deadline:
        time.sleep(0.2)
        found = run.summary()
        if found.outcome:
            click.echo(f"{run.name}: {found.outcome}")
            return 0
        if found.status.word not in ("running", "queued", "waiting"):
            raise PipeError(f"{run.name} could not end: {found.status}")
    look = f"`pipe show {known.words}'{run.name}'`"
    sys.stderr.write(f"pipe: {run.name} has not ended after {ENDS_WITHIN:g} s; {look} tells how it is\n")
    return 1


def _meant(known: Runs, words: str) -> Run:
    if words:
        return known.find(words)
    running = known.under_way()
    if len(running) == 1:
        return running[0]
    if running:
        raise PipeError(f"which run do you mean: {', '.join(run.name for run in running)}?")
    died = (run.name for run in known.newest("", 1000) if isinstance(run, KeptRun) and resumable(run.folder))
    dead = next(died, "")
    hint = f"; {dead} died, `pipe cancel '{dead}'` ends it" if dead else ""
    raise PipeError(f"nothing is running in {known.place}{hint}")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid that nobody has a name for
        user = f"uid {os.getuid()}"
    return f"{user} on {os.uname().nodename}"
