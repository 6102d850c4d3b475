"""The doors: where deliveries come in, and the API by which people and programs follow runs."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection, select

from pipeline import __version__
from pipeline.errors import PipeError
from runner.events import Record, encode
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.server import inbox
from runner.server.bounds import Bounded
from runner.server.database import Database, deliveries, runs, tokens
from runner.server.dispatcher import cancel_queued
from runner.server.layout import Layout
from runner.server.metrics import exposition
from runner.server.registry import Registry
from runner.server.repositories import RepositoryError
from runner.server.shown import Delivery, DeliveryId, Leaf, Run, RunId, Start, run_of
from runner.state import fold

__all__ = ["Doors", "application"]

FOLLOW_EVERY = 0.25
HEARTBEAT = 15.0
SMALL = 1 << 20
"""Bytes of a body that many may send at once; everything but a delivery may have no more."""
UNKNOWN = HTTPException(404, "there is no such thing, or not for you")


@dataclass(frozen=True, slots=True)
class Doors:
    """What the pages and the API stand on."""

    database: Database
    registry: Registry
    layout: Layout
    came_in: Callable[[], None]
    """Called when a delivery waits for work."""
    started: Callable[[], None]
    """Called when a run waits for its start."""
    large: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    """How many large bodies are held at once."""


_INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def application(doors: Doors) -> FastAPI:
    """The application; every path below `/api` wants a token, every delivery its signature."""
    app = FastAPI(title="pipe", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.doors = doors
    app.add_middleware(Bounded)
    app.include_router(_open)
    app.include_router(_api)
    return app


def _here(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors


Here = Annotated[Doors, Depends(_here)]


_BEARER = HTTPBearer(auto_error=False, description="A token that `pipe token` made.")


async def _allowed(doors: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Let a request through that carries a token which is known."""
    digest = hashlib.sha256((given.credentials if given else "").encode()).hexdigest()
    known = select(tokens.c.digest).where(tokens.c.digest == digest)
    found = await doors.database.read(lambda connection: connection.execute(known).scalar_one_or_none())
    if found is None or not hmac.compare_digest(found, digest):
        raise HTTPException(401, "a token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})


class _EventStream(StreamingResponse):
    media_type = "text/event-stream"


class _Text(StreamingResponse):
    media_type = "text/plain"


_open = APIRouter()
_api = APIRouter(prefix="/api/v1", dependencies=[Depends(_allowed)])


@_open.get("/healthz", include_in_schema=False)
async def health() -> dict[str, str]:
    return {"status": "ok", "version": __version__}


@_open.get("/metrics", dependencies=[Depends(_allowed)], include_in_schema=False)
async def metrics(doors: Here) -> Response:
    return Response(await doors.database.read(exposition), media_type="text/plain; version=0.0.4; charset=utf-8")


@_open.post("/hooks/{project}", status_code=202, operation_id="deliver")
async def deliver(project: str, request: Request, response: Response, doors: Here) -> DeliveryId:
    """Take a delivery in. 202: it is kept and will be worked; 200: it was here already; 401: it is not genuine."""
    found = await doors.registry.project(project)
    if found is None:
        raise UNKNOWN
    async with doors.large if _size(request) > SMALL else nullcontext():
        receipt = await inbox.receive(doors.database, found, _headers(request), await _body(request))
    if receipt.refused:
        raise HTTPException(401, f"{receipt.refused} (delivery {receipt.id})")
    if not receipt.fresh:
        response.status_code = 200
    doors.came_in()
    return DeliveryId(delivery=receipt.id)


@_api.get("/deliveries", operation_id="list_deliveries")
async def list_deliveries(
    doors: Here, project: str = "", before: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[Delivery]:
    """Deliveries, the newest first; `before` is the id of the last one of the page before."""
    return await doors.database.read(lambda c: _deliveries(c, project, before, limit))


@_api.post("/deliveries/{id_}/redeliver", operation_id="redeliver")
async def redeliver(id_: str, doors: Here) -> DeliveryId:
    """Work a delivery once more, as if it had just come."""
    if not await doors.database.write(lambda c: inbox.again(c, id_)):
        raise UNKNOWN
    doors.came_in()
    return DeliveryId(delivery=id_)


@_api.get("/runs", operation_id="list_runs")
async def list_runs(
    doors: Here,
    project: str = "",
    pipeline: str = "",
    before: str = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[Run]:
    """Runs, the newest first; `before` is the id of the last one of the page before."""
    return await doors.database.read(lambda c: _runs(c, project, pipeline, before, limit))


@_api.get("/runs/{id_}", operation_id="get_run")
async def get_run(id_: str, doors: Here) -> Run:
    """One run."""
    return await _run(doors, id_)


@_api.get("/runs/{id_}/leaves", operation_id="list_leaves")
async def list_leaves(id_: str, doors: Here) -> list[Leaf]:
    """The leaves of a run that have been heard of, in the order in which they were."""
    folder = _folder(doors, await _run(doors, id_))
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


@_api.get("/runs/{id_}/events", operation_id="follow_run", response_class=_EventStream)
async def follow_run(
    id_: str, doors: Here, last_event_id: Annotated[int, Header()] = 0, *, follow: bool = True
) -> StreamingResponse:
    """The events of a run as a stream (text/event-stream); it goes on after `Last-Event-ID`."""
    run = await _run(doors, id_)
    stream = _stream(_folder(doors, run), last_event_id, doors, id_, follow=follow)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@_api.get("/runs/{id_}/logs/{leaf:path}", operation_id="get_log", response_class=_Text)
async def get_log(id_: str, leaf: str, doors: Here, attempt: Annotated[int, Query(ge=1)] = 1) -> StreamingResponse:
    """The log of one attempt as far as it has been written, byte for byte, as text that no browser runs."""
    log = anyio.Path(_folder(doors, await _run(doors, id_)).log(leaf, attempt))
    if not await log.is_file():
        raise UNKNOWN
    return StreamingResponse(_bytes(log), media_type="text/plain; charset=utf-8", headers=_INERT)


async def _bytes(log: anyio.Path) -> AsyncIterator[bytes]:
    async with await log.open("rb") as file:
        while block := await file.read(1 << 18):
            yield block


@_api.post("/projects/{project}/runs", status_code=201, operation_id="start_run")
async def start_run(project: str, start: Start, doors: Here) -> RunId:
    """Start a run of a pipeline. 422: there is no such pipeline, parameter or ref."""
    found = await doors.registry.project(project)
    if found is None:
        raise UNKNOWN
    try:
        number, id_ = await doors.registry.intake(found).start(start.pipeline, start.ref, start.texts(), "the API")
    except PipeError as error:
        raise HTTPException(422, str(error)) from error
    except RepositoryError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    doors.started()
    return RunId(run=id_, number=number)


@_api.post("/runs/{id_}/cancel", status_code=202, operation_id="cancel_run")
async def cancel_run(id_: str, doors: Here) -> RunId:
    """Ask a run to end, as Ctrl-C would."""
    run = await _run(doors, id_)
    if run.state == "queued" and await doors.database.write(partial(cancel_queued, id_=id_)):
        doors.came_in()
        return RunId(run=id_, number=run.number)
    if run.state == "ended":
        raise HTTPException(409, f"the run is {run.outcome}")
    if not await anyio.Path(_folder(doors, run).path).is_dir():
        raise HTTPException(503, "the run is just starting", {"Retry-After": "1"})
    await anyio.to_thread.run_sync(Orders(_folder(doors, run).path).give, Cancel("the API"))
    return RunId(run=id_, number=run.number)


def _size(request: Request) -> int:
    told = request.headers.get("content-length", "")
    return int(told) if told.isdecimal() else inbox.LARGEST


async def _body(request: Request) -> bytes:
    """The raw body, no more than may be; what is too large is not even read to its end."""
    found = bytearray()
    async for block in request.stream():
        found += block
        if len(found) > inbox.LARGEST:
            raise HTTPException(413, f"the body is larger than {inbox.LARGEST >> 20} MiB")
    return bytes(found)


def _headers(request: Request) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}


# -- reading ---------------------------------------------------------------------------------------


def _deliveries(connection: Connection, project: str, before: str, limit: int) -> list[Delivery]:
    columns = [deliveries.c[name] for name in Delivery.model_fields]
    wanted = select(*columns).order_by(deliveries.c.id.desc()).limit(limit)
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    wanted = wanted.where(deliveries.c.id < before) if before else wanted
    return [Delivery.model_validate(dict(row)) for row in connection.execute(wanted).mappings()]


def _runs(connection: Connection, project: str, pipeline: str, before: str, limit: int) -> list[Run]:
    wanted = select(runs).order_by(runs.c.id.desc()).limit(limit)
    wanted = wanted.where(runs.c.project == project) if project else wanted
    wanted = wanted.where(runs.c.pipeline == pipeline) if pipeline else wanted
    wanted = wanted.where(runs.c.id < before) if before else wanted
    return [run_of(dict(row)) for row in connection.execute(wanted).mappings()]


async def _run(doors: Doors, id_: str) -> Run:
    def find(connection: Connection) -> Run | None:
        row = connection.execute(select(runs).where(runs.c.id == id_)).mappings().one_or_none()
        return run_of(dict(row)) if row else None

    found = await doors.database.read(find)
    if found is None:
        raise UNKNOWN
    return found


def _folder(doors: Doors, run: Run) -> RunFolder:
    return RunFolder(doors.layout.store(run.project) / run.pipeline / str(run.number))


async def _stream(folder: RunFolder, after: int, doors: Doors, id_: str, *, follow: bool) -> AsyncIterator[bytes]:
    """Records as server-sent events, `id` their number; a comment when there has been nothing for a while."""
    said = time.monotonic()
    while True:
        ended = (await _run(doors, id_)).state == "ended"
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
