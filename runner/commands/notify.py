"""`pipe notify`: whom a project tells of its runs."""

import os
import sys
from collections.abc import Sequence

import anyio
import click

from pipeline.errors import PipeError, hinted
from runner.server import administration, targets
from runner.server.audit import machine
from runner.server.courier import send
from runner.server.layout import Place
from runner.server.messages import try_out
from runner.server.serve import open_folder
from runner.server.targets import Standing
from runner.sinks.view import plain_text

__all__ = ["add_target", "list_targets", "remove_target", "try_again", "try_target"]

VARIABLE = "PIPE_NOTIFY_URL"


def add_target(place: Place, project: str, name: str, events: Sequence[str]) -> int:
    """Keep a target; its URL comes from the environment or stdin, where no list of processes shows it."""
    _, database, seal = open_folder(place, os.environ, make=False)
    url = _url()
    service = anyio.run(targets.check, name, url, events)
    target = Standing(name, service, tuple(events))
    database.write_now(lambda c: administration.add_target(c, machine(), seal, project, url, target))
    click.echo(f"{project}: {name} ({service}) is told of: {', '.join(target.events)}")
    click.echo(f"  `pipe notify test {project} {name}` sends it a message")
    return 0


def _url() -> str:
    if url := os.environ.get(VARIABLE, "").strip():
        return url
    if sys.stdin.isatty():
        return str(click.prompt("URL of the receiver", hide_input=True)).strip()
    if url := sys.stdin.readline().strip():
        return url
    raise PipeError(f"give the receiver's URL by {VARIABLE} or on stdin: it holds a password")


def list_targets(place: Place, project: str) -> int:
    """Print whom a project tells, of what, and what was not taken."""
    _, database, _ = open_folder(place, os.environ, make=False)
    for each in database.read_now(lambda connection: targets.standings(connection, project)):
        click.echo(f"{each.name}  {each.service}  {','.join(each.events)}{_trouble(each)}")
    return 0


def _trouble(target: Standing) -> str:
    counts = {"wait": target.waiting, "given up": target.given_up}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"  {told}{f': {plain_text(target.note)}' if target.note else ''}" if told else ""


def remove_target(place: Place, project: str, name: str) -> int:
    """Forget a target and what it was still to be told."""
    _, database, _ = open_folder(place, os.environ, make=False)
    if not database.write_now(lambda c: administration.remove_target(c, machine(), project, name)):
        raise _unknown(place, project, name)
    return 0


def try_target(place: Place, project: str, name: str) -> int:
    """Send a message that says only that it has come; 1 when it was not taken."""
    _, database, seal = open_folder(place, os.environ, make=False)
    url = database.read_now(lambda connection: targets.url_of(connection, seal, project, name))
    if url is None:
        raise _unknown(place, project, name)
    note = anyio.run(send, url, try_out(project, name))
    click.echo(f"{name}: {note or 'taken'}", err=bool(note))
    return int(bool(note))


def try_again(place: Place, project: str, name: str) -> int:
    """Let the server try what it has given up."""
    _, database, _ = open_folder(place, os.environ, make=False)
    count = database.write_now(lambda connection: targets.again(connection, project, name))
    click.echo(f"{name}: {count} message(s) are tried again")
    return 0


def _unknown(place: Place, project: str, name: str) -> PipeError:
    _, database, _ = open_folder(place, os.environ, make=False)
    names = [each.name for each in database.read_now(lambda connection: targets.standings(connection, project))]
    return PipeError(hinted(f"'{project}' has no target '{name}'", name, names))
