"""Forms of our own pages: a few short texts, URL-encoded."""

from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

__all__ = ["form"]

ENCODED = "application/x-www-form-urlencoded"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form; a request with anything else has none.

    Raises:
        HTTPException: 422, there are more than 50.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != ENCODED:
        return {}
    try:
        return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError as error:
        raise HTTPException(422, "this is no form of ours") from error
