"""Projects: which repository, which file in it, and the secrets by which forge and server trust each other."""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Column, ColumnElement, Connection, and_, delete, func, insert, select, update

from pipeline.errors import PipeError, hinted
from pipeline.stage import Login, Secret, SecretText
from runner.server.database import (
    deliveries,
    grants,
    keeps,
    leases,
    notifications,
    places,
    projects,
    refs,
    runs,
    targets,
    times,
    tokens,
)
from runner.server.database import secrets as kept_secrets
from runner.server.sealing import Seal
from runner.server.signatures import FORGES, is_secret
from stages.clients.git.address import parse_url

__all__ = [
    "REMOVED",
    "Project",
    "Removed",
    "add",
    "change",
    "check",
    "find",
    "is_name",
    "known",
    "must_know",
    "must_stand",
    "remove",
    "show_badge",
    "stands",
    "strange",
    "while_standing",
]

T = TypeVar("T")

REMOVED = "its project was removed"
_WHO = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Removed(PipeError):
    """A project is not there any more; another one may have its name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: {REMOVED}")
        self.name = name


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
    trusted: tuple[str, ...] = ()
    """Authors whose pull requests from forks run without approval."""
    followers: tuple[str, ...] = ()
    """Projects that may start runs when one of this project has ended."""
    public_badge: bool = False
    """Everybody may see how its newest runs are, as a badge."""
    place: str = ""
    """Where its runs and files are on the disk of each server; `add` finds one that no other project had."""

    @property
    def login(self) -> Secret | None:
        """How git may read it; None when everybody may."""
        if self.username:
            return Login(self.username, self.password)
        return SecretText(self.password) if self.password else None


def check(connection: Connection, project: Project) -> None:
    """Go on only if a project can be added.

    Raises:
        PipeError: what is wrong with it, all at once, or there is one of that name.
    """
    problems = []
    if not is_name(project.name):
        problems.append(
            f"'{project.name}' is no name: letters, digits, '.', '_' and '-', beginning with one of the first two"
        )
    if project.forge not in FORGES:
        problems.append(hinted(f"there is no forge '{project.forge}'", project.forge, FORGES))
    problems += _faults(project.url)
    if project.secret and not is_secret(project.secret):
        problems.append("the secret of the hook begins with whsec_, and what follows is not base64")
    if project.name in known(connection):
        problems.append(f"there is a project '{project.name}' already")
    if problems:
        raise PipeError("\n".join(problems))


def is_name(text: str) -> bool:
    """Whether a project can be called so: 64 letters, digits, dots, lines and underscores at most."""
    return bool(_NAME.fullmatch(text))


def add(connection: Connection, seal: Seal, project: Project) -> Project:
    """Keep a new project; one without a hook secret gets a random one.

    Raises:
        PipeError: as `check` does.
    """
    check(connection, project)
    secret = project.secret or secrets.token_urlsafe(32)
    made = replace(project, secret=secret, place=_nth(project.name, _former(connection, project.name) + 1))
    row = {
        "name": made.name,
        "place": made.place,
        "url": made.url,
        "file": made.file,
        "forge": made.forge,
        "created": time.time(),
        "secret": seal.close(made.secret),
        "login": seal.close(f"{made.username}\n{made.password}"),
        "token": seal.close(made.token),
        "trusted": "\n".join(made.trusted),
        "followers": "\n".join(made.followers),
        "public_badge": made.public_badge,
    }
    connection.execute(insert(projects).values(row))
    _set_apart(connection, made.name)  # what was done for the former one in the moment of its end
    connection.execute(insert(places).values(place=made.place, project=made.name))
    return made


def _former(connection: Connection, name: str) -> int:
    """How many projects have had a name."""
    return connection.execute(select(func.count()).where(places.c.project == name)).scalar_one()


def _nth(name: str, count: int) -> str:
    """Where the first, second, … project of a name is; none can be called like those after the first one."""
    return name if count == 1 else f"{name}~{count}"


def _set_apart(connection: Connection, name: str) -> None:
    """Let the next project of a name begin anew: what this one leaves gets a name that no project can have."""
    for table in (refs, times):
        connection.execute(delete(table).where(table.c.project == name))
    if count := _former(connection, name):
        former = f"{name}~{count}"
        _forget_twins(connection, keeps.c.what, name, former)
        _forget_twins(connection, deliveries.c.key, name, former, deliveries.c.state != "refused")
        for table in (runs, deliveries, keeps):
            connection.execute(update(table).where(table.c.project == name).values(project=former))


def _forget_twins(
    connection: Connection, key: Column[str], name: str, former: str, *unique: ColumnElement[bool]
) -> None:
    """Forget what came under a name after its project was removed, and is kept already of that one by the same key."""
    project = key.table.c.project
    there = select(key).where(project == former, *unique).correlate(None)
    connection.execute(delete(key.table).where(project == name, key.in_(there), *unique))


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
        name=row.name,
        url=row.url,
        file=row.file,
        forge=row.forge,
        secret=seal.open(row.secret),
        username=username,
        password=password,
        token=seal.open(row.token),
        trusted=tuple(row.trusted.splitlines()),
        followers=tuple(row.followers.splitlines()),
        public_badge=row.public_badge,
        place=row.place,
    )


def stands(connection: Connection, project: Project) -> bool:
    """Whether a project is there still; not another one that has got its name."""
    place = connection.execute(select(projects.c.place).where(projects.c.name == project.name)).scalar_one_or_none()
    return place == project.place


def must_stand(connection: Connection, project: Project) -> None:
    """Go on only if a project is there still, inside of a transaction that writes something of it.

    Raises:
        Removed: it is not, or another one has its name.
    """
    if not stands(connection, project):
        raise Removed(project.name)


def while_standing(project: Project, work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Work for the database that finds a project by its name, such that it is never done of the next one of that name.

    It raises as `must_stand` does, at its end: a place never comes back, so what was read before was of this project,
    be it in no transaction.
    """

    def done(connection: Connection) -> T:
        result = work(connection)
        must_stand(connection, project)
        return result

    return done


def change(
    connection: Connection, name: str, *, trusted: Sequence[str] | None = None, followers: Sequence[str] | None = None
) -> bool:
    """Say anew who may do more than others; None leaves it as it is. False if there is no such project.

    Raises:
        PipeError: a name that no author or project can have.
    """
    given = {"trusted": trusted, "followers": followers}
    values = {column: "\n".join(names) for column, names in given.items() if names is not None}
    if odd := [each for names in given.values() for each in names or () if not _WHO.fullmatch(each)]:
        raise PipeError("\n".join(f"{each!r} is the name of nobody" for each in odd))
    there = connection.execute(select(projects.c.name).where(projects.c.name == name)).one_or_none()
    if there and values:
        connection.execute(update(projects).where(projects.c.name == name).values(values))
    return bool(there)


def remove(connection: Connection, name: str) -> bool:
    """Forget a project, its secrets, whom it told, what was noted of its refs and times, and the rights in it.

    Who may do something in it may not therefore do so in another one that gets its name: its runs and deliveries stay
    under a name that no project can have, with what is kept of them. What waits in it is not started. False if there is
    none.
    """
    gone = connection.execute(delete(projects).where(projects.c.name == name)).rowcount
    unworked = and_(deliveries.c.project == name, deliveries.c.state == "new")
    connection.execute(update(deliveries).where(unworked).values(state="failed", note=REMOVED))
    unstarted = and_(runs.c.project == name, runs.c.state.in_(("waiting", "queued")))
    end = {"state": "ended", "outcome": "cancelled", "note": REMOVED, "ended": time.time(), "followed": True}
    connection.execute(update(runs).where(unstarted).values(end))
    _set_apart(connection, name)
    for table in (targets, notifications, leases, kept_secrets):
        connection.execute(delete(table).where(table.c.project == name))
    for table in (grants, tokens):
        connection.execute(delete(table).where(table.c.scope == name))
    _let_no_follower(connection, name)
    return bool(gone)


def _let_no_follower(connection: Connection, name: str) -> None:
    """Nobody's ends may start a project of that name any more."""
    for row in connection.execute(select(projects.c.name, projects.c.followers)).all():
        followers = row.followers.splitlines()
        if name in followers:
            left = "\n".join(each for each in followers if each != name)
            connection.execute(update(projects).where(projects.c.name == row.name).values(followers=left))


def show_badge(connection: Connection, name: str, *, public: bool) -> bool:
    """Let everybody see the badges of a project, or nobody without a token; false if there is no such project."""
    return bool(
        connection.execute(update(projects).where(projects.c.name == name).values(public_badge=public)).rowcount
    )


def strange(connection: Connection, names: Iterable[str]) -> list[str]:
    """A line for each name that no project has, with the nearest one that has."""
    there = known(connection)
    return [hinted(f"there is no project '{name}'", name, there) for name in names if name not in there]


def must_know(connection: Connection, *names: str) -> None:
    """Go on only if there are these projects.

    Raises:
        PipeError: all of them that there are not.
    """
    if lines := strange(connection, names):
        raise PipeError("\n".join(lines))


def known(connection: Connection) -> list[str]:
    """The names of all projects."""
    return list(connection.execute(select(projects.c.name).order_by(projects.c.name)).scalars())
