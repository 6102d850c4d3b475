"""What is said when a request cannot be answered: problem details (RFC 9457), the same for every error."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

__all__ = ["MEDIA_TYPE", "PROBLEMS", "Described", "refusal"]

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was not answered."""

    type: str = "about:blank"
    title: str
    """The name of the status."""
    status: int
    detail: str
    """What is wrong, in words for people."""


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "There is no token, or none that is known."},
    403: {"model": Problem, "description": "The role of the caller does not allow it."},
    404: {"model": Problem, "description": "There is no such thing, or not for you."},
    422: {"model": Problem, "description": "The request is not as it should be; everything that is wrong is named."},
    429: {"model": Problem, "description": "That was too often; `Retry-After` says when to ask again."},
}
"""What every call of the API may answer."""


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for an error."""
    said = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(said.model_dump(), status, headers, media_type=MEDIA_TYPE)


class Described(FastAPI):
    """An application whose errors are problems, and whose description says so."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.add_exception_handler(RequestValidationError, _misunderstood)

    def openapi(self) -> dict[str, Any]:
        """The description; an error is a problem, whatever a call answers else."""
        if not self.openapi_schema:
            for answers in _answers(super().openapi()["paths"].values()):
                for status, answer in answers.items():
                    if status.startswith(("4", "5")):
                        answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        return super().openapi()


def _answers(paths: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    return (call["responses"] for path in paths for call in path.values())


async def _misunderstood(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it was registered for
    said = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return refusal(422, "; ".join(said))
