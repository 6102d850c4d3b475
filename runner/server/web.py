"""The application: the door where deliveries come in, and what is behind the other ones."""

from contextlib import nullcontext

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response

from pipeline import __version__
from runner.server import inbox
from runner.server.api import api
from runner.server.bounds import Bounded
from runner.server.callers import signed_in
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.metrics import exposition
from runner.server.shown import DeliveryId

__all__ = ["application"]

SMALL = 1 << 20
"""Bytes of a body that many may send at once; everything but a delivery may have no more."""


def application(doors: Doors) -> FastAPI:
    """The application; every path below `/api` wants a token, every delivery its signature."""
    app = FastAPI(title="pipe", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.doors = doors
    app.add_middleware(Bounded)
    app.include_router(_open)
    app.include_router(api)
    return app


_open = APIRouter()


@_open.get("/healthz", include_in_schema=False)
async def health() -> dict[str, str]:
    return {"status": "ok", "version": __version__}


@_open.get("/metrics", dependencies=[Depends(signed_in)], include_in_schema=False)
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
