"""Projects for people: how each is, and starting a run of one with its parameters."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection, func, select

from pipeline.errors import PipeError
from pipeline.spec import ParamSpec
from runner.server import secrets, targets
from runner.server.audit import run_started
from runner.server.callers import Caller, SignedIn
from runner.server.database import runs
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.fleet import Fleet
from runner.server.forms import form
from runner.server.pages.rendering import page
from runner.server.projects import Project
from runner.server.reading import as_shown, heard_last, runs_of
from runner.server.repositories import RepositoryError
from runner.server.rights import Verb
from runner.server.shown import Delivery, Run, Which

__all__ = ["PARAM", "pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

Number = Annotated[int, Path(ge=1, le=1 << 31)]
NEWEST = 10
PARAM = "param."
"""What stands before the name of a parameter in a form, and in the address of one that is filled in."""


@pages.get("/projects")
async def show_projects(request: Request, doors: Here, caller: SignedIn) -> Response:
    """All projects that somebody may see, with the newest run of each pipeline."""
    names = [name for name in await doors.registry.names() if caller.may(Verb.VIEW, name)]
    found = [project for name in names if (project := await doors.registry.project(name))]
    newest = await doors.database.read(partial(_newest, fleet=doors.registry.fleet))
    may_add, url = caller.may(Verb.MANAGE_PROJECTS), doors.url
    return page(request, "projects.html", caller, projects=found, newest=newest, may_add=may_add, url=url)


def _newest(connection: Connection, fleet: Fleet) -> dict[str, list[Run]]:
    last = select(func.max(runs.c.id)).group_by(runs.c.project, runs.c.pipeline)
    found: dict[str, list[Run]] = {}
    rows = connection.execute(select(runs).where(runs.c.id.in_(last)).order_by(runs.c.pipeline)).mappings().all()
    for run in as_shown(connection, fleet, rows):
        found.setdefault(run.project, []).append(run)
    return found


@dataclass(frozen=True, slots=True)
class _Start:
    """What somebody wrote to start a run."""

    ref: str = ""
    pipeline: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@pages.get("/projects/{name}")
async def show_project(request: Request, name: str, doors: Here, caller: SignedIn) -> Response:
    """One project: its newest runs, and the pipelines of its file to start, filled in as the address says."""
    return await _shown(request, doors, caller, await _seen(doors, caller, name), _written(request.query_params))


@pages.get("/projects/{name}/runs/{pipeline}/{number}")
async def find_run(name: str, pipeline: str, number: Number, doors: Here, caller: SignedIn) -> Response:
    """A run by the name that people call it by."""
    caller.need(Verb.VIEW, name)
    which = Which(project=name, pipeline=pipeline, number=number, limit=1)
    found = await doors.database.read(partial(runs_of, fleet=doors.registry.fleet, within=None, which=which))
    if not found:
        raise UNKNOWN
    return RedirectResponse(f"/runs/{found[0].id}", 303)


@pages.post("/projects/{name}/runs")
async def start(request: Request, name: str, doors: Here, caller: SignedIn) -> Response:
    """Start a run; what is wrong is said where it was written."""
    project = await _seen(doors, caller, name)
    caller.need(Verb.RUN, name)
    asked = _written(await form(request))
    intake, told = doors.registry.intake(project), run_started(caller.actor, name, asked.pipeline)
    try:
        _, id_ = await intake.start(asked.pipeline, asked.ref, asked.params, caller.name, "", told)
    except (PipeError, RepositoryError) as error:
        return await _shown(request, doors, caller, project, asked, str(error))
    doors.started()
    return RedirectResponse(f"/runs/{id_}", 303)


def _written(fields: Mapping[str, str]) -> _Start:
    params = {key.removeprefix(PARAM): value for key, value in fields.items() if key.startswith(PARAM) and value}
    return _Start(fields.get("ref", "").strip(), fields.get("pipeline", ""), params)


async def _seen(doors: Doors, caller: Caller, name: str) -> Project:
    caller.need(Verb.VIEW, name)
    if project := await doors.registry.project(name):
        return project
    raise UNKNOWN


async def _shown(
    request: Request, doors: Doors, caller: Caller, project: Project, asked: _Start, wrong: str = ""
) -> Response:
    may_run = caller.may(Verb.RUN, project.name)
    pipelines, unreadable = await _pipelines(doors, project, asked.ref) if may_run else ({}, "")
    which = Which(project=project.name, limit=NEWEST)
    newest = await doors.database.read(partial(runs_of, fleet=doors.registry.fleet, within=None, which=which))
    return page(
        request,
        "project.html",
        caller,
        status=422 if wrong else 200,
        project=project,
        runs=newest,
        now=time.time(),
        may_run=may_run,
        pipelines=pipelines,
        unreadable=unreadable,
        set_up=await _set_up(doors, project.name) if caller.may(Verb.MANAGE_PROJECTS, project.name) else None,
        asked=asked,
        wrong=wrong,
    )


@dataclass(frozen=True, slots=True)
class _SetUp:
    """What an administrator has set up for a project outside its file."""

    hook: str
    heard: Delivery | None
    """The newest delivery of the hook."""
    secrets: Sequence[secrets.Known]
    targets: Sequence[targets.Standing]


async def _set_up(doors: Doors, name: str) -> _SetUp:
    hook = f"{doors.url}/hooks/{name}"

    def read(connection: Connection) -> _SetUp:
        heard = heard_last(connection, name)
        return _SetUp(hook, heard, secrets.known(connection, name), targets.standings(connection, name))

    return await doors.database.read(read)


async def _pipelines(doors: Doors, project: Project, ref: str) -> tuple[Mapping[str, Mapping[str, ParamSpec]], str]:
    """The pipelines of the file with their parameters, or why it cannot be read."""
    try:
        return await doors.registry.intake(project).pipelines(ref), ""
    except (PipeError, RepositoryError) as error:
        return {}, str(error)
