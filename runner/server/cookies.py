"""The cookie that says which session a browser has."""

from starlette.requests import Request
from starlette.responses import Response

from runner.server.origins import secure

__all__ = ["forget", "give", "session_id"]


def session_id(request: Request, url: str) -> str:
    """The id that the browser sends, or nothing."""
    return request.cookies.get(_name(secure=secure(request, url)), "")


def give(response: Response, request: Request, url: str, id_: str) -> None:
    """Have the browser keep an id until it is closed; no script sees it, and no request of another site carries it."""
    safe = secure(request, url)
    response.set_cookie(_name(secure=safe), id_, httponly=True, secure=safe, samesite="lax", path="/")


def forget(response: Response, request: Request, url: str) -> None:
    """Have the browser forget it."""
    safe = secure(request, url)
    response.delete_cookie(_name(secure=safe), httponly=True, secure=safe, samesite="lax", path="/")


def _name(*, secure: bool) -> str:
    # a browser takes a name with this beginning from nobody but this very host, over https
    return "__Host-pipe" if secure else "pipe"
