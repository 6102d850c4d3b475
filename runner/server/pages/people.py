"""People for administrators: who can sign in and with which roles, and what was done by whom."""

from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from runner.server import api_admin, audit, people
from runner.server.callers import Caller, SignedIn
from runner.server.doors import Doors, Here
from runner.server.forms import form
from runner.server.pages.rendering import page
from runner.server.rights import ROLES, Grant, Verb
from runner.server.shown import Invitation, NewPerson, Role, Roles

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

PAGE = 50

Fields = Annotated[dict[str, str], Depends(form)]


@pages.get("/people")
async def show_people(request: Request, doors: Here, caller: SignedIn) -> Response:
    """Everybody, by name."""
    return await _people(request, doors, caller)


@pages.post("/people")
async def add_person(request: Request, doors: Here, caller: SignedIn, fields: Fields) -> Response:
    """Add a person and show the link by which they choose their password, this once."""
    try:
        new = NewPerson(name=fields.get("name", "").strip(), roles=_roles(fields))
        made = await api_admin.add_person(new, doors, caller)
    except HTTPException as error:
        return await _wrong(request, doors, caller, error)
    return await _people(request, doors, caller, invitation=made)


@pages.post("/people/{name}/link")
async def invite_person(name: str, request: Request, doors: Here, caller: SignedIn) -> Response:
    """Make a new link for a person and show it, this once."""
    try:
        made = await api_admin.invite_person(name, doors, caller)
    except HTTPException as error:
        return await _wrong(request, doors, caller, error)
    return await _people(request, doors, caller, invitation=made)


@pages.post("/people/{name}/roles")
async def set_roles(name: str, request: Request, doors: Here, caller: SignedIn, fields: Fields) -> Response:
    """Give a person the roles in the form and no others."""
    try:
        await api_admin.set_roles(name, Roles(roles=_roles(fields)), doors, caller)
    except HTTPException as error:
        return await _wrong(request, doors, caller, error)
    return RedirectResponse("/people", 303)


@pages.post("/people/{name}/remove")
async def remove_person(name: str, request: Request, doors: Here, caller: SignedIn) -> Response:
    """Forget a person."""
    try:
        await api_admin.remove_person(name, doors, caller)
    except HTTPException as error:
        return await _wrong(request, doors, caller, error)
    return RedirectResponse("/people", 303)


@pages.get("/audit")
async def show_audit(
    request: Request, doors: Here, caller: SignedIn, who: str = "", project: str = "", before: int = 0
) -> Response:
    """The audit log, the newest line first."""
    caller.need(Verb.AUDIT)
    read = partial(audit.lines, before=before, limit=PAGE, who=who, project=project)
    lines = await doors.database.read(read)
    asked = urlencode({"who": who, "project": project})
    older = f"/audit?{asked}&before={lines[-1].id}" if lines[PAGE - 1 :] else ""
    return page(request, "audit.html", caller, lines=lines, older=older, before=before, who=who, project=project)


def _roles(fields: dict[str, str]) -> list[Role]:
    """`admin, member@shop` as roles; a word that is none is refused where all roles are."""
    words = fields.get("roles", "").replace(",", " ").split()
    return [Role(role=grant.role, scope=grant.scope) for grant in map(Grant.read, words)]


async def _wrong(request: Request, doors: Doors, caller: Caller, error: HTTPException) -> Response:
    """The page again with what is wrong; who may not see it at all is told so."""
    caller.need(Verb.MANAGE_PEOPLE)
    return await _people(request, doors, caller, status=error.status_code, wrong=str(error.detail))


async def _people(
    request: Request,
    doors: Doors,
    caller: Caller,
    *,
    status: int = 200,
    wrong: str = "",
    invitation: Invitation | None = None,
) -> Response:
    caller.need(Verb.MANAGE_PEOPLE)
    known = await doors.database.read(people.known)
    return page(
        request, "people.html", caller, status=status, people=known, roles=ROLES, wrong=wrong, invitation=invitation
    )
