"""Deliveries for people: what came in, what became of it, and having one worked again."""

from functools import partial
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from runner.server.api import redeliver
from runner.server.callers import SignedIn
from runner.server.doors import Here
from runner.server.pages.rendering import page
from runner.server.reading import deliveries_of
from runner.server.rights import Verb

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

PAGE = 50


@pages.get("/deliveries")
async def show_deliveries(
    request: Request, doors: Here, caller: SignedIn, project: str = "", before: str = ""
) -> Response:
    """The newest deliveries."""
    within = caller.projects(Verb.VIEW)
    found = await doors.database.read(partial(deliveries_of, within=within, project=project, before=before, limit=PAGE))
    older = f"/deliveries?project={quote(project)}&before={found[-1].id}" if found[PAGE - 1 :] else ""
    may = {each.project for each in found if caller.may(Verb.REDELIVER, each.project)}
    return page(
        request,
        "deliveries.html",
        caller,
        deliveries=found,
        older=older,
        project=project,
        before=before,
        may_redeliver=may,
    )


@pages.post("/deliveries/{id_}/redeliver")
async def again(id_: str, doors: Here, caller: SignedIn) -> Response:
    """Work one more time what a delivery said."""
    await redeliver(id_, doors, caller)
    return RedirectResponse("/deliveries", 303)
