"""Working deliveries that were taken in, and looking for what no hook told: each project by itself, in order."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import anyio
import anyio.abc
from sqlalchemy import Connection, Row, and_, select, update

from pipeline.errors import PipeError
from pipeline.plan import Trigger
from pipeline.spec import next_time
from pipeline.triggers import Event
from runner.server.database import Database, deliveries, refs, runs, times
from runner.server.intake import Found, Intake
from runner.server.payloads import Change, read, slug
from runner.server.projects import Project
from runner.server.registry import Registry
from runner.server.repositories import RepositoryError

__all__ = ["Desk"]

LOOK_EVERY = 5.0
POLL_EVERY = 60.0
"""Seconds between two looks at the refs of a repository, whatever its hooks say."""
FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES = 5.0, 600.0, 30


class Desk:
    """One worker for each project; `wake` makes them look at once."""

    def __init__(self, database: Database, registry: Registry, started: Callable[[], None], poll_every: float) -> None:
        self._database = database
        self._registry = registry
        self._started = started
        self._poll_every = poll_every
        self._workers: set[str] = set()
        self._crons: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        """Project → commit of its main branch and the times of its `cron:` triggers there."""
        self._news = anyio.Event()

    def wake(self) -> None:
        """Something came in: look now."""
        self._news.set()
        self._news = anyio.Event()

    async def work(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                for name in await self._registry.names():
                    if name not in self._workers:
                        self._workers.add(name)
                        tasks.start_soon(self._work_for, name)
                with anyio.move_on_after(LOOK_EVERY):
                    await self._news.wait()

    async def _work_for(self, name: str) -> None:
        polled = time.monotonic() - self._poll_every + 5
        while True:
            news = self._news
            project = await self._registry.project(name)
            if project is None:
                self._workers.discard(name)
                return
            while row := await self._database.read(partial(_due, project=name, now=time.time())):
                await self._deliver(project, row)
            while ended := await self._database.read(partial(_unfollowed, project=name)):
                await self._follow(project, ended)
            await self._look_at_clock(project)
            if time.monotonic() - polled > self._poll_every:
                polled = time.monotonic()
                await self._poll(project)
            with anyio.move_on_after(LOOK_EVERY):
                await news.wait()

    async def _deliver(self, project: Project, row: "Row[tuple[object, ...]]") -> None:
        """Work one delivery; what cannot be done now is tried again later, and then said to have failed."""
        told = read(row.forge, json.loads(row.headers), row.body)
        intake = Intake(self._database, project, self._registry.repository(project))
        lines = [told.ignored] if told.ignored else []
        state, tries, due = "done", row.tries + 1, 0.0
        try:
            await self._note_first(project)
            for change in told.changes:
                lines += await intake.take(change, Found("hook", row.id))
        except RepositoryError as error:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**row.tries)
            state, due = ("new", time.time() + pause) if tries < MOST_TRIES else ("failed", 0.0)
            lines = [str(error) + (f"; tried again in {pause:.0f} s" if state == "new" else "; given up")]
        values = {"state": state, "tries": tries, "due": due, "note": "\n".join(lines)[:4000]}
        done = update(deliveries).where(deliveries.c.id == row.id).values(values)
        await self._database.write(lambda connection: connection.execute(done))
        self._started()

    async def _follow(self, project: Project, row: "Row[tuple[object, ...]]") -> None:
        """Start what waits for the end of a run: the `pipeline:` triggers of its own project."""
        trigger = Trigger.model_validate_json(row.trigger).model_copy(update={"kind": "pipeline"})
        event = Event(trigger, pipeline=row.pipeline, outcome=row.outcome)
        intake = Intake(self._database, project, self._registry.repository(project))
        try:
            await intake.take(Change(event, row.ref, name=row.id), Found("run"))
        except RepositoryError:
            return
        done = update(runs).where(runs.c.id == row.id).values(followed=True)
        await self._database.write(lambda connection: connection.execute(done))
        self._started()

    async def _look_at_clock(self, project: Project) -> None:
        """Start what `cron:` triggers of the main branch say; of times that nobody was there for, the last one."""
        repository = self._registry.repository(project)
        intake = Intake(self._database, project, repository)
        try:
            for at, zone in await self._cron(project):
                now = datetime.now(UTC)
                since = await self._database.read(partial(_looked, project=project.name, at=at, zone=zone))
                moment = _last_time(at, zone, since or now, now)
                if moment is not None:
                    change = Change(
                        Event(Trigger(kind="cron"), cron=(at, zone)), name=f"{at} {zone} {moment.isoformat()}"
                    )
                    await intake.take(change, Found("clock"))
                    self._started()
                if moment is not None or since is None:
                    await self._database.write(partial(_note_look, project=project.name, at=at, zone=zone, now=now))
        except (RepositoryError, PipeError):
            return  # looked at again in a moment

    async def _cron(self, project: Project) -> list[tuple[str, str]]:
        """Every time that the file on the main branch names; it is read again when the branch has moved."""
        repository = self._registry.repository(project)
        ref = f"refs/heads/{await repository.main_branch()}"
        commit = (await self._database.read(partial(_refs, project=project.name))).get(ref, "")
        known, times = self._crons.get(project.name, ("", []))
        if commit == known:
            return times
        if not await repository.has(commit):
            await repository.bring()
        file = await Intake(self._database, project, repository).file(commit)
        triggers = [pipeline.spec.triggers for pipeline in file.pipelines.values() if pipeline.spec.triggers]
        times = list(dict.fromkeys((cron.at, cron.zone) for each in triggers for cron in each.cron))
        self._crons[project.name] = (commit, times)
        return times

    async def _note_first(self, project: Project) -> None:
        """What is there when a project is new starts nothing: note where its refs stand before anything else."""
        if not await self._database.read(partial(_refs, project=project.name)):
            now = await self._registry.repository(project).refs()
            await self._database.write(partial(_note, project=project.name, now=now))

    async def _poll(self, project: Project) -> None:
        """Compare where the refs stand with where they stood."""
        repository = self._registry.repository(project)
        try:
            await self._note_first(project)
            now = await repository.refs()
            known = await self._database.read(partial(_refs, project=project.name))
            intake = Intake(self._database, project, repository)
            for ref, commit in sorted(now.items()):
                if known.get(ref) != commit:
                    await intake.take(_moved(project, ref, known.get(ref, ""), commit), Found("poll"))
        except RepositoryError:
            return  # the next look is in a minute; hooks go on
        self._started()


def _due(connection: Connection, project: str, now: float) -> "Row[tuple[object, ...]] | None":
    mine = and_(deliveries.c.project == project, deliveries.c.state == "new", deliveries.c.due <= now)
    return connection.execute(select(deliveries).where(mine).order_by(deliveries.c.id).limit(1)).one_or_none()


def _refs(connection: Connection, project: str) -> dict[str, str]:
    found = connection.execute(select(refs.c.ref, refs.c.commit).where(refs.c.project == project))
    return {row.ref: row.commit for row in found}


def _note(connection: Connection, project: str, now: dict[str, str]) -> None:
    for ref, commit in now.items():
        connection.execute(refs.insert().values(project=project, ref=ref, commit=commit, moves=0))


def _moved(project: Project, ref: str, before: str, commit: str) -> Change:
    """What a push would have told."""
    tag = ref.startswith("refs/tags/")
    name = ref.split("/", 2)[2]
    trigger = Trigger(
        kind="tag" if tag else "push",
        repo=project.url,
        branch="" if tag else name,
        tag=name if tag else "",
        slug=slug(name),
        commit=commit,
    )
    return Change(Event(trigger), ref, before)


def _unfollowed(connection: Connection, project: str) -> "Row[tuple[object, ...]] | None":
    mine = and_(runs.c.project == project, runs.c.state == "ended", runs.c.followed.is_(False))
    return connection.execute(select(runs).where(mine).order_by(runs.c.ended).limit(1)).one_or_none()


def _looked(connection: Connection, project: str, at: str, zone: str) -> datetime | None:
    """Up to when the times of a trigger have been taken care of; None when it is new."""
    mine = and_(times.c.project == project, times.c.at == at, times.c.zone == zone)
    looked = connection.execute(select(times.c.looked).where(mine)).scalar_one_or_none()
    return None if looked is None else datetime.fromtimestamp(looked, UTC)


def _note_look(connection: Connection, project: str, at: str, zone: str, now: datetime) -> None:
    mine = and_(times.c.project == project, times.c.at == at, times.c.zone == zone)
    if not connection.execute(update(times).where(mine).values(looked=now.timestamp())).rowcount:
        connection.execute(times.insert().values(project=project, at=at, zone=zone, looked=now.timestamp()))


def _last_time(at: str, zone: str, since: datetime, now: datetime) -> datetime | None:
    """The last moment between two at which the time of a trigger came; None if it did not."""
    found = None
    while (moment := next_time(at, zone, found or since)) <= now:
        found = moment
    return found
