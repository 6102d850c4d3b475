"""What pages and the API show of the database and of the folders of runs."""

from sqlalchemy import Connection, select

from runner.folder import RunFolder
from runner.server.callers import Caller
from runner.server.database import deliveries, runs
from runner.server.doors import UNKNOWN, Doors
from runner.server.rights import Verb
from runner.server.shown import Delivery, Run, Which, run_of

__all__ = ["deliveries_of", "find_run", "folder_of", "run_for", "runs_of", "working_folder"]


def deliveries_of(
    connection: Connection, within: frozenset[str] | None, project: str, before: str, limit: int
) -> list[Delivery]:
    """Deliveries, the newest first, without what they carried; `within`: the projects that may be seen, None is all."""
    columns = [deliveries.c[name] for name in Delivery.model_fields]
    wanted = select(*columns).order_by(deliveries.c.id.desc()).limit(limit)
    wanted = wanted if within is None else wanted.where(deliveries.c.project.in_(within))
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    wanted = wanted.where(deliveries.c.id < before) if before else wanted
    return [Delivery.model_validate(dict(row)) for row in connection.execute(wanted).mappings()]


def runs_of(connection: Connection, within: frozenset[str] | None, which: Which) -> list[Run]:
    """Runs, the newest first; `within` as above."""
    named = which.model_dump(exclude={"before", "limit"}, exclude_defaults=True)
    given = [runs.c[name] == value for name, value in named.items()]
    wanted = select(runs).where(*given).order_by(runs.c.id.desc()).limit(which.limit)
    wanted = wanted if within is None else wanted.where(runs.c.project.in_(within))
    wanted = wanted.where(runs.c.id < which.before) if which.before else wanted
    return [run_of(dict(row)) for row in connection.execute(wanted).mappings()]


async def run_for(doors: Doors, id_: str, caller: Caller, verb: Verb = Verb.VIEW) -> Run:
    """The run of that id, with which the caller may do something.

    Raises:
        HTTPException: 404, there is none or they may not see it; 403, they may do no such thing.
    """
    found = await find_run(doors, id_)
    if found is None:
        raise UNKNOWN
    caller.need(verb, found.project)
    return found


async def find_run(doors: Doors, id_: str) -> Run | None:
    """The run of that id, whoever asks."""

    def find(connection: Connection) -> Run | None:
        row = connection.execute(select(runs).where(runs.c.id == id_)).mappings().one_or_none()
        return run_of(dict(row)) if row else None

    return await doors.database.read(find)


def folder_of(doors: Doors, run: Run) -> RunFolder:
    """Where a run is read; it may not be there yet."""
    return RunFolder(doors.layout.shown(run.project, run.pipeline, run.number, run.id))


def working_folder(doors: Doors, run: Run) -> RunFolder:
    """Where a run works and takes orders; it may not be there yet."""
    return RunFolder(doors.layout.work(run.project, run.pipeline, run.number))
