"""The cookies of a browser: which session it has, and what it is to bring back from an OpenID provider."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from runner.server.origins import secure

__all__ = ["forget", "give", "read", "session_id"]

What = Literal["", "openid"]


def session_id(request: Request, url: str) -> str:
    """The id of the session that the browser sends, or nothing."""
    return read(request, url)


def read(request: Request, url: str, *, what: What = "") -> str:
    """What the browser keeps for us, or nothing."""
    return request.cookies.get(_name(what, safe=secure(request, url)), "")


def give(response: Response, request: Request, url: str, value: str, *, what: What = "") -> None:
    """Have the browser keep something until it is closed; no script sees it, and no request of another site has it."""
    safe = secure(request, url)
    response.set_cookie(_name(what, safe=safe), value, httponly=True, secure=safe, samesite="lax", path="/")


def forget(response: Response, request: Request, url: str, *, what: What = "") -> None:
    """Have the browser forget it."""
    safe = secure(request, url)
    response.delete_cookie(_name(what, safe=safe), httponly=True, secure=safe, samesite="lax", path="/")


def _name(what: What, *, safe: bool) -> str:
    # a browser takes a name with this beginning from nobody but this very host, over https
    return ("__Host-pipe" if safe else "pipe") + (f"-{what}" if what else "")
