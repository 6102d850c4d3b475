"""Who calls."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select

from runner.server.database import tokens
from runner.server.doors import Here

__all__ = ["signed_in"]

_BEARER = HTTPBearer(auto_error=False, description="A token that `pipe token` made.")


async def signed_in(doors: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Let a request through that carries a token which is known."""
    digest = hashlib.sha256((given.credentials if given else "").encode()).hexdigest()
    known = select(tokens.c.digest).where(tokens.c.digest == digest)
    found = await doors.database.read(lambda connection: connection.execute(known).scalar_one_or_none())
    if found is None or not hmac.compare_digest(found, digest):
        raise HTTPException(401, "a token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
