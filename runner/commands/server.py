"""`pipe serve`, `pipe projects` and `pipe deliveries`: the team server, from the machine that it runs on."""

import os
import time
from pathlib import Path

import click
from sqlalchemy import select

from pipeline.errors import PipeError, nearest
from runner.server import projects
from runner.server.database import deliveries
from runner.server.projects import Project
from runner.server.serve import Options, open_folder, serve
from runner.sinks.view import plain_text

__all__ = [
    "Options",
    "Project",
    "add_project",
    "list_deliveries",
    "list_projects",
    "remove_project",
    "serve_folder",
]


def serve_folder(options: Options) -> int:
    """Serve until a signal."""
    return serve(options, os.environ)


def add_project(folder: Path, project: Project, url: str) -> int:
    """Keep a project and print what its forge has to be told."""
    _, database, seal = open_folder(folder, os.environ)
    made = database.write_now(lambda connection: projects.add(connection, seal, project))
    click.echo(
        f"{made.name}: tell the forge this hook, with content type application/json, for pushes, tags and pull requests"
    )
    click.echo(f"  URL     {url.rstrip('/')}/hooks/{made.name}")
    click.echo(f"  secret  {made.secret}")
    return 0


def remove_project(folder: Path, name: str) -> int:
    """Forget a project; its runs stay on disk."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    if not database.write_now(lambda connection: projects.remove(connection, name)):
        raise PipeError(f"there is no project '{name}'; {nearest(name, database.read_now(projects.known))}")
    return 0


def list_projects(folder: Path) -> int:
    """Print the projects."""
    _, database, seal = open_folder(folder, os.environ, make=False)
    for name in database.read_now(projects.known):
        found = database.read_now(lambda connection, name=name: projects.find(connection, seal, name))  # type: ignore[misc]
        if found:
            click.echo(f"{found.name}  {found.forge}  {found.url}  {found.file}")
    return 0


def list_deliveries(folder: Path, project: str, most: int) -> int:
    """Print the newest deliveries: what they were, and what became of them."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    wanted = select(deliveries).order_by(deliveries.c.id.desc()).limit(most)
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    for row in database.read_now(lambda connection: connection.execute(wanted).all()):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.received))
        copies = f"  {row.copies + 1} times" if row.copies else ""
        click.echo(f"{row.id}  {when}  {row.project}  {row.forge}  {row.state}{copies}  {plain_text(row.note)}")
    return 0
