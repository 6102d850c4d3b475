"""From a template to an answer: what every page has, and pages about what went wrong."""

from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from pipeline import __version__
from runner.server.callers import Caller
from runner.server.headers import PAGE
from runner.server.pages.words import FILTERS
from runner.server.rights import Verb

__all__ = ["NAVIGATION", "Entry", "Static", "load", "page", "problem"]

_HERE = Path(__file__).parent


class Entry(NamedTuple):
    """One entry of the navigation, for those who may do something with what is there in any project, or in all."""

    label: str
    path: str
    verb: Verb
    everywhere: bool = False

    def open_to(self, caller: Caller) -> bool:
        """Whether somebody finds anything there."""
        return caller.may(self.verb) if self.everywhere else caller.projects(self.verb) != frozenset()


NAVIGATION: tuple[Entry, ...] = (
    Entry("Runs", "/runs", Verb.VIEW),
    Entry("Projects", "/projects", Verb.VIEW),
    Entry("Deliveries", "/deliveries", Verb.VIEW),
    Entry("People", "/people", Verb.MANAGE_PEOPLE, everywhere=True),
    Entry("Audit", "/audit", Verb.AUDIT, everywhere=True),
)
"""What stands in the head of every page, in this order."""


class Static(StaticFiles):
    """Our own style sheets, scripts and pictures; a browser asks whether they have changed."""

    def __init__(self) -> None:
        super().__init__(directory=_HERE / "static")

    def file_response(self, *args: Any, **words: Any) -> Response:
        """A file, or that it has not changed."""
        answer = super().file_response(*args, **words)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def page(
    request: Request, template: str, caller: Caller | None = None, *, status: int = 200, **names: Any
) -> HTMLResponse:
    """A page from `templates/`; every text in it is escaped. `caller`: who is signed in, for head and forms."""
    entries = [each for each in NAVIGATION if caller and each.open_to(caller)]
    words = {"caller": caller, "entries": entries, "here": request.url.path, "version": __version__, **names}
    text = load().get_template(template).render(words)
    return HTMLResponse(text, status, {"Content-Security-Policy": PAGE})


def problem(request: Request, error: HTTPException, caller: Caller | None = None) -> HTMLResponse:
    """A page that says what went wrong and what to do about it."""
    title = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != title else "There is no page at this address."
    made = page(request, "problem.html", caller, status=error.status_code, title=title, detail=detail)
    made.headers.update(error.headers or {})
    return made


@cache
def load() -> Any:
    """Read all templates, at the start: later it would block whoever else is answered. Returns what renders them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_HERE / "templates")
    made = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    for name in made.list_templates():
        made.get_template(name)
    return made
