"""The API's part on who is told of runs, and badges for those who look by themselves."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Response

from pipeline.errors import PipeError
from runner.server import administration, targets
from runner.server.artifacts import INERT
from runner.server.badges import badge_of
from runner.server.callers import Anybody, Caller, SignedIn
from runner.server.courier import send
from runner.server.doors import UNKNOWN, Doors, Here
from runner.server.messages import try_out
from runner.server.problems import PROBLEMS
from runner.server.rights import Verb
from runner.server.shown import NewTarget, Target, TargetTried

__all__ = ["badges", "telling"]

telling = APIRouter(prefix="/api/v1/projects/{project}/targets", responses=PROBLEMS)
badges = APIRouter(prefix="/badges", include_in_schema=False)


@telling.get("", operation_id="list_targets")
async def list_targets(project: str, doors: Here, caller: SignedIn) -> list[Target]:
    """Whom a project tells of its runs, and how the messages are."""
    await _allowed(doors, caller, Verb.VIEW, project)
    found = await doors.database.read(partial(targets.standings, project=project))
    return [_shown(each) for each in found]


@telling.post("", status_code=201, operation_id="add_target")
async def add_target(project: str, new: NewTarget, doors: Here, caller: SignedIn) -> Target:
    """Tell somebody more. 422: what is wrong with it. Its URL is a secret that nobody is shown again."""
    await _allowed(doors, caller, Verb.MANAGE_PROJECTS, project)
    url = new.url.get_secret_value().strip()
    try:
        target = targets.Standing(new.name, await targets.check(new.name, url, new.events), tuple(new.events))
        keep = partial(administration.add_target, actor=caller.actor, seal=doors.registry.seal)
        await doors.database.write(partial(keep, project=project, url=url, target=target))
    except PipeError as error:
        raise HTTPException(422, str(error)) from error
    return _shown(target)


@telling.delete("/{name}", status_code=204, operation_id="remove_target")
async def remove_target(project: str, name: str, doors: Here, caller: SignedIn) -> None:
    """Tell somebody nothing any more, also what was still to be told."""
    await _allowed(doors, caller, Verb.MANAGE_PROJECTS, project)
    forget = partial(administration.remove_target, actor=caller.actor, project=project, name=name)
    if not await doors.database.write(forget):
        raise UNKNOWN


@telling.post("/{name}/test", operation_id="try_target")
async def try_target(project: str, name: str, doors: Here, caller: SignedIn) -> TargetTried:
    """Send a message that says only that it has come, and wait until it was taken or not."""
    await _allowed(doors, caller, Verb.MANAGE_PROJECTS, project)
    url = await doors.database.read(partial(targets.url_of, seal=doors.registry.seal, project=project, name=name))
    if url is None:
        raise UNKNOWN
    note = await send(url, try_out(project, name))
    return TargetTried(taken=not note, note=note)


@badges.get("/{project}/{pipeline}.svg")
async def badge(
    project: str,
    pipeline: str,
    doors: Here,
    caller: Anybody,
    branch: str = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """How the newest run of a pipeline is, on a branch or on any; whoever shows it has to ask each time."""
    found = await doors.registry.for_stranger(project)
    if found is None or not (found.public_badge or (caller and caller.may(Verb.VIEW, project))):
        raise UNKNOWN
    ref = f"refs/heads/{branch}" if branch else ""
    made = await doors.database.read(partial(badge_of, project=project, pipeline=pipeline, ref=ref))
    headers = {**INERT, "Cache-Control": "no-cache", "ETag": made.tag}
    if found.public_badge:
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # it stands in pages of others
    if made.tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(made.svg, media_type="image/svg+xml", headers=headers)


async def _allowed(doors: Doors, caller: Caller, verb: Verb, project: str) -> None:
    caller.need(verb, project)
    if await doors.registry.project(project) is None:
        raise UNKNOWN


def _shown(target: targets.Standing) -> Target:
    return Target(**{name: getattr(target, name) for name in Target.model_fields})
