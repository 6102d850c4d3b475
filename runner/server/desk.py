"""Working deliveries that were taken in, and looking for what no hook told: each project by itself, in order."""

import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Row, and_, select, update
from ulid_transform import ulid_now

from pipeline.errors import PipeError
from pipeline.model import PipelineFile
from pipeline.plan import Trigger, slug
from pipeline.repository import same_repository
from pipeline.spec import Triggers, next_time
from pipeline.triggers import Event, repositories_followed
from runner.server.connections import Away
from runner.server.database import Database, deliveries, refs, runs, times
from runner.server.fleet import NotOurs
from runner.server.intake import Found
from runner.server.looks import until_next
from runner.server.payloads import Change, named_ref, read
from runner.server.projects import Project, Removed, while_standing
from runner.server.registry import Registry
from runner.server.repositories import RepositoryError
from runner.sinks.view import plain_text

__all__ = ["Desk", "note_refs"]

T = TypeVar("T")

PAUSE = 10.0
"""Seconds before a project is looked at again when a bug of ours ended a look."""
POLL_EVERY = 60.0
"""Seconds between two looks at the refs of a repository, whatever its hooks say."""
NOTED = ""
"""Stands for a ref in the table when a project's have been noted, be it that there were none."""
FOLLOW_WITHIN = 86400.0
"""Seconds after the end of a run in which what it starts elsewhere must have been started."""
FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES = 5.0, 600.0, 30


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a file waits for that no delivery of its own repository tells."""

    cron: Sequence[tuple[str, str]] = ()
    """Fields and zone of each time."""
    follows: Sequence[tuple[str, str]] = ()
    """Repository and pipeline of each run elsewhere whose end starts one here."""

    def waits_for(self, repo: str, pipeline: str) -> bool:
        """Whether the end of a pipeline of another repository is one of them."""
        return any(name == pipeline and same_repository(url, repo) for url, name in self.follows)


class Desk:
    """One worker for each project; `wake` makes them look at once."""

    def __init__(self, database: Database, registry: Registry, started: Callable[[], None], poll_every: float) -> None:
        self._database = database
        self._registry = registry
        self._started = started
        self._poll_every = poll_every
        self._ours: frozenset[str] = frozenset()
        """The projects that this server works; the others are some other server's."""
        self._workers: set[str] = set()
        self._standing: dict[str, tuple[str, _Standing]] = {}
        """Place of a project → commit of its main branch, and what the file there waits for by itself."""
        self._said: dict[tuple[str, str], str] = {}
        self._again: dict[str, float] = {}
        """Project and what was looked at → what went wrong there last."""
        self._news = anyio.Event()

    def wake(self) -> None:
        """Something came in: look now."""
        self._news.set()
        self._news = anyio.Event()

    async def work(self) -> None:
        """Work until cancelled."""
        self._workers.clear()
        async with anyio.create_task_group() as tasks:
            while True:
                news = self._news
                self._ours = frozenset(await self._registry.fleet.projects())
                for name in self._ours:
                    if name not in self._workers:
                        self._workers.add(name)
                        tasks.start_soon(self._work_for, name)
                with anyio.move_on_after(until_next(self._database.look_every)):
                    await news.wait()

    async def _work_for(self, name: str) -> None:
        polls_at = time.monotonic() + 5 if self._poll_every else math.inf
        while name in self._ours and (project := await self._registry.project(name)):
            news = self._news
            if self._again.get(name, math.inf) <= time.time():
                del self._again[name]
            await self._unharmed("what came in", self._work_off, project)
            await self._unharmed("its clock", self._look_at_clock, project)
            if time.monotonic() >= polls_at:
                polls_at = time.monotonic() + self._poll_every
                await self._unharmed("its refs", self._poll, project)
            again = self._again.get(name, math.inf) - time.time()
            due = min(until_next(self._database.look_every), polls_at - time.monotonic(), again)
            with anyio.move_on_after(max(0.0, due)):
                await news.wait()
        self._workers.discard(name)

    async def _work_off(self, project: Project) -> None:
        """Everything that waits: deliveries, then what the ends of runs start."""
        while row := await self._read(project, partial(_due, project=project.name, now=time.time())):
            await self._deliver(project, row)
        while row := await self._read(project, partial(_unfollowed, project=project.name, now=time.time())):
            await self._follow(project, row)

    async def _unharmed(self, what: str, look: Callable[[Project], Awaitable[None]], project: Project) -> None:
        """Look at something of a project; whatever is wrong there is told and stops nothing else."""
        try:
            await look(project)
        except Away:
            raise
        except Removed as removed:
            self._registry.forget(removed.name)
            self.wake()  # another one may have its name, and something to do
        except (RepositoryError, PipeError) as error:
            self._say_once(project.name, what, str(error))  # looked at again in a moment
        except Exception as error:  # noqa: BLE001 - a stranger's repository must not end the server
            self._say_once(project.name, what, f"{type(error).__name__}: {error}")
            await anyio.sleep(PAUSE)
        else:
            self._said.pop((project.name, what), None)

    async def _read(self, project: Project, look: Callable[[Connection], T]) -> T:
        """Look at what there is of a project.

        Raises:
            Removed: it is not there any more.
        """
        return await self._database.read(while_standing(project, look))

    async def _write(self, project: Project, work: Callable[[Connection], T]) -> T:
        """Note something of a project. Raises as `_read` does."""
        return await self._database.write(while_standing(project, work))

    def _say_once(self, project: str, what: str, line: str) -> None:
        """Tell the operator what is wrong, once while it stays the same."""
        if self._said.get((project, what)) != line:
            self._said[project, what] = line
            _say(f"{project}: {what}: {line}")

    def _try_again(self, project: Project, due: float) -> float:
        self._again[project.name] = min(due, self._again.get(project.name, math.inf))
        return due

    async def _deliver(self, project: Project, row: "Row[tuple[object, ...]]") -> None:
        """Work one delivery; what cannot be done now is tried again later, and then said to have failed."""
        intake = self._registry.intake(project)
        lines: list[str] = []
        state, tries, due = "done", row.tries + 1, 0.0
        try:
            told = await anyio.to_thread.run_sync(read, row.forge, json.loads(row.headers), row.body)
            lines += [told.ignored] if told.ignored else []
            await self._note_first(project)
            for change in told.changes:
                lines += await intake.take(change, Found("hook", row.id))
        except RepositoryError as error:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**row.tries)
            state, due = ("new", time.time() + pause) if tries < MOST_TRIES else ("failed", 0.0)
            self._try_again(project, due)
            lines = [str(error) + (f"; tried again in {pause:.0f} s" if state == "new" else "; given up")]
        except (Away, NotOurs, Removed):
            raise
        except Exception as error:  # noqa: BLE001 - what a stranger sends must not end the server
            state, lines = "failed", [f"BUG in pipe: {type(error).__name__}: {error}; please report it"]
        note = "\n".join(lines)[:4000].encode("utf-8", "backslashreplace").decode()
        values = {"state": state, "tries": tries, "due": due, "note": note}
        done = update(deliveries).where(deliveries.c.id == row.id).values(values)
        await self._write(project, lambda connection: connection.execute(done))
        _say(f"{project.name}: {row.id}: {note}")
        self._started()

    async def _follow(self, project: Project, row: "Row[tuple[object, ...]]") -> None:
        """Start what waits for the end of a run: the `pipeline:` triggers of its own project and of those it lets."""
        values: dict[str, object] = {"followed": True}
        try:
            if Trigger.model_validate_json(row.trigger).trusted:  # what a stranger brought about starts nothing more
                await self._start_followers(project, row)
        except RepositoryError as error:
            waited = time.time() - row.ended
            if waited < FOLLOW_WITHIN:
                values = {"follow_at": self._try_again(project, time.time() + max(FIRST_PAUSE * 4, waited / 2))}
            self._say_once(project.name, "what follows its runs", str(error))
        except (Away, NotOurs, Removed):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            _say(f"{project.name}: after the end of {row.id}: {type(error).__name__}: {error}")
        done = update(runs).where(runs.c.id == row.id).values(values)
        await self._write(project, lambda connection: connection.execute(done))
        self._started()

    async def _start_followers(self, project: Project, row: "Row[tuple[object, ...]]") -> None:
        """Tell every project that may know of an end; one that was told already has its run, and no second one."""
        await self._registry.intake(project).take(_end_of(row, repo=project.url), Found("run"))
        failed: list[str] = []
        for name in await self._registry.names():
            other = await self._registry.project(name)
            if other is None or name == project.name:
                continue
            if not {name, "*"} & set(project.followers):
                self._hint(project, other, row.pipeline)
                continue
            try:
                await self._tell_of_end(project, other, row)
            except RepositoryError as error:
                failed.append(f"{name}: {error}")
        if failed:
            raise RepositoryError("; ".join(failed))

    def _hint(self, project: Project, other: Project, pipeline: str) -> None:
        """Say to whom waits in vain what would have to be done."""
        _, standing = self._standing.get(other.place, ("", _Standing()))
        if standing.waits_for(project.url, pipeline):
            way = f"they start nothing here until `pipe projects set {project.name} --followers {other.name}`"
            self._say_once(other.name, f"the ends of {project.name}", way)

    async def _tell_of_end(self, project: Project, other: Project, row: "Row[tuple[object, ...]]") -> None:
        """Let another project start what waits for this end, if its file says so."""
        try:
            standing = await self._waits_for(other)
        except Removed:
            raise
        except PipeError:
            return  # its file is wrong, and its own clock says so
        if standing.waits_for(project.url, row.pipeline):
            lines = await self._registry.intake(other).take(_foreign_end(project, row), Found("run"))
            _say(f"{other.name}: after {project.name}/{row.pipeline}#{row.number}: {'; '.join(lines)}")

    async def _look_at_clock(self, project: Project) -> None:
        """Start what `cron:` triggers of the main branch say; of times that nobody was there for, the last one."""
        for at, zone in (await self._waits_for(project)).cron:
            now = datetime.now(UTC)
            since = await self._read(project, partial(_looked, project=project.name, at=at, zone=zone))
            moment = _last_time(at, zone, since or now, now)
            if moment is not None:
                event = Event(Trigger(kind="cron"), cron=(at, zone))
                change = Change(event, name=f"{at} {zone} {moment.isoformat()}")
                await self._registry.intake(project).take(change, Found("clock"))
                self._started()
            if moment is not None or since is None:
                await self._write(project, partial(_note_look, project=project.name, at=at, zone=zone, now=now))

    async def _waits_for(self, project: Project) -> "_Standing":
        """What the file on the main branch waits for by itself; it is read again when the branch has moved."""
        repository = self._registry.repository(project)
        refs = await self._read(project, partial(_refs, project=project.name))
        if not any(refs.values()):
            return _Standing()  # nothing there yet; the poll sees when there is
        commit = refs.get(f"refs/heads/{await repository.main_branch()}", "")
        known, standing = self._standing.get(project.place, ("", _Standing()))
        if commit == known:
            return standing
        if not await repository.has(commit):
            await repository.bring()
        standing = _standing(await self._registry.intake(project).file(commit))
        await self._write(project, partial(_forget_times, project=project.name, cron=standing.cron))
        self._standing[project.place] = (commit, standing)
        return standing

    async def _note_first(self, project: Project) -> None:
        """What is there when a project is new starts nothing: note where its refs stand before anything else."""
        if not await self._read(project, partial(_refs, project=project.name)):
            now = await self._registry.repository(project).refs()
            await self._write(project, partial(note_refs, project=project.name, now=now))

    async def _poll(self, project: Project) -> None:
        """Compare where the refs stand with where they stood."""
        await self._note_first(project)
        now = await self._registry.repository(project).refs()
        known = await self._read(project, partial(_refs, project=project.name))
        gone = known.keys() - now.keys() - {NOTED}
        await self._write(project, partial(_note_gone, project=project.name, gone=gone))
        for ref, commit in sorted(now.items()):
            if known.get(ref) != commit:
                lines = await self._registry.intake(project).take(_moved(project, ref, commit), Found("poll"))
                _say(f"{project.name}: found {ref} at {commit[:12]}: {'; '.join(lines)}")
                await self._write(project, partial(_note_found, project=project, ref=ref, commit=commit, lines=lines))
        self._started()


def _say(line: str) -> None:
    """Tell the operator."""
    sys.stderr.write(f"pipe: {plain_text(line)}\n")


def _standing(file: PipelineFile) -> _Standing:
    specs = [pipeline.spec for pipeline in file.pipelines.values() if pipeline.spec.triggers]
    cron = dict.fromkeys((cron.at, cron.zone) for spec in specs for cron in (spec.triggers or Triggers()).cron)
    follows = dict.fromkeys(followed for spec in specs for followed in repositories_followed(spec))
    return _Standing(tuple(cron), tuple(follows))


def _end_of(row: "Row[tuple[object, ...]]", **told: str) -> Change:
    """The end of a run as an event, with the pipelines whose ends have led to it."""
    trigger = Trigger.model_validate_json(row.trigger)
    words = {"kind": "pipeline", "number": str(row.number), **told}
    event = Event(trigger.model_copy(update=words), pipeline=row.pipeline, outcome=row.outcome)
    chain = (*json.loads(row.chain), f"{row.project}/{row.pipeline}")
    return Change(event, row.ref, name=row.id, chain=chain)


def _foreign_end(project: Project, row: "Row[tuple[object, ...]]") -> Change:
    """An end as another project sees it: nothing of the commit, which that project's repository does not have."""
    nowhere = dict.fromkeys(("branch", "tag", "slug", "commit", "base", "url"), "")
    change = _end_of(
        row, repo=project.url, title=f"{project.name}/{row.pipeline}#{row.number} {row.outcome}", **nowhere
    )
    return replace(change, ref="")


def _due(connection: Connection, project: str, now: float) -> "Row[tuple[object, ...]] | None":
    mine = and_(deliveries.c.project == project, deliveries.c.state == "new", deliveries.c.due <= now)
    return connection.execute(select(deliveries).where(mine).order_by(deliveries.c.id).limit(1)).one_or_none()


def _refs(connection: Connection, project: str) -> dict[str, str]:
    found = connection.execute(select(refs.c.ref, refs.c.commit).where(refs.c.project == project))
    return {row.ref: row.commit for row in found}


def note_refs(connection: Connection, project: str, now: Mapping[str, str]) -> None:
    """Note where the refs of a new project stand: what moves from here on starts runs. What is noted already stays."""
    if _refs(connection, project):
        return
    for ref, commit in {**now, NOTED: ""}.items():
        connection.execute(refs.insert().values(project=project, ref=ref, commit=commit, moves=0))


def _note_found(connection: Connection, project: Project, ref: str, commit: str, lines: Sequence[str]) -> None:
    """What the poll found stands beside what hooks told, with what became of it."""
    id_ = ulid_now()
    row = {"id": id_, "project": project.name, "forge": "poll", "key": f"{ref} {commit} {id_}", "headers": "{}"}
    words = {"received": time.time(), "body": b"", "size": 0, "state": "done", "note": "\n".join(lines)[:4000]}
    connection.execute(deliveries.insert().values({**row, **words}))
    _stands(connection, project.name, ref, commit)


def _stands(connection: Connection, project: str, ref: str, commit: str) -> None:
    """Note where a ref stands also when nothing may be run of it, or it would be found at every look."""
    mine = and_(refs.c.project == project, refs.c.ref == ref)
    if connection.execute(select(refs.c.ref).where(mine)).one_or_none() is None:
        connection.execute(refs.insert().values(project=project, ref=ref, commit=commit, moves=0))
    else:
        connection.execute(update(refs).where(mine).values(commit=commit))


def _note_gone(connection: Connection, project: str, gone: Collection[str]) -> None:
    """A ref that was removed and comes back is new, wherever it stands then."""
    mine = and_(refs.c.project == project, refs.c.ref.in_(gone))
    connection.execute(update(refs).where(mine).values(commit=""))


def _moved(project: Project, ref: str, commit: str) -> Change:
    """What a push would have told."""
    kind, name = named_ref(ref)
    trigger = Trigger(
        kind="tag" if kind == "tag" else "push",
        repo=project.url,
        branch=name if kind == "branch" else "",
        tag=name if kind == "tag" else "",
        slug=slug(name),
        commit=commit,
    )
    return Change(Event(trigger), ref)


def _unfollowed(connection: Connection, project: str, now: float) -> "Row[tuple[object, ...]] | None":
    mine = and_(runs.c.project == project, runs.c.state == "ended", runs.c.followed.is_(False), runs.c.follow_at <= now)
    return connection.execute(select(runs).where(mine).order_by(runs.c.ended).limit(1)).one_or_none()


def _forget_times(connection: Connection, project: str, cron: Sequence[tuple[str, str]]) -> None:
    """A time that the file does not name any more begins anew when it comes back."""
    for row in connection.execute(select(times).where(times.c.project == project)).all():
        if (row.at, row.zone) not in cron:
            mine = and_(times.c.project == project, times.c.at == row.at, times.c.zone == row.zone)
            connection.execute(times.delete().where(mine))


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
