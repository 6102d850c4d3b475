"""What pages and the API show of the database and of the folders of runs."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from runner.folder import RunFolder
from runner.server.callers import Caller
from runner.server.database import deliveries, runs
from runner.server.doors import UNKNOWN, Doors
from runner.server.fleet import Fleet
from runner.server.peers import Elsewhere
from runner.server.rights import Verb
from runner.server.shown import Delivery, Run, Which, run_of
from runner.server.users import as_run
from runner.state import RunState, fold

__all__ = [
    "as_shown",
    "deliveries_of",
    "find_here",
    "find_run",
    "folder_of",
    "heard_last",
    "run_for",
    "runs_of",
    "state_of",
    "working_folder",
]


def deliveries_of(
    connection: Connection,
    within: frozenset[str] | None,
    project: str = "",
    before: str = "",
    limit: int = 1,
    only: str = "",
) -> list[Delivery]:
    """Deliveries, the newest first, without what they carried; `within`: the projects that may be seen, None is all.

    `only`: the one with that id.
    """
    columns = [deliveries.c[name] for name in Delivery.model_fields]
    wanted = select(*columns).order_by(deliveries.c.id.desc()).limit(limit)
    wanted = wanted if within is None else wanted.where(deliveries.c.project.in_(within))
    wanted = wanted.where(deliveries.c.project == project) if project else wanted
    wanted = wanted.where(deliveries.c.id < before) if before else wanted
    wanted = wanted.where(deliveries.c.id == only) if only else wanted
    return [Delivery.model_validate(dict(row)) for row in connection.execute(wanted).mappings()]


def heard_last(connection: Connection, project: str) -> Delivery | None:
    """The newest delivery that a project's hook was sent, taken or not."""
    columns = [deliveries.c[name] for name in Delivery.model_fields]
    sent = select(*columns).where(deliveries.c.project == project, deliveries.c.forge != "poll")
    row = connection.execute(sent.order_by(deliveries.c.id.desc()).limit(1)).mappings().one_or_none()
    return Delivery.model_validate(dict(row)) if row else None


def runs_of(connection: Connection, fleet: Fleet, within: frozenset[str] | None, which: Which) -> list[Run]:
    """Runs, the newest first; `within` as above."""
    named = which.model_dump(exclude={"before", "limit"}, exclude_defaults=True)
    given = [runs.c[name] == value for name, value in named.items()]
    wanted = select(runs).where(*given).order_by(runs.c.id.desc()).limit(which.limit)
    wanted = wanted if within is None else wanted.where(runs.c.project.in_(within))
    wanted = wanted.where(runs.c.id < which.before) if which.before else wanted
    return as_shown(connection, fleet, connection.execute(wanted).mappings().all())


def as_shown(connection: Connection, fleet: Fleet, rows: Sequence[RowMapping]) -> list[Run]:
    """Runs as they are; of those on a server that is not heard of nobody knows more than that."""
    away = {row["server"] for row in rows if row["state"] == "running"} - {"", fleet.id}
    known = {each.id: each for each in fleet.members(connection)} if away else {}
    silent = {
        id_: f"not heard for {known[id_].silent:.0f} s: it is on {known[id_]}"
        for id_ in away & known.keys()
        if not known[id_].alive
    }
    return [run_of(dict(row), silent.get(row["server"], "") if row["state"] == "running" else "") for row in rows]


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

    def find(connection: Connection) -> list[Run]:
        rows = connection.execute(select(runs).where(runs.c.id == id_)).mappings().all()
        return as_shown(connection, doors.registry.fleet, rows)

    return next(iter(await doors.database.read(find)), None)


async def find_here(doors: Doors, id_: str) -> Run | None:
    """The same of a run that is followed here.

    Raises:
        Elsewhere: another server has started it meanwhile.
    """
    run = await find_run(doors, id_)
    if run:
        folder_of(doors, run)
    return run


def folder_of(doors: Doors, run: Run) -> RunFolder:
    """Where a run is read; it may not be there yet.

    Raises:
        Elsewhere: on the disk of another server.
    """
    _here(doors, run)
    return RunFolder(doors.layout.shown(run.place, run.pipeline, run.number, run.id))


def working_folder(doors: Doors, run: Run) -> RunFolder:
    """Where a run works and takes orders; it may not be there yet.

    Raises:
        Elsewhere: on the disk of another server.
    """
    _here(doors, run)
    return RunFolder(doors.layout.work(run.place, run.pipeline, run.number))


def _here(doors: Doors, run: Run) -> None:
    if run.server not in ("", doors.registry.fleet.id):
        raise Elsewhere(run.server)


def state_of(folder: RunFolder) -> RunState:
    """The fold of a run's journal; nothing of one that is gone or spoiled. Blocks."""
    try:
        with as_run(folder):
            return fold(folder.records())
    except (ValueError, OSError):
        return RunState()
