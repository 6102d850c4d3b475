"""The application: the door where deliveries come in, and what is behind the other ones."""

from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from pipeline import __version__
from runner.server import inbox
from runner.server.api import api
from runner.server.api_admin import api as api_admin
from runner.server.bounds import Bounded, drain
from runner.server.callers import SignedIn, visitor
from runner.server.connections import Away
from runner.server.doors import Doors, Here
from runner.server.headers import Guarded
from runner.server.metrics import exposition
from runner.server.origins import address
from runner.server.pages import account, by_openid, deliveries, people, projects, runs, signing_in
from runner.server.pages.rendering import Static, load, problem
from runner.server.peers import Elsewhere
from runner.server.problems import PROBLEMS, Described, refusal
from runner.server.reports import reports
from runner.server.rights import Verb
from runner.server.shown import DeliveryId
from runner.server.telling import badges, telling
from runner.server.throttle import too_many

__all__ = ["application"]

SMALL = 1 << 20
"""Bytes of a body that many may send at once; everything but a delivery may have no more."""
QUICK = 64 << 10
"""Bytes of a body that is verified where it is; a larger one would hold up whoever else is answered."""
BODY_WITHIN = 30.0
PLACE_WITHIN = 5.0
"""Seconds that a large body waits for others: forges give up after five to ten."""
_FOR_PROGRAMS = ("/api/", "/badges/", "/hooks/", "/metrics", "/healthz")


def application(doors: Doors) -> FastAPI:
    """The application; every delivery wants its signature, and everything else but a few pages somebody signed in."""
    app = Described(
        title="pipe", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json"
    )
    app.state.doors = doors
    app.add_middleware(Bounded)
    app.add_middleware(Guarded, https=doors.url.startswith("https://"))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Elsewhere, doors.peers.pass_on)
    app.add_exception_handler(Away, _away)
    pages = (signing_in, by_openid, account, runs, projects, deliveries, people)
    for router in (_open, badges, api, api_admin, telling, reports, *(each.pages for each in pages)):
        app.include_router(router)
    app.mount("/static", Static())
    load()
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """Say what went wrong: to programs as JSON, to people as a page; nobody signed in: to the page for that."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it was registered for
    if request.url.path.startswith(_FOR_PROGRAMS):
        return refusal(error.status_code, str(error.detail), error.headers)
    if error.status_code == 401 and request.method in ("GET", "HEAD"):
        asked = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        return RedirectResponse(f"/login?to={quote(asked, safe='')}", 303)
    return problem(request, error, await visitor(request, request.app.state.doors))


async def _away(request: Request, away: Exception) -> Response:
    """Nothing was taken, or nobody can say; forges and people come again."""
    error = HTTPException(503, f"the database does not answer: {away}", {"Retry-After": "5"})
    if request.url.path.startswith(_FOR_PROGRAMS):
        return refusal(error.status_code, str(error.detail), error.headers)
    return problem(request, error, None)


_open = APIRouter()


@_open.get("/healthz", include_in_schema=False)
async def health(doors: Here, response: Response) -> dict[str, str]:
    if away := doors.database.away:
        response.status_code = 503
        return {"status": f"the database does not answer: {away}", "version": __version__}
    return {"status": "ok", "version": __version__}


@_open.get("/metrics", include_in_schema=False)
async def metrics(doors: Here, caller: SignedIn) -> Response:
    caller.need(Verb.VIEW)
    return Response(await doors.database.read(exposition), media_type="text/plain; version=0.0.4; charset=utf-8")


@_open.post("/hooks/{project}", status_code=202, operation_id="deliver", responses=PROBLEMS)
async def deliver(project: str, request: Request, response: Response, doors: Here) -> DeliveryId:
    """Take a delivery in.

    202: it is kept and will be worked; 200: it was here already; 401: it is not genuine, or there is no such project,
    which who may see the deliveries finds there; 429: it is not either, and
    so many from there were not that it is not even kept; 408, 413: it takes too long, it is too large; 503: so many
    large ones come at the same time that this one has to come again.
    """
    found = await doors.registry.for_stranger(project)
    async with AsyncExitStack() as held:
        body = await _body(request, doors, held)
        examine = partial(inbox.examine, project, found, _headers(request), body)
        examined = examine() if len(body) <= QUICK else await anyio.to_thread.run_sync(examine)
        if examined.refused and (wait := doors.refusals.take(address(request))):
            raise too_many(f"{examined.told}; or there is no such project", wait)
        receipt = await inbox.receive(doors.database, examined)
    if receipt.refused:
        told = examined.told or receipt.refused
        where = f"an administrator sees at /deliveries what holds of delivery {receipt.id}"
        raise HTTPException(401, f"{told}; or there is no such project: {where}")
    if not receipt.fresh:
        response.status_code = 200
    doors.came_in()
    return DeliveryId(delivery=receipt.id)


async def _body(request: Request, doors: Doors, held: AsyncExitStack) -> bytes:
    """The raw body, no more than may be; what is too large is not even read to its end.

    A large one takes a place among those, whatever it said of itself, and keeps it as long as `held` is open.
    """
    try:
        with anyio.fail_after(BODY_WITHIN):
            return await _read(request, doors, held)
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_WITHIN:g} s") from None


async def _read(request: Request, doors: Doors, held: AsyncExitStack) -> bytes:
    found, placed = bytearray(), False
    async for block in request.stream():
        found += block
        if len(found) > inbox.LARGEST:
            found.clear()
            await drain(request.receive)
            raise HTTPException(413, f"the body is larger than {inbox.LARGEST >> 20} MiB")
        if len(found) > SMALL and not placed:
            placed = True
            await _place(doors, held)
    return bytes(found)


async def _place(doors: Doors, held: AsyncExitStack) -> None:
    try:
        with anyio.fail_after(PLACE_WITHIN):
            await held.enter_async_context(doors.large)
    except TimeoutError:
        raise HTTPException(503, "other large deliveries are being taken in", {"Retry-After": "10"}) from None


def _headers(request: Request) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}
