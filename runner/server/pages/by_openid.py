"""Signing in by an OpenID provider, and connecting an account with one."""

import json
import time
from dataclasses import asdict

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection

from pipeline.errors import PipeError
from runner.server import administration, cookies
from runner.server.audit import Actor, note
from runner.server.callers import SignedIn, visitor
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.openid import Attempt, Identity, Provider
from runner.server.origins import address
from runner.server.pages.rendering import page
from runner.server.pages.signing_in import enter

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)


@pages.get("/login/openid")
async def begin(request: Request, doors: Here, to: str = "/") -> Response:
    """Send a browser to the provider."""
    try:
        url, attempt = await _provider(doors).begin(to)
    except PipeError as error:
        raise HTTPException(502, str(error)) from error
    answer = RedirectResponse(url, 303)
    cookies.give(answer, request, doors.url, _sealed(doors, attempt), what="openid")
    return answer


@pages.post("/account/openid")
async def connect(request: Request, doors: Here, caller: SignedIn) -> Response:
    """Let a person who is signed in be known by an identity of the provider too."""
    if caller.session is None:
        raise HTTPException(403, "this is for people: sign in with a browser")
    try:
        url, attempt = await _provider(doors).begin("/account", caller.session.digest)
    except PipeError as error:
        raise HTTPException(502, str(error)) from error
    # no redirect: a page's form may lead nowhere but to this server
    answer = page(request, "onward.html", caller, url=url, openid=_provider(doors).settings.label)
    cookies.give(answer, request, doors.url, _sealed(doors, attempt), what="openid")
    return answer


@pages.get("/login/openid/callback")
async def finish(request: Request, doors: Here) -> Response:
    """Take the browser back from the provider; whoever it is now signed in, or refused with the reason."""
    provider = _provider(doors)
    try:
        attempt = _opened(doors, cookies.read(request, doors.url, what="openid"))
        identity = await provider.finish(attempt, request.query_params)
        answer = await _let_in(request, doors, provider, attempt, identity)
    except PipeError as error:
        answer = await _refused(request, doors, provider, str(error))
    cookies.forget(answer, request, doors.url, what="openid")
    return answer


async def _let_in(request: Request, doors: Doors, provider: Provider, attempt: Attempt, identity: Identity) -> Response:
    if attempt.connects:
        caller = await visitor(request, doors)
        if caller is None or caller.session is None or caller.session.digest != attempt.connects:
            raise PipeError("you are not signed in any more: sign in, and connect the accounts again")
        await doors.database.write(lambda c: administration.connect(c, caller.actor, identity.id))
        return RedirectResponse("/account", 303)

    def find(connection: Connection) -> str:
        granted = provider.settings.granted(identity.groups)
        return administration.known_by(connection, address(request), identity.id, identity.name, granted)

    person = await doors.database.write(find)
    if not person:
        raise PipeError(f"{identity.name}: none of the groups that {provider.settings.label} tells has a role here")
    return await enter(request, doors, Actor(person, "openid", address(request)), attempt.to)


async def _refused(request: Request, doors: Doors, provider: Provider, why: str) -> Response:
    who = Actor("", "openid", address(request))
    if not doors.refusals.take(who.address):
        await doors.database.write(lambda c: note(c, who, "sign-in refused", detail=why))
    label = provider.settings.label
    return page(request, "login.html", status=403, to="/", name="", wrong=why, openid=label, nobody=False)


def _provider(doors: Doors) -> Provider:
    if doors.openid is None:
        raise UNKNOWN
    return doors.openid


def _sealed(doors: Doors, attempt: Attempt) -> str:
    return doors.registry.seal.close(json.dumps(asdict(attempt))).decode()


def _opened(doors: Doors, sealed: str) -> Attempt:
    """The attempt that a browser carries.

    Raises:
        PipeError: it carries none, or one of long ago.
    """
    try:
        attempt = Attempt(**json.loads(doors.registry.seal.open(sealed.encode())))
    except (PipeError, ValueError, TypeError) as error:
        raise PipeError("this browser did not begin to sign in here: sign in again") from error
    if attempt.until < time.time():
        raise PipeError("it took longer than ten minutes: sign in again")
    return attempt
