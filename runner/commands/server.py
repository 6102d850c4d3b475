"""`pipe serve`, `projects`, `secrets` and `deliveries`: the team server, from the machine that it runs on."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial

import click
from sqlalchemy import Connection, select

from pipeline.errors import PipeError, hinted
from pipeline.plan import Trigger
from pipeline.stage import SecretKind
from runner.commands.approve import asked
from runner.server import administration, housekeeping, projects, secrets
from runner.server.audit import machine
from runner.server.children import Bounds
from runner.server.database import Database, deliveries
from runner.server.desk import note_refs
from runner.server.first_look import FirstLook, first_look
from runner.server.fleet import identity, member
from runner.server.forks import named, waiting
from runner.server.housekeeping import Keep
from runner.server.layout import Layout, Place
from runner.server.projects import Project
from runner.server.repositories import RepositoryError
from runner.server.sealing import Seal
from runner.server.serve import Options, open_folder, serve
from runner.sinks.view import plain_text

__all__ = [
    "Bounds",
    "Options",
    "Project",
    "add_project",
    "approve_run",
    "change_project",
    "keep_of_project",
    "list_deliveries",
    "list_projects",
    "list_secrets",
    "remove_project",
    "remove_secret",
    "serve_folder",
    "set_secret",
    "show_badge",
]

USUAL_URL = "http://127.0.0.1:8080"
"""Where a server listens that is told nothing else."""


def serve_folder(options: Options) -> int:
    """Serve until a signal."""
    return serve(options, os.environ)


def add_project(place: Place, project: Project, url: str, *, check: bool) -> int:
    """Keep a project, and print what was found there and what its forge has to be told.

    Raises:
        PipeError: what is wrong with it, or its repository cannot be read; then nothing is kept.
    """
    layout, database, seal = open_folder(place, os.environ)
    database.read_now(partial(projects.check, project=project))
    looked = _looked_at(project) if check else None
    made = database.write_now(partial(_added, seal=seal, project=project, looked=looked))
    for line in looked.found if looked else ():
        click.echo(f"{made.name}: {plain_text(line)}")
    for doubt in looked.doubts if looked else ():
        lines = "\n".join(map(plain_text, doubt.splitlines()))
        click.echo(f"pipe: {made.name} was added, but {lines}", err=True)
    if looked and looked.doubts:
        click.echo(f"pipe: to add it otherwise, `pipe projects remove {made.name}` first", err=True)
    if made.place != made.name:
        click.echo(f"{made.name}: another project had this name before; of this one all is in projects/{made.place}")
    click.echo(
        f"{made.name}: tell the forge this hook, with content type application/json, for pushes, tags and pull requests"
    )
    url, why = (url, "") if url else database.read_now(partial(_listens, layout=layout))
    click.echo(f"  URL     {url.rstrip('/')}/hooks/{made.name}{why}")
    click.echo(f"  secret  {made.secret}")
    return 0


def _looked_at(project: Project) -> FirstLook:
    try:
        return first_look(project)
    except RepositoryError as error:
        raise PipeError(
            f"{project.name} was not added, its repository cannot be read: {plain_text(str(error))}\n"
            "  mend the URL, or the login (--username and PIPE_GIT_PASSWORD); --no-check adds it without a look"
        ) from error


def _added(connection: Connection, seal: Seal, project: Project, looked: FirstLook | None) -> Project:
    made = administration.add_project(connection, machine(), seal, project)
    if looked:  # a push in the next moment is one already
        note_refs(connection, made.name, looked.refs)
    return made


def _listens(connection: Connection, layout: Layout) -> tuple[str, str]:
    """Where the server of this folder is or was reached last, and in how far that is known."""
    known = member(connection, identity(layout))
    if known:
        return known.url, "  (where this server listens; --hook-url says how the forge reaches it)"
    return USUAL_URL, "  (assumed, for no server has run here yet: --hook-url says how the forge reaches it)"


def remove_project(place: Place, name: str) -> int:
    """Forget a project; its runs stay on disk."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _known_project(database, name)
    database.write_now(lambda connection: administration.remove_project(connection, machine(), name))
    return 0


def show_badge(place: Place, name: str, *, public: bool) -> int:
    """Say who may see a project's badges."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _known_project(database, name)
    database.write_now(lambda c: administration.show_badge(c, machine(), name, public=public))
    who = "everybody sees" if public else "those who may see the project see"
    click.echo(f"{name}: {who} /badges/{name}/PIPELINE.svg?branch=BRANCH")
    return 0


def keep_of_project(place: Place, name: str, changes: Mapping[housekeeping.What, tuple[int | None, int | None]]) -> int:
    """Change what is kept of a project's past where something is given, and print it."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _known_project(database, name)
    for what, usual in database.read_now(lambda connection: housekeeping.kept(connection, name)).items():
        count, days = changes[what]
        wanted = Keep(usual.count if count is None else count, usual.days if days is None else days)
        if wanted != usual:
            database.write_now(partial(administration.keep, actor=machine(), project=name, what=what, wanted=wanted))
        days_ = f"{wanted.days} days" if wanted.days else "no limit of days"
        click.echo(f"{what}: of each pipeline {wanted.count or 'all'}, {days_}")
    return 0


def list_projects(place: Place) -> int:
    """Print the projects."""
    _, database, seal = open_folder(place, os.environ, make=False)
    for name in database.read_now(projects.known):
        found = database.read_now(lambda connection, name=name: projects.find(connection, seal, name))  # type: ignore[misc]
        if found:
            click.echo(f"{found.name}  {found.forge}  {found.url}  {found.file}")
    return 0


def set_secret(place: Place, project: str, name: str, kind: SecretKind, username: str) -> int:
    """Keep a secret of a project, and print which it has; it comes from stdin, or somebody types it."""
    _, database, seal = open_folder(place, os.environ, make=False)
    secret = secrets.secret_of(kind, _typed(name, kind), username)
    database.write_now(lambda c: administration.set_secret(c, machine(), seal, project, name, secret))
    there = database.read_now(lambda connection: secrets.known(connection, project))
    click.echo(f"{project}: {name} is set ({kind}); it has {', '.join(each.name for each in there)}")
    return 0


def _typed(name: str, kind: SecretKind) -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read(secrets.LARGEST + 1)
    if kind in ("file", "ssh"):
        raise PipeError("give the file by stdin: `pipe secrets set … < FILE`")
    typed: str = click.prompt(name, hide_input=True, confirmation_prompt=True, err=True)
    return typed.encode()


def list_secrets(place: Place, project: str) -> int:
    """Print which secrets a project has."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _known_project(database, project)
    for each in database.read_now(lambda connection: secrets.known(connection, project)):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.changed))
        click.echo(f"{each.name}  {each.kind}  {when}")
    return 0


def remove_secret(place: Place, project: str, name: str) -> int:
    """Forget a secret of a project."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _known_project(database, project)
    if not database.write_now(lambda c: administration.remove_secret(c, machine(), project, name)):
        there = [each.name for each in database.read_now(lambda connection: secrets.known(connection, project))]
        raise PipeError(hinted(f"{project} has no secret '{name}'", name, there))
    return 0


def _known_project(database: Database, *names: str) -> None:
    database.read_now(lambda connection: projects.must_know(connection, *names))


def list_deliveries(place: Place, project: str, most: int) -> int:
    """Print the newest deliveries: what they were, and what became of them."""
    _, database, _ = open_folder(place, os.environ, make=False)
    wanted = select(deliveries).order_by(deliveries.c.id.desc()).limit(most)
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    for row in database.read_now(lambda connection: connection.execute(wanted).all()):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.received))
        copies = f"  {row.copies + 1} times" if row.copies else ""
        project, note = plain_text(row.project), plain_text(row.note)
        click.echo(f"{row.id}  {when}  {project}  {row.forge}  {row.state}{copies}  {note}")
    return 0


def change_project(place: Place, name: str, trusted: Sequence[str] | None, followers: Sequence[str] | None) -> int:
    """Say who may do more than others in a project, and print what holds now."""
    _, database, seal = open_folder(place, os.environ, make=False)
    _known_project(database, name, *(each for each in followers or () if each != "*"))
    database.write_now(
        lambda c: administration.change_project(c, machine(), name, trusted=trusted, followers=followers)
    )
    found = database.read_now(lambda c: projects.find(c, seal, name))
    if found:
        click.echo(f"{name}: trusted authors of forks: {', '.join(found.trusted) or 'none'}")
        click.echo(f"{name}: projects that its ends may start: {', '.join(found.followers) or 'none'}")
    return 0


def approve_run(place: Place, run: str) -> int:
    """Let the commit of a fork run; without a run, print those that wait."""
    _, database, _ = open_folder(place, os.environ, make=False)
    if not run:
        for row in database.read_now(waiting):
            trigger = Trigger.model_validate_json(row.trigger)
            click.echo(asked(row.id, row.project, f"{row.pipeline}#{row.number}", row.commit, trigger))
        return 0
    found = database.read_now(lambda connection: named(connection, run))
    if why := database.write_now(lambda connection: administration.approve(connection, machine(), found)):
        raise PipeError(f"{run}: {why}")
    click.echo(f"{run} may start")
    return 0
