"""Who calls: by the token of a program or the session of a browser; and what they may do."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection

from runner.server import people, sessions, tokens
from runner.server.audit import Actor
from runner.server.cookies import session_id
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.forms import form
from runner.server.origins import address, elsewhere
from runner.server.rights import Grant, Verb, may, reach, within
from runner.server.sessions import Session
from runner.server.throttle import too_many
from runner.server.tokens import Token

__all__ = ["Anybody", "Caller", "SignedIn", "signed_in", "visitor"]

_BEARER = HTTPBearer(auto_error=False, description="A token that `pipe token` or a page made.")
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in: a person, or a program with a token."""

    name: str
    """A person's name; of a program's token its name behind the word `token`."""
    limits: Sequence[Sequence[Grant]]
    """What is done has to be allowed by each of them: a token's own role, and the roles of its person."""
    address: str = ""
    session: Session | None = None
    token: Token | None = None

    @property
    def by(self) -> str:
        """The way in: `session`, or which token."""
        return f"token {self.token.name}" if self.token else "session"

    @property
    def key(self) -> str:
        """What one session or token is told apart by from all others."""
        return self.token.id if self.token else self.session.digest if self.session else ""

    @property
    def csrf(self) -> str:
        """What forms and scripts of our pages send along, as field `csrf` or header `X-CSRF-Token`."""
        return self.session.csrf if self.session else ""

    @property
    def actor(self) -> Actor:
        """As the audit log names them."""
        return Actor(self.name, self.by, self.address)

    def may(self, verb: Verb, project: str = "") -> bool:
        """Whether this is allowed in a project; without one, whether it is allowed everywhere."""
        return all(may(grants, verb, project) for grants in self.limits)

    def projects(self, verb: Verb) -> frozenset[str] | None:
        """The projects in which it is allowed; None when that is every project."""
        found: frozenset[str] | None = None
        for grants in self.limits:
            some = reach(grants, verb)
            found = some if found is None else found if some is None else found & some
        return found

    def may_give(self, grant: Grant) -> bool:
        """Whether they can do everything themselves that a grant allows."""
        return all(within(grant, grants) for grants in self.limits)

    def need(self, verb: Verb, project: str = "") -> None:
        """Go on only if this is allowed.

        Raises:
            HTTPException: 403; 404 about a project that they may not even see, which may as well not exist.
        """
        if self.may(verb, project):
            return
        if project and not self.may(Verb.VIEW, project):
            raise UNKNOWN
        where = f" in {project}" if project else ""
        raise HTTPException(403, f"{self.name} may not {verb}{where}: an administrator can give a role that may")


async def anybody(
    request: Request, doors: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Caller | None:
    """Who calls, or nobody whom we know."""
    return await (_program(request, doors, given.credentials) if given else visitor(request, doors))


Anybody = Annotated[Caller | None, Depends(anybody)]


async def signed_in(request: Request, doors: Here, caller: Anybody) -> Caller:
    """Who calls.

    Raises:
        HTTPException: 401, nobody whom we know; 429, they ask too often; 403, no page of ours sent what comes with a
            browser's session.
    """
    if caller is None:
        wanted = "a token is needed: Authorization: Bearer …"
        raise HTTPException(401, wanted, {"WWW-Authenticate": "Bearer"})
    if wait := doors.calls.take(caller.key):
        raise too_many("you ask too often", wait)
    if caller.session and request.method not in _READING:
        await _own_page(request, doors, caller.session)
    return caller


SignedIn = Annotated[Caller, Depends(signed_in)]


async def visitor(request: Request, doors: Here) -> Caller | None:
    """Whoever is signed in by a browser, or nobody."""
    id_ = session_id(request, doors.url)
    caller = await doors.database.read(lambda connection: _by_session(connection, id_, request)) if id_ else None
    if caller and caller.session and caller.session.stale:
        await doors.database.write(partial(sessions.touch, digest=caller.session.digest))
    return caller


async def _program(request: Request, doors: Doors, secret: str) -> Caller | None:
    caller = await doors.database.read(lambda connection: _by_token(connection, secret, request))
    if caller and caller.token and caller.token.stale:
        await doors.database.write(partial(tokens.touch, id_=caller.token.id))
    return caller


def _by_session(connection: Connection, id_: str, request: Request) -> Caller | None:
    session = sessions.find(connection, id_)
    person = people.find(connection, session.person) if session else None
    return Caller(person.name, [person.grants], address(request), session) if person else None


def _by_token(connection: Connection, secret: str, request: Request) -> Caller | None:
    token = tokens.find(connection, secret)
    if token is None:
        return None
    if not token.person:
        return Caller(f"token {token.name}", [[token.grant]], address(request), token=token)
    person = people.find(connection, token.person)
    return Caller(person.name, [[token.grant], person.grants], address(request), token=token) if person else None


async def _own_page(request: Request, doors: Doors, session: Session) -> None:
    """Refuse what a browser sends in a person's name and one of our pages did not ask for."""
    sent = request.headers.get("x-csrf-token") or (await form(request)).get("csrf", "")
    if elsewhere(request, doors.url) or not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise HTTPException(403, "this did not come from a page of this server: open the page again and repeat it")
