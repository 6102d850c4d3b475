"""Working deliveries that were taken in, and looking for what no hook told: each project by itself, in order."""

import json
import time
from collections.abc import Callable
from functools import partial

import anyio
import anyio.abc
from sqlalchemy import Connection, Row, and_, select, update

from pipeline.plan import Trigger
from pipeline.triggers import Event
from runner.server.database import Database, deliveries, refs
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
