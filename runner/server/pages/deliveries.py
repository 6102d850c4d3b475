"""Deliveries for people: what came in, what became of it, and having one worked again."""

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from runner.server.api import redeliver
from runner.server.callers import Caller, SignedIn
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.pages.rendering import page
from runner.server.reading import deliveries_of
from runner.server.rights import Verb
from runner.server.shown import Delivery

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

PAGE = 50


@pages.get("/deliveries")
async def show_deliveries(
    request: Request, doors: Here, caller: SignedIn, project: str = "", before: str = ""
) -> Response:
    """The newest deliveries."""
    read = partial(deliveries_of, within=caller.projects(Verb.VIEW), project=project, before=before, limit=PAGE)
    found = await doors.database.read(read)
    older = f"/deliveries?project={quote(project)}&before={found[-1].id}" if found[PAGE - 1 :] else ""
    return await _page(request, doors, caller, found, older=older, project=project, before=before)


@pages.get("/deliveries/{id_}")
async def show_delivery(request: Request, id_: str, doors: Here, caller: SignedIn) -> Response:
    """One of them."""
    found = await doors.database.read(partial(deliveries_of, within=caller.projects(Verb.VIEW), only=id_))
    if not found:
        raise UNKNOWN
    return await _page(request, doors, caller, found, only=id_)


async def _page(request: Request, doors: Doors, caller: Caller, found: Sequence[Delivery], **names: str) -> Response:
    standing = {name for name in await doors.registry.names() if caller.may(Verb.VIEW, name)}
    may = {each.project for each in found if each.project in standing and caller.may(Verb.REDELIVER, each.project)}
    words: dict[str, Any] = {"older": "", "project": "", "before": "", "only": "", **names}
    return page(request, "deliveries.html", caller, deliveries=found, standing=standing, may_redeliver=may, **words)


@pages.post("/deliveries/{id_}/redeliver")
async def again(id_: str, doors: Here, caller: SignedIn) -> Response:
    """Work one more time what a delivery said."""
    await redeliver(id_, doors, caller)
    return RedirectResponse("/deliveries", 303)
