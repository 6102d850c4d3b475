"""The API by which people and programs follow, start and cancel runs, and see what came in."""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection, select

from pipeline.errors import PipeError
from runner.events import Record, encode
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.server import inbox
from runner.server.callers import Caller, SignedIn, signed_in
from runner.server.database import deliveries, runs
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.ends import cancel_unstarted
from runner.server.forks import approve
from runner.server.repositories import RepositoryError
from runner.server.rights import Verb
from runner.server.shown import Delivery, DeliveryId, Leaf, Run, RunId, Start, run_of
from runner.state import fold

__all__ = ["api"]

FOLLOW_EVERY = 0.25
HEARTBEAT = 15.0

_INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


class _EventStream(StreamingResponse):
    media_type = "text/event-stream"


class _Text(StreamingResponse):
    media_type = "text/plain"


api = APIRouter(prefix="/api/v1", dependencies=[Depends(signed_in)])


@api.get("/deliveries", operation_id="list_deliveries")
async def list_deliveries(
    doors: Here, caller: SignedIn, project: str = "", before: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[Delivery]:
    """Deliveries, the newest first; `before` is the id of the last one of the page before."""
    within = caller.projects(Verb.VIEW)
    return await doors.database.read(lambda c: _deliveries(c, within, project, before, limit))


@api.post("/deliveries/{id_}/redeliver", operation_id="redeliver")
async def redeliver(id_: str, doors: Here, caller: SignedIn) -> DeliveryId:
    """Work a delivery once more, as if it had just come."""
    whose = select(deliveries.c.project).where(deliveries.c.id == id_)
    project = await doors.database.read(lambda connection: connection.execute(whose).scalar_one_or_none())
    if project is None:
        raise UNKNOWN
    caller.need(Verb.REDELIVER, project)
    if not await doors.database.write(lambda c: inbox.again(c, id_)):
        raise UNKNOWN
    doors.came_in()
    return DeliveryId(delivery=id_)


@api.get("/runs", operation_id="list_runs")
async def list_runs(
    doors: Here,
    caller: SignedIn,
    project: str = "",
    pipeline: str = "",
    before: str = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[Run]:
    """Runs, the newest first; `before` is the id of the last one of the page before."""
    within = caller.projects(Verb.VIEW)
    return await doors.database.read(lambda c: _runs(c, within, project, pipeline, before, limit))


@api.get("/runs/{id_}", operation_id="get_run")
async def get_run(id_: str, doors: Here, caller: SignedIn) -> Run:
    """One run."""
    return await _run(doors, id_, caller, Verb.VIEW)


@api.get("/runs/{id_}/leaves", operation_id="list_leaves")
async def list_leaves(id_: str, doors: Here, caller: SignedIn) -> list[Leaf]:
    """The leaves of a run that have been heard of, in the order in which they were."""
    folder = _folder(doors, await _run(doors, id_, caller, Verb.VIEW))
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
        for leaf in fold(folder.records()).leaves.values()
    ]


@api.get("/runs/{id_}/events", operation_id="follow_run", response_class=_EventStream)
async def follow_run(
    id_: str, doors: Here, caller: SignedIn, last_event_id: Annotated[int, Header()] = 0, *, follow: bool = True
) -> StreamingResponse:
    """The events of a run as a stream (text/event-stream); it goes on after `Last-Event-ID`."""
    run = await _run(doors, id_, caller, Verb.VIEW)
    stream = _stream(_folder(doors, run), last_event_id, doors, id_, follow=follow)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@api.get("/runs/{id_}/logs/{leaf:path}", operation_id="get_log", response_class=_Text)
async def get_log(
    id_: str, leaf: str, doors: Here, caller: SignedIn, attempt: Annotated[int, Query(ge=1)] = 1
) -> StreamingResponse:
    """The log of one attempt as far as it has been written, byte for byte, as text that no browser runs."""
    log = anyio.Path(_folder(doors, await _run(doors, id_, caller, Verb.VIEW)).log(leaf, attempt))
    if not await log.is_file():
        raise UNKNOWN
    return StreamingResponse(_bytes(log), media_type="text/plain; charset=utf-8", headers=_INERT)


async def _bytes(log: anyio.Path) -> AsyncIterator[bytes]:
    async with await log.open("rb") as file:
        while block := await file.read(1 << 18):
            yield block


@api.post("/projects/{project}/runs", status_code=201, operation_id="start_run")
async def start_run(project: str, start: Start, doors: Here, caller: SignedIn) -> RunId:
    """Start a run of a pipeline. 422: there is no such pipeline, parameter or ref."""
    caller.need(Verb.RUN, project)
    found = await doors.registry.project(project)
    if found is None:
        raise UNKNOWN
    try:
        number, id_ = await doors.registry.intake(found).start(start.pipeline, start.ref, start.texts(), caller.name)
    except PipeError as error:
        raise HTTPException(422, str(error)) from error
    except RepositoryError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    doors.started()
    return RunId(run=id_, number=number)


@api.post("/runs/{id_}/cancel", status_code=202, operation_id="cancel_run")
async def cancel_run(id_: str, doors: Here, caller: SignedIn) -> RunId:
    """Ask a run to end, as Ctrl-C would; one that waits for approval is thereby refused."""
    run = await _run(doors, id_, caller, Verb.CANCEL)
    if run.state in ("waiting", "queued") and await doors.database.write(partial(cancel_unstarted, id_=id_)):
        doors.came_in()
        return RunId(run=id_, number=run.number)
    if run.state == "ended":
        raise HTTPException(409, f"the run is {run.outcome}")
    if not await anyio.Path(_folder(doors, run).path).is_dir():
        raise HTTPException(503, "the run is just starting", {"Retry-After": "1"})
    await anyio.to_thread.run_sync(Orders(_folder(doors, run).path).give, Cancel(caller.name))
    return RunId(run=id_, number=run.number)


@api.post("/runs/{id_}/approve", operation_id="approve_run")
async def approve_run(id_: str, doors: Here, caller: SignedIn) -> RunId:
    """Let the commit of a fork run that waits for it. 409: it does not wait, or the pull request has moved on."""
    run = await _run(doors, id_, caller, Verb.APPROVE)
    if why := await doors.database.write(partial(approve, id_=id_, by=caller.name)):
        raise HTTPException(409, why)
    doors.started()
    return RunId(run=id_, number=run.number)


# -- reading ---------------------------------------------------------------------------------------


def _deliveries(
    connection: Connection, within: frozenset[str] | None, project: str, before: str, limit: int
) -> list[Delivery]:
    columns = [deliveries.c[name] for name in Delivery.model_fields]
    wanted = select(*columns).order_by(deliveries.c.id.desc()).limit(limit)
    wanted = wanted if within is None else wanted.where(deliveries.c.project.in_(within))
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    wanted = wanted.where(deliveries.c.id < before) if before else wanted
    return [Delivery.model_validate(dict(row)) for row in connection.execute(wanted).mappings()]


def _runs(
    connection: Connection, within: frozenset[str] | None, project: str, pipeline: str, before: str, limit: int
) -> list[Run]:
    wanted = select(runs).order_by(runs.c.id.desc()).limit(limit)
    wanted = wanted if within is None else wanted.where(runs.c.project.in_(within))
    wanted = wanted.where(runs.c.project == project) if project else wanted
    wanted = wanted.where(runs.c.pipeline == pipeline) if pipeline else wanted
    wanted = wanted.where(runs.c.id < before) if before else wanted
    return [run_of(dict(row)) for row in connection.execute(wanted).mappings()]


async def _run(doors: Doors, id_: str, caller: Caller, verb: Verb) -> Run:
    """The run of that id, with which the caller may do something."""
    found = await _found(doors, id_)
    if found is None:
        raise UNKNOWN
    caller.need(verb, found.project)
    return found


async def _found(doors: Doors, id_: str) -> Run | None:
    def find(connection: Connection) -> Run | None:
        row = connection.execute(select(runs).where(runs.c.id == id_)).mappings().one_or_none()
        return run_of(dict(row)) if row else None

    return await doors.database.read(find)


def _folder(doors: Doors, run: Run) -> RunFolder:
    return RunFolder(doors.layout.store(run.project) / run.pipeline / str(run.number))


async def _stream(folder: RunFolder, after: int, doors: Doors, id_: str, *, follow: bool) -> AsyncIterator[bytes]:
    """Records as server-sent events, `id` their number; a comment when there has been nothing for a while."""
    said = time.monotonic()
    while True:
        run = await _found(doors, id_)
        ended = run is None or run.state == "ended"
        for record in await anyio.to_thread.run_sync(_records, folder, after):
            after, said = record.seq, time.monotonic()
            data = encode(record).rstrip()
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (record.seq, record.event.type.encode(), data)
        if ended or not follow:
            yield b"event: end\ndata: {}\n\n"
            return
        if time.monotonic() - said > HEARTBEAT:
            said = time.monotonic()
            yield b": still here\n\n"
        await anyio.sleep(FOLLOW_EVERY)


def _records(folder: RunFolder, after: int) -> list[Record]:
    return [record for record in folder.records() if record.seq > after]
