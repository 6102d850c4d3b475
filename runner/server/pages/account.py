"""What a person sees and changes of their own account."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from runner.server.callers import SignedIn
from runner.server.pages.rendering import page

__all__ = ["pages"]

pages = APIRouter(include_in_schema=False, default_response_class=Response)


@pages.get("/")
async def home(_: SignedIn) -> Response:
    """Where people begin."""
    return RedirectResponse("/account", 303)


@pages.get("/account")
async def show_account(request: Request, caller: SignedIn) -> Response:
    """Who is signed in, and with which roles."""
    return page(request, "account.html", caller, roles=caller.limits[-1])
