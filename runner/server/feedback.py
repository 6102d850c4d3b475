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

__all__ = ["Call", "Feedback", "call_for"]

LOOK_EVERY = 2.0
ANSWER_WITHIN = 15.0
FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES = 5.0, 900.0, 20


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a forge's API."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Status:
    """How the run of a pipeline is, in the words of GitHub: pending, success or failure."""

    pipeline: str
    number: int
    commit: str
    state: str
    description: str
    link: str


_GITLAB = {"pending": "running", "success": "success", "failure": "failed"}
_BITBUCKET = {"pending": "INPROGRESS", "success": "SUCCESSFUL", "failure": "FAILED"}


def call_for(project: Project, status: _Status) -> Call | None:
    """The request that shows a status beside a commit; None for a forge that takes none, or without a token.

    Commit statuses of GitHub, Gitea, GitLab, Gitee and Bitbucket, as their API references describe them.
    """
    if not project.token or project.forge == "generic":
        return None
    address = parse_url(project.url)
    host = f"{address.scheme if address.scheme in ('http', 'https') else 'https'}://{address.host}"
    path = address.path.strip("/").removesuffix(".git")
    context = f"pipe/{status.pipeline}"
    words = {"state": status.state, "target_url": status.link, "description": status.description, "context": context}
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
            named = {**words, "state": _GITLAB[status.state], "name": context}
            return Call(url, {"PRIVATE-TOKEN": project.token}, named)
    key = {"key": context[:40], "name": context, "state": _BITBUCKET[status.state], "url": status.link}
    api = f"https://api.bitbucket.org/2.0/repositories/{path}/commit/{status.commit}/statuses/build"
    return Call(api, _bearer(project), {**key, "description": status.description})


def _bearer(project: Project) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {project.token}"}


class Feedback:
    """Tells what is to be told, one after the other."""

    def __init__(self, database: Database, registry: Registry, link: str) -> None:
        self._database = database
        self._registry = registry
        self._link = link

    async def work(self) -> None:
        """Work until cancelled."""
        async with httpx2.AsyncClient(timeout=ANSWER_WITHIN, follow_redirects=False, trust_env=False) as client:
            while True:
                while row := await self._database.read(partial(_due, now=time.time())):
                    note = await self._tell(client, row)
                    await self._database.write(partial(_told, row=row, note=note))
                await anyio.sleep(LOOK_EVERY)

    async def _tell(self, client: httpx2.AsyncClient, row: "Row[tuple[object, ...]]") -> str:
        """Tell one status; what went wrong, empty if nothing did."""
        project = await self._registry.project(row.project)
        link = f"{self._link}/runs/{row.run}"
        status = _Status(row.pipeline, row.number, row.commit, row.state, row.description, link)
        call = call_for(project, status) if project else None
        if call is None:
            return ""
        try:
            answer = await client.post(call.url, headers=call.headers, json=dict(call.body))
        except (httpx2.HTTPError, OSError) as error:
            return f"{call.url}: {type(error).__name__}: {error}"
        return "" if answer.is_success else f"{call.url} answered {answer.status_code}: {answer.text[:300]}"


def _due(connection: Connection, now: float) -> "Row[tuple[object, ...]] | None":
    columns = (statuses, runs.c.project, runs.c.pipeline, runs.c.number, runs.c.commit)
    waiting = and_(statuses.c.told.is_(False), statuses.c.due <= now, statuses.c.tries < MOST_TRIES)
    joined = select(*columns).join(runs, runs.c.id == statuses.c.run).where(waiting)
    return connection.execute(joined.order_by(statuses.c.run).limit(1)).one_or_none()


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
