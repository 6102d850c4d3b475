"""Telling a forge how the run of a commit is: one request a state, tried again until it is taken."""

import time
import urllib.parse
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import httpx2
from sqlalchemy import Connection, and_, func, select, update

from runner.server.database import Database, runs, statuses
from runner.server.fleet import Fleet
from runner.server.outbox import MOST_TRIES, Entry, Outbox, after
from runner.server.projects import Project
from runner.server.registry import Registry
from stages.clients.git.address import parse_url

__all__ = ["RUNNING", "Call", "Feedback", "Status", "call_for", "run_link"]

ANSWER_WITHIN = 15.0
RUNNING = "is running"


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
    link: str = ""
    """Where people see the run; empty when the server was not told how they reach it."""


def run_link(url: str, run: str) -> str:
    """The page of a run; empty without the server's `--url`: nobody else's browser reaches our loopback address."""
    return f"{url.rstrip('/')}/runs/{run}" if url else ""


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
    words |= {"target_url": status.link} if status.link else {}
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
    words = {"key": context[:40], "name": context, "state": _BITBUCKET[status.state]}
    words["url"] = status.link or project.url  # it takes none without a link
    api = f"https://api.bitbucket.org/2.0/repositories/{path}/commit/{status.commit}/statuses/build"
    return Call(api, _bearer(project), {**words, "description": status.description})


def _bearer(project: Project) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {project.token}"}


class Feedback:
    """Tells forges what is to be told, of each project one status after the other."""

    def __init__(self, database: Database, registry: Registry, url: str = "") -> None:
        """`url` is how people reach the server."""
        self._registry = registry
        self._url = url
        self._client = _client()
        self._outbox = Outbox(database, partial(_due, fleet=registry.fleet), self._tell, _told)
        self.wake = self._outbox.wake

    async def work(self) -> None:
        """Work until cancelled."""
        self._client = _client()  # one that has been closed cannot be used again
        async with self._client:
            await self._outbox.work()

    async def _tell(self, entry: Entry) -> str:
        """Tell one status; what went wrong, empty if nothing did."""
        project = await self._registry.at(entry.project, entry.place)
        link = run_link(self._url, entry.run)
        status = Status(entry.pipeline, entry.number, entry.commit, entry.state, entry.description, link)
        call = call_for(project, status) if project else None
        if call is None:
            return ""
        try:
            answer = await self._client.post(call.url, headers=call.headers, json=dict(call.body))
        except (httpx2.HTTPError, OSError) as error:
            return f"{call.url}: {type(error).__name__}: {error}"
        if answer.status_code == 400 and "Cannot transition status" in answer.text:
            return ""  # GitLab has it already
        return "" if answer.is_success else f"{call.url} answered {answer.status_code}: {answer.text[:300]}"


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=ANSWER_WITHIN, follow_redirects=False, trust_env=False)


def _due(connection: Connection, fleet: Fleet) -> Mapping[Hashable, Entry]:
    """The oldest one that each project has to tell."""
    open_ = and_(statuses.c.told.is_(False), statuses.c.due <= time.time(), statuses.c.tries < MOST_TRIES)
    oldest = select(func.min(statuses.c.run)).join(runs, runs.c.id == statuses.c.run)
    oldest = oldest.where(open_, fleet.tells(connection))
    columns = (statuses, runs.c.project, runs.c.place, runs.c.pipeline, runs.c.number, runs.c.commit)
    chosen = statuses.c.run.in_(oldest.group_by(runs.c.project))
    wanted = select(*columns).join(runs, runs.c.id == statuses.c.run).where(chosen)
    return {entry.project: entry for entry in connection.execute(wanted)}


def _told(connection: Connection, entry: Entry, note: str) -> None:
    """Note what came of it; a newer state that was written meanwhile is still to be told."""
    same = and_(statuses.c.state == entry.state, statuses.c.description == entry.description)
    values = after(entry.tries, note)
    connection.execute(update(statuses).where(statuses.c.run == entry.run, same).values(values))
