"""Starting runs as processes of their own, fairly between projects, and finding those again that outlived a server."""

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from sqlalchemy import Connection, Row, and_, select, update

from pipeline.errors import PipeError
from pipeline.untrusted import NOT_IN_FORKS
from runner.folder import RunFolder
from runner.orders import Cancel, Orders
from runner.plans import read_plan
from runner.server.children import Children
from runner.server.connections import Away
from runner.server.database import runs
from runner.server.ends import Ended, finish, tell
from runner.server.feedback import RUNNING
from runner.server.fleet import members
from runner.server.looks import until_next
from runner.server.projects import REMOVED, Project, Removed
from runner.server.registry import Registry
from runner.server.repositories import NoCommit, RepositoryError
from runner.server.users import as_run
from runner.state import fold
from runner.status import status

__all__ = ["LOST_AFTER", "Dispatcher"]

FOLLOW_EVERY = 0.5
SOON = 10.0
"""Seconds until a run that could not be started is tried again."""
LOST_AFTER = 600.0
"""Seconds without a sign of life after which the runs of another server are given up."""
LOST = "lost: "
MOST_WAITING = 4
"""Runs of one project that may wait for their turn in a group as processes; the others wait in the queue."""
MOST_REVIVALS = 3
"""How often a run whose engine died is gone on with before somebody has to look."""
REVIVE_WITHIN = 86400.0
"""Seconds in which the repository of a run whose engine died must have answered."""


class Dispatcher:
    """Gives every run that waits its turn; `wake` makes it look at once."""

    def __init__(self, registry: Registry, children: Children, slots: int, lost_after: float = LOST_AFTER) -> None:
        self._registry = registry
        self._database = registry.database
        self._server = registry.fleet.id
        self._layout = registry.layout
        self._children = children
        self._lost_after = lost_after
        self._since = time.monotonic()
        """When this server began to look, or to look again: how long others are silent counts from then."""
        self._slots = slots
        self._watched: set[str] = set()
        self._put_off = False
        self._waiting: set[str] = set()
        """Of those the ones that wait for their turn in a group: they take no place."""
        self._news = anyio.Event()
        self._turns: dict[str, int] = {}
        """Project → the turn in which a run of it was started last."""
        self.ended: Callable[[], None] = lambda: None
        """Called when a run has ended."""

    def wake(self) -> None:
        """Something has changed: look now."""
        self._news.set()

    async def work(self) -> None:
        """Start and watch runs until cancelled; those under way live on."""
        self._since = time.monotonic()
        self._watched.clear()
        self._waiting.clear()
        await self._end_given_up()
        async with anyio.create_task_group() as tasks:
            while True:
                self._news = anyio.Event()
                for row in await self._database.read(partial(_under_way, server=self._server)):
                    self._watch(row, tasks)
                for row in await self._claimed():
                    if started := await self._started(row):
                        self._watch(started, tasks)
                await self._give_up()
                soon, self._put_off = SOON if self._put_off else math.inf, False
                with anyio.move_on_after(min(soon, until_next(self._database.look_every))):
                    await self._news.wait()

    async def _claimed(self) -> "Sequence[Row[tuple[object, ...]]]":
        """The runs that were made ours, as many as there is room for."""
        free = self._slots - len(self._watched - self._waiting)
        if free <= 0 or not await self._database.read(_any_waits):
            return []
        claim = partial(_claim, server=self._server, free=free, turns=self._turns)
        claimed = await self._database.write(claim)
        for row in claimed:
            self._turns[row.project] = max(self._turns.values(), default=0) + 1
        return claimed

    async def _give_up(self) -> None:
        """End runs whose server has not been heard of for very long: nothing runs for ever.

        While the database was away nobody was heard of; those who come back have to be given the time.
        """
        if time.monotonic() - self._since < self._lost_after:
            return
        find = partial(_given_up, server=self._server, after=self._lost_after)
        for id_, ended in await self._database.read(find):
            sys.stderr.write(f"pipe: run {id_}: {ended.note}\n")
            await self._database.write(partial(finish, id_=id_, ended=ended))
            self.ended()

    async def _end_given_up(self) -> None:
        """End what others gave up while we were away: another run may have taken its place."""
        for row in await self._database.read(partial(_ours_given_up, server=self._server)):
            await anyio.to_thread.run_sync(_end, self._folder(row), row.id)

    def _watch(self, row: "Row[tuple[object, ...]]", tasks: anyio.abc.TaskGroup) -> None:
        if row.id not in self._watched:
            self._watched.add(row.id)
            tasks.start_soon(self._until_ended, row)

    # -- starting ----------------------------------------------------------------------------------

    async def _started(self, row: "Row[tuple[object, ...]]") -> "Row[tuple[object, ...]] | None":
        """Start a run that is ours, and return its row as it is then; None if it has to wait.

        One that cannot be started ends, and nothing else does.
        """
        try:
            pid = await self._begin(row)
        except Away:
            raise
        except RepositoryError:
            await self._database.write(partial(_put_back, id_=row.id))
            self._put_off = True
            return None
        except Removed:
            await self._database.write(partial(finish, id_=row.id, ended=Ended("cancelled", REMOVED)))
        except Exception as error:  # noqa: BLE001 - one run must not end the server
            ended = Ended("errored", f"it could not be started: {type(error).__name__}: {error}"[:2000])
            await self._database.write(partial(finish, id_=row.id, ended=ended))
        else:
            await self._database.write(partial(_note_start, id_=row.id, pid=pid))
        return await self._database.read(lambda c: c.execute(select(runs).where(runs.c.id == row.id)).one())

    async def _begin(self, row: "Row[tuple[object, ...]]") -> int:
        return await self._children.begin(row, await self._project(row))

    async def _project(self, row: "Row[tuple[object, ...]]") -> Project:
        """The project of a run.

        Raises:
            Removed: it is not there any more.
        """
        project = await self._registry.at(row.project, row.place)
        if project is None:
            raise Removed(row.project)
        return project

    # -- watching ----------------------------------------------------------------------------------

    async def _until_ended(self, row: "Row[tuple[object, ...]]") -> None:
        """Wait for a run's end, whoever started it."""
        run, ended = _Watched(row, self._folder(row), row.pid, row.revived), None
        while row.state != "ended" and ended is None:
            ended = await self._step(run)
            await anyio.sleep(0 if ended else FOLLOW_EVERY)
        if ended and ended is not _LEFT:
            await self._database.write(partial(finish, id_=row.id, ended=ended))
        await self._let_go(row)

    async def _let_go(self, row: "Row[tuple[object, ...]]") -> None:
        scratch = self._layout.scratch(row.place, row.id)
        await anyio.to_thread.run_sync(partial(shutil.rmtree, scratch, ignore_errors=True))
        await anyio.to_thread.run_sync(self._children.clear, row.id)
        self._watched.discard(row.id)
        self._waiting.discard(row.id)
        self.ended()
        self.wake()

    def _folder(self, row: "Row[tuple[object, ...]]") -> RunFolder:
        return RunFolder(self._layout.work(row.place, row.pipeline, row.number))

    async def _step(self, run: "_Watched") -> Ended | None:
        """Look at a run once; how it ended, if it has."""
        self._children.reap()
        copy = RunFolder(self._layout.copy(run.row.place, run.row.id))
        found = await anyio.to_thread.run_sync(_look_at_both, copy, run.folder, run.row.id, run.pid)
        if isinstance(found, Ended):
            return found
        if found != run.said:
            run.said = found
            await self._note(run.row.id, found if found.startswith(_WAITS) else "")
            if found in (_NEVER, _DIED):
                return None  # a process shows no environment while it is just becoming another program: look again
        if found is _NEVER and not run.pid:  # a server ended between claiming and starting it
            started = await self._started(run.row)
            run.pid = started.pid if started else 0
            return None if started and started.state == "running" else _LEFT
        if found is _NEVER:
            return await anyio.to_thread.run_sync(self._last_words, run.row)
        return await self._revive(run) if found is _DIED else None

    async def _note(self, id_: str, wait: str) -> None:
        """Show whom a run waits for; it takes no place meanwhile."""
        (self._waiting.add if wait else self._waiting.discard)(id_)
        await self._database.write(partial(_note_wait, id_=id_, note=wait))
        self.wake()

    async def _revive(self, run: "_Watched") -> Ended | None:
        """Go on with a run whose engine died, a few times."""
        again = f"`pipe resume {run.folder.path}` goes on with it"
        if run.revived == MOST_REVIVALS:
            return Ended("errored", f"its engine died {run.revived + 1} times; {again}")
        try:
            run.pid = await self._children.go_on(run.row, await self._project(run.row), run.folder.path)
        except RepositoryError as error:
            return await self._revive_later(run, error)
        except NoCommit as error:
            return Ended("errored", f"its engine died, and {error}, so nobody knows which secrets it may have; {again}")
        except Removed:
            return Ended("errored", "its engine died, and its project is not known any more")
        except Away:
            raise
        except Exception as error:  # noqa: BLE001 - one run must not end the server
            return Ended("errored", f"it could not be gone on with: {type(error).__name__}: {error}"[:2000])
        run.revived, run.unread_since = run.revived + 1, math.inf
        await self._database.write(partial(_revived, id_=run.row.id, times=run.revived, pid=run.pid))
        await anyio.sleep(run.revived)
        return None

    async def _revive_later(self, run: "_Watched", error: RepositoryError) -> Ended | None:
        """Say why a run cannot be gone on with yet, and wait a moment; not for ever."""
        died = f"its engine died, and what it declares cannot be read: {error}"
        run.unread_since = min(run.unread_since, time.monotonic())
        if time.monotonic() - run.unread_since > REVIVE_WITHIN:
            return Ended("errored", f"{died}; `pipe resume {run.folder.path}` goes on with it")
        await self._database.write(partial(_note_wait, id_=run.row.id, note=f"{died}; tried again until it can"))
        await anyio.sleep(SOON)
        return None

    def _last_words(self, row: "Row[tuple[object, ...]]") -> Ended:
        """Why a run ended before it was one: a secret is missing, or a parameter."""
        said = self._layout.console(row.place, row.id)
        lines = said.read_text(errors="replace").strip().splitlines() if said.exists() else []
        return Ended("errored", "\n".join(lines[-20:])[:2000] or "it ended before it began, and said nothing")


@dataclass
class _Watched:
    """A run under way: its process as far as it is known, and what was seen of it last."""

    row: "Row[tuple[object, ...]]"
    folder: RunFolder
    pid: int
    revived: int
    said: str = ""
    unread_since: float = math.inf
    """Since when it cannot be gone on with because its repository does not answer."""


_LEFT = Ended("")
"""Nothing is to be said of it here: it waits again, or its end has been noted."""
_RUNS, _DIED, _NEVER, _WAITS = "runs", "died", "never began", "waits for "


def _look_at_both(copy: RunFolder, folder: RunFolder, run: str, pid: int) -> Ended | str:
    """How a run is by what it has reported, if it does; by its own folder if it does not, or died before it could."""
    if not copy.path.is_dir():
        return _look(folder, run, pid)
    found = _look(copy, run, pid)
    if found is not _NEVER:
        return found
    found = _look(folder, run, pid)
    return _DIED if isinstance(found, Ended) else found  # whoever goes on with it reports it


def _look(folder: RunFolder, run: str, pid: int) -> Ended | str:
    """How a run is, by its folder and its process; a folder with the number of the run may be another one's."""
    started = _starting(run, pid)  # before its folder: a process that is gone by now writes nothing more there
    with as_run(folder):
        try:
            ours = read_plan(folder).run.id == run
            if ours and (started or _alive(folder)):
                return _waits_for(folder) or _RUNS
            end = folder.ended() if ours else None
            if end is not None:
                state = fold(folder.records())
                note = status(folder, "", state).note or _left_out(folder)
                return Ended(end.outcome.value, note, (state.started, state.finished))
            if ours:
                fold(folder.records())
        except (PipeError, OSError):  # a run may put anything there
            return _RUNS if started else _NEVER
        except Exception as error:  # noqa: BLE001 - what is in one run's folder must not end the server
            return Ended("errored", f"its journal is spoiled: {error}"[:2000])
    return _RUNS if started else _DIED if ours else _NEVER


def _left_out(folder: RunFolder) -> str:
    """What a green run has not done because nobody vouched for its commit; empty when it has done everything."""
    left = list(dict.fromkeys(leaf.stage for leaf in read_plan(folder).leaves if leaf.withheld))
    return f"without {', '.join(left)}: {NOT_IN_FORKS}" if left else ""


def _waits_for(folder: RunFolder) -> str:
    """`waits for backend#7` while it is another run's turn in its group; empty else."""
    if read_plan(folder).concurrency is None:
        return ""
    behind = fold(folder.records()).queued_behind
    return f"{_WAITS}{behind}" if behind else ""


def _starting(run: str, pid: int) -> bool:
    """Whether the process that was started for a run is still there; without its pid everybody is looked at."""
    mark = f"PIPE_SERVER_RUN={run}".encode()
    places = [Path(f"/proc/{pid}")] if pid else [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    for place in places:
        with suppress(OSError):
            if mark in (place / "environ").read_bytes().split(b"\0"):
                return True
    return False


def _end(folder: RunFolder, run: str) -> None:
    """Let the engine of a run that was given up end it, if there still is one."""
    with as_run(folder), suppress(ValueError, RecursionError, PipeError, OSError):
        if _alive(folder) and read_plan(folder).run.id == run:
            Orders(folder.path).give(Cancel("the other servers: it was given up"))


def _alive(folder: RunFolder) -> bool:
    owner = folder.ownership.owner()
    return bool(owner and owner.alive())


# -- the queue -------------------------------------------------------------------------------------


def _under_way(connection: Connection, server: str) -> "Sequence[Row[tuple[object, ...]]]":
    """Ours; what ran before servers had names was this one's."""
    mine = and_(runs.c.state == "running", runs.c.server.in_((server, "")))
    return connection.execute(select(runs).where(mine)).all()


def _any_waits(connection: Connection) -> bool:
    return bool(connection.execute(select(runs.c.id).where(runs.c.state == "queued").limit(1)).first())


_ELSEWHERE = "waits for a run of its project on another server, with which it may have to take turns"


def _claim(
    connection: Connection, server: str, free: int, turns: Mapping[str, int]
) -> "Sequence[Row[tuple[object, ...]]]":
    """Make runs ours: of each project the oldest, projects with the fewest under way first.

    Of several such projects the one whose turn is longest ago; `turns` says when each had its last one.
    Runs that take turns in a group do so on one disk: while a server has some of a project, no other gets any of it.
    """
    columns = (runs.c.id, runs.c.project, runs.c.server, runs.c.grouped, runs.c.created, runs.c.note)
    there = connection.execute(select(*columns).where(runs.c.state == "running")).all()
    busy = Counter(row.project for row in there)
    turned = Counter(row.project for row in there if row.note.startswith(_WAITS))
    elsewhere = {row.project for row in there if row.grouped and row.server not in (server, "")}
    waiting: list[Row[*tuple[Any, ...]]] = []
    held: list[Row[*tuple[Any, ...]]] = []
    for row in connection.execute(select(*columns).where(runs.c.state == "queued").order_by(runs.c.created)):
        (held if row.grouped and row.project in elsewhere else waiting).append(row)
    chosen: list[str] = []
    while waiting and len(chosen) < free:
        row = min(waiting, key=lambda each: (busy[each.project], turns.get(each.project, 0), each.created))
        waiting.remove(row)
        if row.grouped and turned[row.project] >= MOST_WAITING:
            continue
        turned[row.project] += row.grouped
        busy[row.project] += 1
        chosen.append(row.id)
    if held:
        ids = runs.c.id.in_([row.id for row in held])
        connection.execute(update(runs).where(ids, runs.c.note == "").values(note=_ELSEWHERE))
    mine = and_(runs.c.id.in_(chosen), runs.c.state == "queued")
    locked = connection.execute(select(runs).where(mine).with_for_update(skip_locked=True)).all()
    values = {"state": "running", "server": server, "started": time.time(), "note": ""}
    connection.execute(update(runs).where(runs.c.id.in_([row.id for row in locked])).values(values))
    return sorted(locked, key=lambda row: chosen.index(row.id))


def _put_back(connection: Connection, id_: str) -> None:
    """Let a run wait that could not be started yet."""
    there = and_(runs.c.id == id_, runs.c.state == "running")
    connection.execute(update(runs).where(there).values(state="queued", server="", started=0.0))


def _note_start(connection: Connection, id_: str, pid: int) -> None:
    connection.execute(update(runs).where(runs.c.id == id_, runs.c.state == "running").values(pid=pid))
    tell(connection, id_, "pending", RUNNING)


def _given_up(connection: Connection, server: str, after: float) -> list[tuple[str, Ended]]:
    """Runs of servers that have not been heard of for so long, and what is to be said of them."""
    theirs = select(runs.c.id, runs.c.server).where(runs.c.state == "running", runs.c.server.not_in((server, "")))
    rows = connection.execute(theirs).all()
    silent = {each.id: each for each in members(connection) if each.silent > after} if rows else {}
    said = {id_: f"{LOST}{each} has not been heard of for {each.silent:.0f} s (infra)" for id_, each in silent.items()}
    return [(row.id, Ended("errored", said[row.server])) for row in rows if row.server in said]


def _ours_given_up(connection: Connection, server: str) -> "Sequence[Row[tuple[object, ...]]]":
    mine = and_(runs.c.server == server, runs.c.state == "ended", runs.c.outcome == "errored")
    return connection.execute(select(runs).where(mine, runs.c.note.startswith(LOST))).all()


def _note_wait(connection: Connection, id_: str, note: str) -> None:
    connection.execute(update(runs).where(runs.c.id == id_, runs.c.state == "running").values(note=note))


def _revived(connection: Connection, id_: str, times: int, pid: int) -> None:
    connection.execute(update(runs).where(runs.c.id == id_).values(revived=times, pid=pid))
