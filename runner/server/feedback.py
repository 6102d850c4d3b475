"""Telling a forge how the run of a commit is: one request a state, tried again until it is taken."""

import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import anyio
import httpx2
from sqlalchemy import Connection, Row, and_, select, update

from runner.server.database import Database, runs, statuses
from runner.server.projects import Project
from runner.server.registry import Registry
from stages.clients.git.address import parse_url

__all__ = ["RUNNING", "Call", "Feedback", "Status", "call_for"]

LOOK_EVERY = 10.0
ANSWER_WITHIN = 15.0
RUNNING = "is running"
FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES = 5.0, 900.0, 20


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a forge's API."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """How the run of a pipeline is, in the words of GitHub: pending, success or failure."""

    pipeline: str
    number: int
    commit: str
    state: str
    description: str


_GITLAB = {"pending": "pending", "success": "success", "failure": "failed"}
_BITBUCKET = {"pending": "INPROGRESS", "success": "SUCCESSFUL", "failure": "FAILED"}


def call_for(project: Project, status: Status) -> Call | None:
    """The request that shows a status beside a commit; None for a forge that takes none, or without a token.

    Commit statuses of GitHub, Gitea, GitLab, Gitee and Bitbucket, as their API references describe them.
    """
    if not project.token or project.forge == "generic":
        return None
    address = parse_url(project.url)
    web = address.scheme in ("http", "https")
    host = f"{address.scheme}://{address.host}" if web else f"https://{address.host.partition(':')[0]}"
    path = address.path.strip("/").removesuffix(".git")
    context = f"pipe/{status.pipeline}"
    words = {"state": status.state, "description": status.description, "context": context}
    match project.forge:
        case "github":
            api = "https://api.github.com" if address.host == "github.com" else f"{host}/api/v3"
            return Call(f"{api}/repos/{path}/statuses/{status.commit}", _bearer(project), words)
        case "gitea":
            url = f"{host}/api/v1/repos/{path}/statuses/{status.commit}"
            return Call(url, {"Authorization": f"token {project.token}"}, words)
        case "gitee":
            return Call(f"{host}/api/v5/repos/{path}/statuses/{status.commit}", _bearer(project), words)
        case "gitlab":
            url = f"{host}/api/v4/projects/{urllib.parse.quote(path, safe='')}/statuses/{status.commit}"
            state = "running" if status.description == RUNNING else _GITLAB[status.state]
            return Call(url, {"PRIVATE-TOKEN": project.token}, {**words, "state": state, "name": context})
    return _bitbucket(project, status, path) if address.host == "bitbucket.org" else None


def _bitbucket(project: Project, status: Status, path: str) -> Call:
    """Bitbucket Cloud; a Data Center has another API, and its token is not for bitbucket.org."""
    context = f"pipe/{status.pipeline}"
    words = {"key": context[:40], "name": context, "state": _BITBUCKET[status.state], "url": project.url}
    api = f"https://api.bitbucket.org/2.0/repositories/{path}/commit/{status.commit}/statuses/build"
    return Call(api, _bearer(project), {**words, "description": status.description})


def _bearer(project: Project) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {project.token}"}


class Feedback:
    """Tells what is to be told: several projects at once, so that a forge that hangs holds up its own alone."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._news = anyio.Event()

    def wake(self) -> None:
        """There is something to tell."""
        self._news.set()

    async def work(self) -> None:
        """Work until cancelled."""
        async with httpx2.AsyncClient(timeout=ANSWER_WITHIN, follow_redirects=False, trust_env=False) as client:
            while True:
                self._news = anyio.Event()
                rows = await self._database.read(partial(_due, now=time.time()))
                async with anyio.create_task_group() as tasks:
                    for row in rows:
                        tasks.start_soon(self._try, client, row)
                if not rows:
                    with anyio.move_on_after(LOOK_EVERY):
                        await self._news.wait()

    async def _try(self, client: httpx2.AsyncClient, row: "Row[tuple[object, ...]]") -> None:
        try:
            note = await self._tell(client, row)
        except Exception as error:  # noqa: BLE001 - one project must not silence the others
            note = f"{type(error).__name__}: {error}"
        await self._database.write(partial(_told, row=row, note=note))

    async def _tell(self, client: httpx2.AsyncClient, row: "Row[tuple[object, ...]]") -> str:
        """Tell one status; what went wrong, empty if nothing did."""
        project = await self._registry.project(row.project)
        status = Status(row.pipeline, row.number, row.commit, row.state, row.description)
        call = call_for(project, status) if project else None
        if call is None:
            return ""
        try:
            answer = await client.post(call.url, headers=call.headers, json=dict(call.body))
        except (httpx2.HTTPError, OSError) as error:
            return f"{call.url}: {type(error).__name__}: {error}"
        if answer.status_code == 400 and "Cannot transition status" in answer.text:
            return ""  # GitLab has it already
        return "" if answer.is_success else f"{call.url} answered {answer.status_code}: {answer.text[:300]}"


def _due(connection: Connection, now: float) -> "list[Row[tuple[object, ...]]]":
    """The oldest one that each project has to tell."""
    columns = (statuses, runs.c.project, runs.c.pipeline, runs.c.number, runs.c.commit)
    waiting = and_(statuses.c.told.is_(False), statuses.c.due <= now, statuses.c.tries < MOST_TRIES)
    joined = select(*columns).join(runs, runs.c.id == statuses.c.run).where(waiting).order_by(statuses.c.run)
    found: dict[str, Row[tuple[object, ...]]] = {}
    for row in connection.execute(joined.limit(500)):
        found.setdefault(row.project, row)
    return list(found.values())


def _told(connection: Connection, row: "Row[tuple[object, ...]]", note: str) -> None:
    """Note what came of it; a newer state that was written meanwhile is still to be told."""
    same = and_(statuses.c.run == row.run, statuses.c.state == row.state, statuses.c.description == row.description)
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**row.tries)
    values = {
        "told": not note,
        "note": note,
        "tries": row.tries + bool(note),
        "due": time.time() + pause if note else 0.0,
    }
    connection.execute(update(statuses).where(same).values(values))
