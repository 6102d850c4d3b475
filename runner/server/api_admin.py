"""The API about people, tokens, projects and the audit log."""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query
from sqlalchemy import Connection

from pipeline.errors import PipeError
from runner.server import administration, audit, people, secrets, tokens
from runner.server.callers import Caller, SignedIn, signed_in
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.problems import PROBLEMS
from runner.server.projects import Project
from runner.server.rights import Grant, Verb
from runner.server.secrets import Known
from runner.server.shown import (
    ApiToken,
    AuditLine,
    Hook,
    Invitation,
    Me,
    NewPerson,
    NewProject,
    NewSecret,
    NewToken,
    Person,
    Role,
    Roles,
    TokenText,
)

__all__ = ["api"]

T = TypeVar("T")

api = APIRouter(prefix="/api/v1", dependencies=[Depends(signed_in)], responses=PROBLEMS)


@api.get("/me", operation_id="get_me")
async def get_me(caller: SignedIn) -> Me:
    """Who calls."""
    return Me(name=caller.name, by=caller.by, roles=[_role(grant) for grant in caller.limits[0]])


@api.get("/people", operation_id="list_people")
async def list_people(doors: Here, caller: SignedIn) -> list[Person]:
    """Everybody, by name."""
    caller.need(Verb.MANAGE_PEOPLE)
    return [_shown(person) for person in await doors.database.read(people.known)]


@api.post("/people", status_code=201, operation_id="add_person")
async def add_person(new: NewPerson, doors: Here, caller: SignedIn) -> Invitation:
    """Add a person. 422: the name is none or taken, or there is no such role."""
    caller.need(Verb.MANAGE_PEOPLE)
    granted = _given(caller, new.roles)
    code = await _change(doors, lambda c: administration.add_person(c, caller.actor, new.name, granted))
    return _invitation(doors, new.name, code)


@api.post("/people/{name}/link", status_code=201, operation_id="invite_person")
async def invite_person(name: str, doors: Here, caller: SignedIn) -> Invitation:
    """Make a new link for a person who cannot sign in; the password that they have stays until they use it."""
    caller.need(Verb.MANAGE_PEOPLE)
    code = await _change(doors, lambda c: administration.invite(c, caller.actor, name))
    return _invitation(doors, name, code)


@api.put("/people/{name}/roles", status_code=204, operation_id="set_roles")
async def set_roles(name: str, roles: Roles, doors: Here, caller: SignedIn) -> None:
    """Give a person these roles and no others. 422: the last administrator stays one."""
    caller.need(Verb.MANAGE_PEOPLE)
    granted = _given(caller, roles.roles)
    await _change(doors, lambda c: administration.change_roles(c, caller.actor, name, granted))


@api.delete("/people/{name}", status_code=204, operation_id="remove_person")
async def remove_person(name: str, doors: Here, caller: SignedIn) -> None:
    """Forget a person; their sessions and tokens end at once. 422: the last administrator stays."""
    caller.need(Verb.MANAGE_PEOPLE)
    await _change(doors, lambda c: administration.remove_person(c, caller.actor, name))


@api.get("/tokens", operation_id="list_tokens")
async def list_tokens(doors: Here, caller: SignedIn) -> list[ApiToken]:
    """Tokens, the newest first: one's own, and everybody's for who manages tokens."""
    whose = None if caller.may(Verb.MANAGE_TOKENS) else caller.name
    return [
        ApiToken(
            id=token.id,
            name=token.name,
            person=token.person,
            role=_role(token.grant),
            created=token.created,
            expires=token.expires,
            used=token.used,
        )
        for token in await doors.database.read(partial(tokens.known, person=whose))
    ]


@api.post("/tokens", status_code=201, operation_id="make_token")
async def make_token(new: NewToken, doors: Here, caller: SignedIn) -> TokenText:
    """Make a token. A token itself makes another one only when it may manage tokens."""
    if new.program or caller.token:
        caller.need(Verb.MANAGE_TOKENS)
    (grant,) = _given(caller, [new.role])
    person = "" if new.program or (caller.token and not caller.token.person) else caller.name
    expires = time.time() + new.days * 86400 if new.days else 0.0
    made = await _change(
        doors, lambda c: administration.make_token(c, caller.actor, new.name, person, grant, expires=expires)
    )
    return TokenText(token=made)


@api.delete("/tokens/{id_}", status_code=204, operation_id="revoke_token")
async def revoke_token(id_: str, doors: Here, caller: SignedIn) -> None:
    """Revoke a token, one's own or, for who manages tokens, any."""
    whose = None if caller.may(Verb.MANAGE_TOKENS) else caller.name
    if id_ not in {token.id for token in await doors.database.read(partial(tokens.known, person=whose))}:
        raise UNKNOWN
    await _change(doors, lambda c: administration.revoke_token(c, caller.actor, id_))


@api.post("/projects", status_code=201, operation_id="add_project")
async def add_project(new: NewProject, doors: Here, caller: SignedIn) -> Hook:
    """Add a repository. 422: what is wrong with it, all at once, or there is one of that name."""
    caller.need(Verb.MANAGE_PROJECTS)
    project = Project(**new.model_dump())
    made = await _change(doors, lambda c: administration.add_project(c, caller.actor, doors.registry.seal, project))
    return Hook(project=made.name, url=f"{doors.url}/hooks/{made.name}", secret=made.secret)


@api.delete("/projects/{project}", status_code=204, operation_id="remove_project")
async def remove_project(project: str, doors: Here, caller: SignedIn) -> None:
    """Forget a repository; its runs stay on disk."""
    caller.need(Verb.MANAGE_PROJECTS, project)
    if not await doors.database.write(lambda c: administration.remove_project(c, caller.actor, project)):
        raise UNKNOWN


@api.get("/projects/{project}/secrets", operation_id="list_secrets")
async def list_secrets(project: str, doors: Here, caller: SignedIn) -> list[Known]:
    """The secrets of a project: their names and kinds, never what they are."""
    await _managed(doors, project, caller)
    return await doors.database.read(partial(secrets.known, project=project))


@api.put("/projects/{project}/secrets/{name}", status_code=204, operation_id="set_secret")
async def set_secret(project: str, name: str, given: NewSecret, doors: Here, caller: SignedIn) -> None:
    """Keep a secret, in the place of the former one. 422: what is wrong with it."""
    await _managed(doors, project, caller)

    def keep(connection: Connection) -> None:
        secret = secrets.secret_of(given.kind, given.content(), given.username)
        administration.set_secret(connection, caller.actor, doors.registry.seal, project, name, secret)

    await _change(doors, keep)


@api.delete("/projects/{project}/secrets/{name}", status_code=204, operation_id="remove_secret")
async def remove_secret(project: str, name: str, doors: Here, caller: SignedIn) -> None:
    """Forget a secret."""
    await _managed(doors, project, caller)
    if not await doors.database.write(lambda c: administration.remove_secret(c, caller.actor, project, name)):
        raise UNKNOWN


async def _managed(doors: Doors, project: str, caller: Caller) -> None:
    """Go on only if the caller may change the settings of a project that is there."""
    caller.need(Verb.MANAGE_PROJECTS, project)
    if await doors.registry.project(project) is None:
        raise UNKNOWN


@api.get("/audit", operation_id="list_audit")
async def list_audit(
    doors: Here,
    caller: SignedIn,
    who: str = "",
    project: str = "",
    before: int = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[AuditLine]:
    """The audit log, the newest line first; `before` is the id of the last one of the page before."""
    caller.need(Verb.AUDIT)
    found = await doors.database.read(lambda c: audit.lines(c, before, limit, who, project))
    return [AuditLine.model_validate(line, from_attributes=True) for line in found]


async def _change(doors: Doors, work: Callable[[Connection], T]) -> T:
    """Do something in a transaction; what is wrong with it is told to whoever asked for it."""
    try:
        return await doors.database.write(work)
    except PipeError as error:
        raise HTTPException(422, str(error)) from error


def _given(caller: Caller, roles: list[Role]) -> tuple[Grant, ...]:
    """Roles as grants, if the caller can do everything that they allow."""
    granted = tuple(Grant(each.role, each.scope) for each in roles)
    for grant in granted:
        if not caller.may_give(grant):
            raise HTTPException(403, f"{caller.name} may not give the role {grant}, which may do more than they may")
    return granted


def _shown(person: people.Person) -> Person:
    ways: list[str] = [way for way, there in (("password", person.password), ("openid", person.identity)) if there]
    return Person.model_validate(
        {
            "name": person.name,
            "roles": [_role(grant) for grant in person.grants],
            "signs_in": ways,
            "created": person.created,
        }
    )


def _role(grant: Grant) -> Role:
    return Role(role=grant.role, scope=grant.scope)


def _invitation(doors: Doors, name: str, code: str) -> Invitation:
    return Invitation(name=name, link=f"{doors.url}/password#{code}")
