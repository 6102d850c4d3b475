"""What a person sees and changes of their own account: the password, tokens, and other sessions."""

import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from pipeline.errors import PipeError
from runner.server import administration, people, sessions, tokens
from runner.server.callers import Caller, SignedIn
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.forms import form
from runner.server.pages.rendering import page
from runner.server.passwords import check
from runner.server.rights import Grant
from runner.server.throttle import too_many

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)


async def _person(caller: SignedIn) -> Caller:
    """Whoever is signed in by a browser; a token is nobody's account."""
    if caller.session is None:
        raise HTTPException(403, "this is for people: sign in with a browser")
    return caller


Person = Annotated[Caller, Depends(_person)]
Fields = Annotated[dict[str, str], Depends(form)]


@pages.get("/account")
async def show_account(request: Request, doors: Here, caller: Person) -> Response:
    """Who is signed in, with which roles, and what opens doors in their name."""
    return await _account(request, doors, caller)


@pages.post("/account/password")
async def change_password(request: Request, doors: Here, caller: Person, fields: Fields) -> Response:
    """Take a new password for the one that was; every other session of the person ends."""
    if wait := doors.sign_ins.wait(caller.name, caller.address):
        raise too_many("too many wrong passwords", wait)
    person = await doors.database.read(lambda c: people.must_find(c, caller.name))
    doors.sign_ins.trying(caller.name, caller.address)
    if not await doors.passwords.match(person.password, fields.get("password", "")):
        return await _account(request, doors, caller, status=403, wrong="the password that you have is another one")
    doors.sign_ins.passed(caller.name, caller.address)
    try:
        check(fields.get("new", ""), caller.name)
    except PipeError as error:
        return await _account(request, doors, caller, status=422, wrong=str(error))
    kept = await doors.passwords.hashed(fields.get("new", ""))
    stays = caller.session.digest if caller.session else ""
    await doors.database.write(
        lambda c: administration.change_password(c, caller.actor, caller.name, kept, stays=stays)
    )
    return await _account(request, doors, caller, said="The password is changed, and all other sessions have ended.")


@pages.post("/account/tokens")
async def make_token(request: Request, doors: Here, caller: Person, fields: Fields) -> Response:
    """Make a token and show it, this once."""
    grant, days = Grant.read(fields.get("role", "")), fields.get("days", "")
    expires = time.time() + min(int(days), 3650) * 86400 if days.isdecimal() and int(days[:9]) else 0.0
    try:
        made = await doors.database.write(
            lambda c: administration.make_token(
                c, caller.actor, fields.get("name", ""), caller.name, grant, expires=expires
            )
        )
    except PipeError as error:
        return await _account(request, doors, caller, status=422, wrong=str(error))
    return await _account(request, doors, caller, token=made)


@pages.post("/account/tokens/{id_}/revoke")
async def revoke_token(id_: str, doors: Here, caller: Person) -> Response:
    """Revoke a token of one's own."""
    if id_ not in {token.id for token in await doors.database.read(partial(tokens.known, person=caller.name))}:
        raise UNKNOWN
    await doors.database.write(lambda c: administration.revoke_token(c, caller.actor, id_))
    return RedirectResponse("/account", 303)


@pages.post("/account/sessions")
async def end_others(doors: Here, caller: Person) -> Response:
    """End every other session of the person."""
    stays = caller.session.digest if caller.session else ""
    await doors.database.write(lambda c: administration.leave_others(c, caller.actor, stays))
    return RedirectResponse("/account", 303)


async def _account(request: Request, doors: Doors, caller: Caller, *, status: int = 200, **said: str) -> Response:
    """The page, with what was just done or what is wrong with it."""
    names: dict[str, Any] = {
        "person": await doors.database.read(lambda c: people.must_find(c, caller.name)),
        "tokens": await doors.database.read(partial(tokens.known, person=caller.name)),
        "sessions": await doors.database.read(partial(sessions.known, person=caller.name)),
        "openid": doors.openid.settings.label if doors.openid else "",
        "now": time.time(),
    }
    return page(
        request, "account.html", caller, status=status, **{"wrong": "", "said": "", "token": "", **names, **said}
    )
