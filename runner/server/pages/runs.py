"""Runs for people: the newest ones, one with everything that happens in it, and its logs."""

import time
from functools import partial
from urllib.parse import quote, urlencode

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from pipeline.stage import Outcome
from runner.folder import RunFolder
from runner.logs import tail
from runner.server.api import approve_run, cancel_run
from runner.server.callers import SignedIn
from runner.server.doors import UNKNOWN, Here
from runner.server.forks import APPROVE_WITHIN
from runner.server.pages.contents import look
from runner.server.pages.projects import PARAM
from runner.server.pages.rendering import page
from runner.server.reading import folder_of, run_for, runs_of, state_of, working_folder
from runner.server.rights import Verb
from runner.server.shown import Run, Which
from runner.server.users import as_run
from runner.sinks.view import clean

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

PAGE = 50
UNDER_WAY = ("waiting", "queued", "running")
LINES = 2000
"""Of a log so many are on its page, the last ones; the whole is behind a link."""


@pages.get("/")
async def home(_: SignedIn) -> Response:
    """Where people begin."""
    return RedirectResponse("/runs", 303)


@pages.get("/runs")
async def show_runs(
    request: Request,
    doors: Here,
    caller: SignedIn,
    project: str = "",
    pipeline: str = "",
    how: str = "",
    before: str = "",
) -> Response:
    """The newest runs: of one project or pipeline when one is named, and those alone that are as is said."""
    within = caller.projects(Verb.VIEW)
    asked = {"project": project, "pipeline": pipeline, **_that_are(how)}
    which = Which.model_validate({**asked, "before": before, "limit": PAGE})
    found = await doors.database.read(partial(runs_of, fleet=doors.registry.fleet, within=within, which=which))
    words = urlencode({"project": project, "pipeline": pipeline, "how": how})
    return page(
        request,
        "runs.html",
        caller,
        runs=found,
        older=f"/runs?{words}&before={found[-1].id}" if found[PAGE - 1 :] else "",
        project=project,
        pipeline=pipeline,
        how=how,
        words=(*UNDER_WAY, *Outcome),
        names=[name for name in await doors.registry.names() if caller.may(Verb.VIEW, name)],
        before=before,
        now=time.time(),
    )


def _that_are(how: str) -> dict[str, str]:
    """What is asked for by a word for how a run is; nothing by a word that is none."""
    return {"state": how} if how in UNDER_WAY else {"outcome": how} if how in {*Outcome} else {}


@pages.get("/runs/{id_}")
async def show_run(request: Request, id_: str, doors: Here, caller: SignedIn) -> Response:
    """One run: why it is there, how each of its stages is, and why."""
    run = await run_for(doors, id_, caller)
    shown = await anyio.to_thread.run_sync(look, folder_of(doors, run), working_folder(doors, run))
    stands = run.project in await doors.registry.names()
    may_start = stands and run.state == "ended" and run.trigger.trusted and caller.may(Verb.RUN, run.project)
    return page(
        request,
        "run.html",
        caller,
        run=run,
        stands=stands,
        shown=shown,
        log=partial(_log_path, run),
        artifact=partial(_artifact_path, run),
        anew=_form(run, run.trigger.branch or run.trigger.tag or run.commit) if may_start else "",
        again=_form(run, f"{run.trigger.branch}@{run.commit}") if may_start and run.trigger.branch else "",
        approve_within=APPROVE_WITHIN,
        may_approve=run.state == "waiting" and caller.may(Verb.APPROVE, run.project),
        may_cancel=run.state != "ended" and caller.may(Verb.CANCEL, run.project),
        now=time.time(),
    )


def _log_path(run: Run, leaf: str, attempt: int = 0) -> str:
    return f"/runs/{run.id}/logs/{quote(leaf, safe='')}" + (f"?attempt={attempt}" if attempt else "")


def _form(run: Run, ref: str) -> str:
    """The form that starts another run like this one, filled in."""
    params = {f"{PARAM}{name}": value for name, value in run.params.items()}
    return f"/projects/{run.project}?{urlencode({'ref': ref, 'pipeline': run.pipeline, **params})}#start"


def _artifact_path(run: Run, path: str) -> str:
    return f"/api/v1/runs/{run.id}/artifacts/{quote(path)}"


@pages.post("/runs/{id_}/cancel")
async def cancel(id_: str, doors: Here, caller: SignedIn) -> Response:
    """Ask a run to end."""
    await cancel_run(id_, doors, caller)
    return RedirectResponse(f"/runs/{id_}", 303)


@pages.post("/runs/{id_}/approve")
async def approve(id_: str, doors: Here, caller: SignedIn) -> Response:
    """Let the commit of a fork run that waits for it."""
    await approve_run(id_, doors, caller)
    return RedirectResponse(f"/runs/{id_}", 303)


@pages.get("/runs/{id_}/logs/{leaf:path}")
async def show_log(request: Request, id_: str, leaf: str, doors: Here, caller: SignedIn, attempt: int = 0) -> Response:
    """The end of a leaf's log, as text: nothing in it can do anything to the page."""
    run = await run_for(doors, id_, caller)
    folder = folder_of(doors, run)
    state = await anyio.to_thread.run_sync(state_of, folder)
    known = state.leaves.get(leaf)
    if known is None or not 0 <= attempt <= known.attempt:
        raise UNKNOWN
    number = attempt or max(1, known.attempt)
    lines = await anyio.to_thread.run_sync(_lines, folder, leaf, number)
    raw = f"/api/v1/runs/{run.id}/logs/{quote(leaf, safe='')}?attempt={number}"
    return page(
        request,
        "log.html",
        caller,
        run=run,
        leaf=known,
        attempt=number,
        lines=lines,
        most=LINES,
        raw=raw,
        log=partial(_log_path, run),
        live=run.state != "ended" and number == max(1, known.attempt) and not known.outcome,
    )


def _lines(folder: RunFolder, leaf: str, attempt: int) -> list[str]:
    with as_run(folder):
        return [clean(line.encode()) for line in tail(folder.log(leaf, attempt), LINES)]
