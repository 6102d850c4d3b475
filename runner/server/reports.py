"""The door by which runs report their files, each by a token of its own."""

from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from starlette.requests import ClientDisconnect

from runner.server.copies import Misplaced, Unfit, granted
from runner.server.database import runs
from runner.server.doors import UNKNOWN, Here
from runner.server.problems import PROBLEMS
from runner.server.shown import Offset

__all__ = ["reports"]

_OWN = HTTPBearer(auto_error=False, description="The token that a run was started with.", scheme_name="Run")
reports = APIRouter(prefix="/api/v1", responses=PROBLEMS)


@reports.put("/runs/{id_}/files/{name:path}", operation_id="report_file", response_model=Offset)
async def report_file(
    id_: str,
    name: str,
    request: Request,
    doors: Here,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_OWN)],
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Append to a file of a run, by the run's own token. 409: the file ends elsewhere, and where."""
    token = given.credentials if given else ""
    if not await doors.database.read(partial(granted, run=id_, token=token)):
        raise HTTPException(401, "the run's own token is needed", {"WWW-Authenticate": "Bearer"})
    where = select(runs.c.place).where(runs.c.id == id_)
    place = await doors.database.read(lambda connection: connection.execute(where).scalar_one_or_none())
    if place is None:
        raise UNKNOWN
    try:
        append = partial(doors.copies.append, doors.layout.copy(place, id_), name, offset, await request.body())
        return JSONResponse({"offset": await anyio.to_thread.run_sync(append)})
    except Misplaced as misplaced:
        return JSONResponse({"offset": misplaced.offset}, 409)
    except Unfit as unfit:
        raise HTTPException(400, str(unfit)) from unfit
    except ClientDisconnect:
        raise HTTPException(400, "the connection broke") from None  # nobody hears it
