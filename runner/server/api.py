"""The API by which people and programs follow, start and cancel runs, and see what came in."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Connection, select

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.server import administration, inbox
from runner.server.artifacts import INERT, attachment, left_of, opened
from runner.server.audit import note, run_started
from runner.server.callers import SignedIn, signed_in
from runner.server.database import deliveries
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.ends import cancel_unstarted
from runner.server.intake import Intake
from runner.server.problems import PROBLEMS
from runner.server.projects import Removed
from runner.server.reading import deliveries_of, find_here, folder_of, run_for, runs_of, state_of, working_folder
from runner.server.repositories import RepositoryError
from runner.server.rights import Verb
from runner.server.shown import (
    Artifact,
    Delivery,
    DeliveryId,
    Leaf,
    Pipeline,
    ProjectName,
    Run,
    RunId,
    Server,
    Start,
    Which,
)
from runner.server.users import as_run
from runner.telling import Position, find

__all__ = ["api"]

_UNREADABLE: dict[int | str, dict[str, Any]] = {503: {"description": "The repository cannot be read now."}}
_NOT_NOW: dict[int | str, dict[str, Any]] = {
    409: {"description": "It has ended."},
    503: {"description": "It is just starting: ask again."},
}
_NOT_KEPT: dict[int | str, dict[str, Any]] = {409: {"description": "Nothing of it is here."}}
_NO_PLACE: dict[int | str, dict[str, Any]] = {400: {"description": "`Last-Event-ID` is none of ours."}}


class _EventStream(StreamingResponse):
    media_type = "text/event-stream"


class _Text(StreamingResponse):
    media_type = "text/plain"


class _Bytes(StreamingResponse):
    media_type = "application/octet-stream"


MOST_ARTIFACTS = 10_000
BLOCK = 256 << 10


api = APIRouter(prefix="/api/v1", dependencies=[Depends(signed_in)], responses=PROBLEMS)


@api.get("/deliveries", operation_id="list_deliveries")
async def list_deliveries(
    doors: Here, caller: SignedIn, project: str = "", before: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[Delivery]:
    """Deliveries, the newest first; `before` is the id of the last one of the page before."""
    within = caller.projects(Verb.VIEW)
    return await doors.database.read(lambda c: deliveries_of(c, within, project, before, limit))


@api.post("/deliveries/{id_}/redeliver", operation_id="redeliver", responses=_NOT_KEPT)
async def redeliver(id_: str, doors: Here, caller: SignedIn) -> DeliveryId:
    """Work a delivery once more, as if it had just come. 409: nothing of it is here, and what to do instead."""
    whose = select(deliveries.c.project).where(deliveries.c.id == id_)
    project = await doors.database.read(lambda connection: connection.execute(whose).scalar_one_or_none())
    if project is None:
        raise UNKNOWN
    caller.need(Verb.REDELIVER, project)

    def again(connection: Connection) -> str:
        why = inbox.again(connection, id_)
        if not why:
            note(connection, caller.actor, "redeliver", id_, project=project)
        return why

    if why := await doors.database.write(again):
        raise HTTPException(409, why)
    doors.came_in()
    return DeliveryId(delivery=id_)


@api.get("/runs", operation_id="list_runs")
async def list_runs(doors: Here, caller: SignedIn, which: Annotated[Which, Query()]) -> list[Run]:
    """Runs, the newest first; `before` is the id of the last one of the page before."""
    within = caller.projects(Verb.VIEW)
    return await doors.database.read(lambda c: runs_of(c, doors.registry.fleet, within, which))


@api.get("/servers", operation_id="list_servers")
async def list_servers(doors: Here, caller: SignedIn) -> list[Server]:
    """Everybody who works on this database or did, the one heard of last first."""
    caller.need(Verb.VIEW)
    found = await doors.database.read(doors.registry.fleet.members)
    return [Server(id=each.id, host=each.host, url=each.url, silent=each.silent, alive=each.alive) for each in found]


@api.get("/runs/{id_}", operation_id="get_run")
async def get_run(id_: str, doors: Here, caller: SignedIn) -> Run:
    """One run."""
    return await run_for(doors, id_, caller, Verb.VIEW)


@api.get("/runs/{id_}/leaves", operation_id="list_leaves")
async def list_leaves(id_: str, doors: Here, caller: SignedIn) -> list[Leaf]:
    """The leaves of a run that have been heard of, in the order in which they were."""
    folder = folder_of(doors, await run_for(doors, id_, caller, Verb.VIEW))
    return await anyio.to_thread.run_sync(_leaves, folder)


def _leaves(folder: RunFolder) -> list[Leaf]:
    now = time.time()
    return [
        Leaf(
            name=leaf.name,
            outcome=leaf.outcome or ("running" if leaf.running else ""),
            attempt=leaf.attempt,
            seconds=round(leaf.seconds(now), 3),
            cause=leaf.cause.message if leaf.cause else "",
        )
        for leaf in state_of(folder).leaves.values()
    ]


@api.get("/runs/{id_}/plan", operation_id="get_plan", response_class=JSONResponse)
async def get_plan(id_: str, doors: Here, caller: SignedIn) -> Response:
    """What the run executes, as `pipe plan --json` shows it. 404: it has not begun, or ended before that; why."""
    run = await run_for(doors, id_, caller, Verb.VIEW)
    try:
        plan = await anyio.to_thread.run_sync(_plan, folder_of(doors, run))
    except FileNotFoundError:
        raise HTTPException(404, f"{run.pipeline}#{run.number} {_why_no_plan(run)}") from None
    return Response(plan, media_type="application/json")


def _why_no_plan(run: Run) -> str:
    if run.state == "ended":
        return f"is {run.outcome} and never began: {run.note or 'it said nothing'}"
    return f"has not begun, it is {run.state}{f': {run.note}' if run.note else ''}"


def _plan(folder: RunFolder) -> bytes:
    with as_run(folder):
        return folder.plan.read_bytes()


@api.get("/runs/{id_}/events", operation_id="follow_run", response_class=_EventStream, responses=_NO_PLACE)
async def follow_run(
    id_: str,
    doors: Here,
    caller: SignedIn,
    last_event_id: Annotated[str, Header()] = "",
    *,
    logs: bool = False,
    follow: bool = True,
) -> StreamingResponse:
    """The events of a run as a stream (text/event-stream), until it ends; `follow=false`: as many as there are.

    It goes on behind `Last-Event-ID`, the `id:` of any event. With `logs` there are events of the type `log` too:
    `stage`, `attempt`, `offset` and `size` in bytes, and the `text`. The last event is `end`, with the outcome; a
    stream that stops without it, as it does after 15 minutes, is to be asked for again. Lines that begin with a colon
    mean nothing; when nothing happens one comes every 15 seconds.
    """
    folder = folder_of(doors, await run_for(doors, id_, caller, Verb.VIEW))
    try:
        after = await anyio.to_thread.run_sync(partial(_place, folder, last_event_id, logs=logs))
    except ValueError as error:
        raise HTTPException(400, str(error)) from error

    async def stream() -> AsyncIterator[bytes]:
        with doors.followers.of(id_, folder, partial(find_here, doors, id_)) as follower:
            async for page in doors.followers.events(follower, after, logs=logs, follow=follow):
                yield page

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _place(folder: RunFolder, words: str, *, logs: bool) -> Position:
    with as_run(folder):
        return find(folder, words, logs=logs)


@api.get("/runs/{id_}/logs/{leaf:path}", operation_id="get_log", response_class=_Text)
async def get_log(
    id_: str,
    leaf: str,
    doors: Here,
    caller: SignedIn,
    attempt: Annotated[int, Query(ge=0, description="0 is the last one.")] = 0,
    offset: Annotated[int, Query(description="The first byte; a negative one counts from the end.")] = 0,
    *,
    follow: Annotated[bool, Query(description="Go on until the attempt ends, at most 15 minutes.")] = False,
) -> StreamingResponse:
    """The log of one attempt, byte for byte, as text that no browser runs. 404: there was no such attempt."""
    folder = folder_of(doors, await run_for(doors, id_, caller, Verb.VIEW))
    last = await anyio.to_thread.run_sync(_last_attempt, folder, leaf)
    if not 0 < (number := attempt or last) <= last:
        raise UNKNOWN

    async def stream() -> AsyncIterator[bytes]:
        with doors.followers.of(id_, folder, partial(find_here, doors, id_)) as follower:
            if follow:
                await follower.look()
            async for block in doors.followers.log(follower, leaf, number, offset, follow=follow):
                yield block

    return StreamingResponse(stream(), media_type="text/plain; charset=utf-8", headers=INERT)


def _last_attempt(folder: RunFolder, leaf: str) -> int:
    """The number of the last attempt at a leaf; 0 when there was none."""
    known = state_of(folder).leaves.get(leaf)
    return known.attempt if known else 0


@api.get("/runs/{id_}/artifacts", operation_id="list_artifacts")
async def list_artifacts(id_: str, doors: Here, caller: SignedIn) -> list[Artifact]:
    """The files that a run has left to be kept: reports, and artifacts of its leaves by attempt; at most 10,000."""
    folder = working_folder(doors, await run_for(doors, id_, caller, Verb.VIEW))
    found = await anyio.to_thread.run_sync(left_of, folder, MOST_ARTIFACTS)
    return [Artifact(path=path, size=size) for path, size in found.files]


@api.get("/runs/{id_}/artifacts/{path:path}", operation_id="get_artifact", response_class=_Bytes)
async def get_artifact(id_: str, path: str, doors: Here, caller: SignedIn) -> StreamingResponse:
    """One of them, byte for byte, as a file to keep: no browser shows it or runs anything in it."""
    if {"", ".", ".."} & {*path.split("/")}:  # nor is another server asked for it
        raise UNKNOWN
    folder = working_folder(doors, await run_for(doors, id_, caller, Verb.VIEW))
    try:
        file, size = await anyio.to_thread.run_sync(opened, folder, path)
    except FileNotFoundError:
        raise UNKNOWN from None

    async def blocks() -> AsyncIterator[bytes]:
        with file:
            left = size
            while left and (block := await anyio.to_thread.run_sync(file.read, min(BLOCK, left))):
                left -= len(block)
                yield block

    return _Bytes(blocks(), headers=attachment(path, size))


@api.get("/projects", operation_id="list_projects")
async def list_projects(doors: Here, caller: SignedIn) -> list[ProjectName]:
    """The projects that the caller may see."""
    within = caller.projects(Verb.VIEW)
    return [ProjectName(name=name) for name in await doors.registry.names() if within is None or name in within]


@api.get("/projects/{project}/pipelines", operation_id="list_pipelines", responses=_UNREADABLE)
async def list_pipelines(project: str, doors: Here, caller: SignedIn, ref: str = "") -> list[Pipeline]:
    """The pipelines of a project's file, as it stands at a branch, a tag or a commit; empty: the main branch."""
    caller.need(Verb.VIEW, project)
    async with _intake(doors, project) as intake:
        found = await intake.pipelines(ref)
    return [Pipeline(name=name, params=list(params)) for name, params in found.items()]


@api.post("/projects/{project}/runs", status_code=201, operation_id="start_run", responses=_UNREADABLE)
async def start_run(project: str, start: Start, doors: Here, caller: SignedIn) -> RunId:
    """Start a run of a pipeline. 422: there is no such pipeline, parameter or ref."""
    caller.need(Verb.RUN, project)
    told = run_started(caller.actor, project, start.pipeline)
    async with _intake(doors, project) as intake:
        number, id_ = await intake.start(start.pipeline, start.ref, start.texts(), caller.name, start.key, told)
    doors.started()
    return RunId(run=id_, number=number)


@asynccontextmanager
async def _intake(doors: Doors, project: str) -> AsyncIterator[Intake]:
    """What knows the project's file, and errors as the API says them."""
    found = await doors.registry.project(project)
    if found is None:
        raise UNKNOWN
    try:
        yield doors.registry.intake(found)
    except Removed as removed:
        doors.registry.forget(project)
        why = f"{removed}; if another one has its name now, ask again"
        raise HTTPException(503, why, {"Retry-After": "1"}) from removed
    except PipeError as error:
        raise HTTPException(422, str(error)) from error
    except RepositoryError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error


@api.post("/runs/{id_}/cancel", status_code=202, operation_id="cancel_run", responses=_NOT_NOW)
async def cancel_run(id_: str, doors: Here, caller: SignedIn) -> RunId:
    """Ask a run to end, as Ctrl-C would; one that waits for approval is thereby refused."""
    run = await run_for(doors, id_, caller, Verb.CANCEL)
    told = partial(
        note,
        actor=caller.actor,
        action="cancel run",
        what=id_,
        project=run.project,
        detail=f"{run.pipeline}#{run.number}",
    )

    def end(connection: Connection) -> bool:
        done = cancel_unstarted(connection, id_)
        if done:
            told(connection)
        return done

    if run.state in ("waiting", "queued") and await doors.database.write(end):
        doors.came_in()
        return RunId(run=id_, number=run.number)
    if run.state == "ended":
        raise HTTPException(409, f"the run is {run.outcome}")
    if not await anyio.to_thread.run_sync(_there, working_folder(doors, run)):
        raise HTTPException(503, "the run is just starting", {"Retry-After": "1"})
    await doors.database.write(told)
    await anyio.to_thread.run_sync(_order, working_folder(doors, run), Cancel(caller.name))
    return RunId(run=id_, number=run.number)


def _there(folder: RunFolder) -> bool:
    with as_run(folder):
        return folder.path.is_dir()


def _order(folder: RunFolder, order: Cancel) -> None:
    with as_run(folder):
        Orders(folder.path).give(order)


@api.post("/runs/{id_}/approve", operation_id="approve_run")
async def approve_run(id_: str, doors: Here, caller: SignedIn) -> RunId:
    """Let the commit of a fork run that waits for it. 409: it does not wait, or the pull request has moved on."""
    run = await run_for(doors, id_, caller, Verb.APPROVE)
    if why := await doors.database.write(lambda c: administration.approve(c, caller.actor, id_)):
        raise HTTPException(409, why)
    doors.started()
    return RunId(run=id_, number=run.number)
