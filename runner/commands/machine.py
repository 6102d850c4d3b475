"""What this machine is to `pipe`: the CI host, and the docker engine with what follows from it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from runner.hosts import detect
from runner.sinks.view import plain_text
from stages.clients.docker.presence import look

__all__ = ["machine", "shown"]


def machine() -> int:
    """Print it; that something is missing is told and no error."""
    for line in shown(dict(os.environ), Path.cwd()):
        click.echo(plain_text(line))
    return 0


def shown(environ: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The lines that tell it: the host and what it said, the engine and what follows."""
    host = detect(environ)
    number = f", run {host.number}" if host.number else ""
    yield f"host    {host.name}{number}{f', {host.url}' if host.url else ''}"
    for note in host.notes:
        yield f"        {note}"
    engine = look(environ, folder)
    yield f"docker  {engine.state}: {engine.said} ({engine.host})"
    for line in engine.follows:
        yield f"        {line}"
