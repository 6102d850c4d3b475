"""Projects: which repository, which file in it, and the secrets by which forge and server trust each other."""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from pipeline.errors import PipeError, nearest
from pipeline.stage import Login, Secret, SecretText
from runner.server.database import projects, refs, times
from runner.server.sealing import Seal
from runner.server.signatures import FORGES
from stages.clients.git.address import parse_url

__all__ = ["Project", "add", "find", "known", "remove"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Project:
    """One repository. `username` and `password` are for git; without a `token` the forge is told nothing."""

    name: str
    url: str
    file: str = "pipeline.yaml"
    forge: str = "generic"
    secret: str = ""
    username: str = ""
    password: str = ""
    token: str = ""

    @property
    def login(self) -> Secret | None:
        """How git may read it; None when everybody may."""
        if self.username:
            return Login(self.username, self.password)
        return SecretText(self.password) if self.password else None


def add(connection: Connection, seal: Seal, project: Project) -> Project:
    """Keep a new project; one without a hook secret gets a random one.

    Raises:
        PipeError: what is wrong with it, all at once, or there is one of that name.
    """
    problems = []
    if not _NAME.fullmatch(project.name):
        problems.append(
            f"'{project.name}' is no name: letters, digits, '.', '_' and '-', beginning with one of the first two"
        )
    if project.forge not in FORGES:
        problems.append(f"there is no forge '{project.forge}'; {nearest(project.forge, FORGES)}")
    problems += _faults(project.url)
    if problems:
        raise PipeError("\n".join(problems))
    made = replace(project, secret=project.secret or secrets.token_urlsafe(32))
    row = {
        "name": made.name,
        "url": made.url,
        "file": made.file,
        "forge": made.forge,
        "created": time.time(),
        "secret": seal.close(made.secret),
        "login": seal.close(f"{made.username}\n{made.password}"),
        "token": seal.close(made.token),
    }
    try:
        connection.execute(insert(projects).values(row))
    except IntegrityError:
        raise PipeError(f"there is a project '{made.name}' already") from None
    return made


def _faults(url: str) -> Iterator[str]:
    """What is wrong with the URL of a repository."""
    parts = urlsplit(url) if url.startswith(("http://", "https://")) else None
    if parts and "@" in parts.netloc:
        yield "a login stands in the URL: leave it out, and give --username and PIPE_GIT_PASSWORD instead"
        return
    try:
        parse_url(url)
    except ValueError as error:
        yield str(error)


def find(connection: Connection, seal: Seal, name: str) -> Project | None:
    """A project by its name."""
    row = connection.execute(select(projects).where(projects.c.name == name)).one_or_none()
    if row is None:
        return None
    username, _, password = seal.open(row.login).partition("\n")
    return Project(
        row.name, row.url, row.file, row.forge, seal.open(row.secret), username, password, seal.open(row.token)
    )


def remove(connection: Connection, name: str) -> bool:
    """Forget a project and what was noted of its refs and times; false if there is none."""
    gone = connection.execute(delete(projects).where(projects.c.name == name)).rowcount
    for table in (refs, times):
        connection.execute(delete(table).where(table.c.project == name))
    return bool(gone)


def known(connection: Connection) -> list[str]:
    """The names of all projects."""
    return list(connection.execute(select(projects.c.name).order_by(projects.c.name)).scalars())
