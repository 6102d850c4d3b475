"""Signing in and out, the set-up of the first administrator, and the link by which a person chooses a password."""

from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import Connection

from pipeline.errors import PipeError
from runner.server import administration, cookies, links, people
from runner.server.administration import leave
from runner.server.audit import Actor, note
from runner.server.callers import Caller, SignedIn, visitor
from runner.server.doors import Doors, Here
from runner.server.forms import form
from runner.server.origins import address, elsewhere
from runner.server.pages.rendering import page
from runner.server.passwords import check
from runner.server.throttle import too_many

__all__ = ["enter", "pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)

_USED_UP = "the link is used up or too old: ask for a new one"


async def _fields(request: Request, doors: Here) -> dict[str, str]:
    """The fields of a form that nobody is signed in for; a page of somebody else cannot send it."""
    if elsewhere(request, doors.url):
        raise HTTPException(403, "this did not come from a page of this server: open the page again and repeat it")
    return await form(request)


Fields = Annotated[dict[str, str], Depends(_fields)]
Visitor = Annotated[Caller | None, Depends(visitor)]


@pages.get("/login")
async def show_login(request: Request, doors: Here, caller: Visitor, to: str = "/") -> Response:
    """The page on which a person signs in; who is signed in goes on at once."""
    if caller:
        return RedirectResponse(_inside(to), 303)
    return _login(request, doors, to, nobody=not await doors.database.read(people.administered))


@pages.post("/login")
async def login(request: Request, doors: Here, fields: Fields) -> Response:
    """Sign in by name and password."""
    name, to, here = fields.get("name", "").strip().lower(), fields.get("to", "/"), address(request)
    if wait := doors.sign_ins.wait(name, here):
        raise too_many("too many wrong passwords", wait)
    doors.sign_ins.trying(name, here)
    person = await doors.database.read(lambda connection: people.find(connection, name))
    if not await doors.passwords.match(person.password if person else "", fields.get("password", "")):
        # a name that nobody has may be a password in the wrong field
        refused = Actor(name if person else "", "password", here)
        await doors.database.write(partial(note, actor=refused, action="sign-in refused"))
        return _login(request, doors, to, status=403, name=name, wrong="the name or the password is wrong")
    doors.sign_ins.passed(name, here)
    return await enter(request, doors, Actor(name, "password", here), to)


@pages.post("/logout")
async def logout(request: Request, doors: Here, caller: SignedIn) -> Response:
    """End this session."""
    if caller.session:
        await doors.database.write(partial(leave, actor=caller.actor, digest=caller.session.digest))
    answer = RedirectResponse("/login", 303)
    cookies.forget(answer, request, doors.url)
    return answer


@pages.get("/setup")
async def show_setup(request: Request) -> Response:
    """The page behind the link of the first start; its code is in the part of the link that no server sees."""
    return page(request, "setup.html", name="", wrong="")


@pages.post("/setup")
async def set_up(request: Request, doors: Here, fields: Fields) -> Response:
    """Make the first administrator, who is then signed in."""
    name, password = fields.get("name", "").strip().lower(), fields.get("password", "")
    code = fields.get("code", "").strip()

    def make(connection: Connection, kept: str) -> None:
        if links.take(connection, code) != links.FIRST or people.administered(connection):
            raise PipeError(_USED_UP)
        administration.set_up(connection, name, kept, address(request))

    try:
        await _check_code(doors, code)
        check(password, name)
        await doors.database.write(partial(make, kept=await doors.passwords.hashed(password)))
    except PipeError as error:
        return page(request, "setup.html", status=422, name=name, wrong=str(error))
    doors.layout.setup_link.unlink(missing_ok=True)
    return await enter(request, doors, Actor(name, "link", address(request)), "/")


@pages.get("/password")
async def show_password(request: Request) -> Response:
    """The page behind a link that an administrator gave to a person."""
    return page(request, "password.html", wrong="")


@pages.post("/password")
async def choose_password(request: Request, doors: Here, fields: Fields) -> Response:
    """Take the password that a person chose, who is then signed in; their other sessions end."""
    password, code = fields.get("password", ""), fields.get("code", "").strip()

    def keep(connection: Connection, kept: str) -> str:
        person = links.take(connection, code)
        if not person:
            raise PipeError(_USED_UP)
        administration.change_password(connection, Actor(person, "link", address(request)), person, kept)
        return person

    try:
        check(password, await _check_code(doors, code))
        person = await doors.database.write(partial(keep, kept=await doors.passwords.hashed(password)))
    except PipeError as error:
        return page(request, "password.html", status=422, wrong=str(error))
    return await enter(request, doors, Actor(person, "link", address(request)), "/")


def _login(
    request: Request,
    doors: Doors,
    to: str,
    *,
    status: int = 200,
    name: str = "",
    wrong: str = "",
    nobody: bool = False,
) -> Response:
    """`nobody`: there is no administrator yet."""
    openid = doors.openid.settings.label if doors.openid else ""
    return page(request, "login.html", status=status, to=to, name=name, wrong=wrong, openid=openid, nobody=nobody)


async def _check_code(doors: Doors, code: str) -> str:
    """Whom a code is for; looked up before the dear work of hashing, which is for nobody without one."""
    person = await doors.database.read(lambda connection: links.look(connection, code))
    if person is None:
        raise PipeError(_USED_UP)
    return person


async def enter(request: Request, doors: Doors, actor: Actor, to: str) -> Response:
    """Begin a session and go on."""
    before = cookies.session_id(request, doors.url)
    id_ = await doors.database.write(partial(administration.enter, actor=actor, before=before))
    answer = RedirectResponse(_inside(to), 303)
    cookies.give(answer, request, doors.url, id_)
    return answer


def _inside(to: str) -> str:
    """A path on this server, whatever was asked for: browsers read two slashes, of either kind, as a host."""
    parts = urlsplit(to)
    good = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.scheme and to.isprintable()
    return to if good else "/"
