"""Starting runs as processes of their own, fairly between projects, and finding those again that outlived a server."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
from sqlalchemy import Connection, Row, and_, select, update

from pipeline.plan import Trigger
from runner.folder import RunFolder
from runner.server.database import runs, statuses
from runner.server.layout import Layout
from runner.server.projects import Project
from runner.server.registry import Registry
from runner.state import fold

__all__ = ["Dispatcher"]

LOOK_EVERY = 0.5
MOST_REVIVALS = 3
"""How often a run whose engine died is gone on with before somebody has to look."""
_LAUNCH = [sys.executable, "-c", "from runner.launch import main; main()"]
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "JAVA_HOME",
    "DOCKER_HOST",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class _Ended:
    outcome: str
    note: str = ""


class Dispatcher:
    """Gives every run that waits its turn; `wake` makes it look at once."""

    def __init__(self, registry: Registry, layout: Layout, slots: int) -> None:
        self._registry = registry
        self._database = registry.database
        self._layout = layout
        self._slots = slots
        self._watched: set[str] = set()
        self._news = anyio.Event()
        self.ended: Callable[[], None] = lambda: None
        """Called when a run has ended."""

    def wake(self) -> None:
        """Something has changed: look now."""
        self._news.set()

    async def work(self) -> None:
        """Start and watch runs until cancelled; those under way live on."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._news = anyio.Event()
                for row in await self._database.read(_under_way):
                    self._watch(row, tasks)
                for row in await self._database.read(lambda c: _next(c, self._slots - len(self._watched))):
                    if project := await self._registry.project(row.project):
                        await self._start(row, project)
                        self._watch(row, tasks)
                with anyio.move_on_after(LOOK_EVERY * 10):
                    await self._news.wait()

    def _watch(self, row: "Row[tuple[object, ...]]", tasks: anyio.abc.TaskGroup) -> None:
        if row.id not in self._watched:
            self._watched.add(row.id)
            tasks.start_soon(self._until_ended, row)

    # -- starting ----------------------------------------------------------------------------------

    async def _start(self, row: "Row[tuple[object, ...]]", project: Project) -> None:
        """Lay the file out as it was at the event's commit, and start `pipe run` on it."""
        text = await self._registry.repository(project).text(row.commit, project.file)
        file = self._layout.file(project.name, row.commit, project.file)
        await anyio.to_thread.run_sync(_write, file, text or b"")
        given = [f"{row.pipeline}.{name}={value}" for name, value in json.loads(row.params).items()]
        params = [word for each in given for word in ("-p", each)]
        words = ["run", str(file), row.pipeline, *params, "-o", "plain"]
        pid = await anyio.to_thread.run_sync(self._launch, row, project.url, words)
        await self._database.write(lambda c: _started(c, row.id, pid))

    def _launch(self, row: "Row[tuple[object, ...]]", repo: str, words: Sequence[str]) -> int:
        """Start a process that outlives us: a session of its own, its output in a file."""
        trigger = Trigger.model_validate_json(row.trigger)
        environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environ |= {
            "PIPE_STORE": str(self._layout.store(row.project)),
            "PIPE_SERVER_RUN": row.id,
            "PIPE_SERVER_NUMBER": str(row.number),
            "PIPE_SERVER_TRIGGER": trigger.model_copy(update={"repo": repo}).model_dump_json(),
        }
        place = self._layout.place(row.project)
        place.mkdir(parents=True, exist_ok=True)
        with self._layout.console(row.project, row.id).open("ab") as console:
            child = subprocess.Popen(
                [*_LAUNCH, *words],
                cwd=place,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _CHILDREN.append(child)
        return child.pid

    # -- watching ----------------------------------------------------------------------------------

    async def _until_ended(self, row: "Row[tuple[object, ...]]") -> None:
        """Wait for a run's end, whoever started it; go on with it when its engine died."""
        folder = RunFolder(self._layout.store(row.project) / row.pipeline / str(row.number))
        revived = row.revived
        while True:
            ended = await anyio.to_thread.run_sync(self._look, row, folder)
            if ended is not None:
                break
            if await anyio.to_thread.run_sync(_dead, folder, row.id) and revived < MOST_REVIVALS:
                revived += 1
                words = ["resume", str(folder.path), "-o", "plain"]
                pid = await anyio.to_thread.run_sync(self._launch, row, "", words)
                await self._database.write(partial(_revived, id_=row.id, times=revived, pid=pid))
            await anyio.sleep(LOOK_EVERY)
        await self._database.write(partial(_finished, id_=row.id, ended=ended))
        self._watched.discard(row.id)
        self.ended()
        self.wake()

    def _look(self, row: "Row[tuple[object, ...]]", folder: RunFolder) -> _Ended | None:
        """How a run ended, None while it may still end."""
        _reap()
        if _alive(folder):
            return None
        if (end := folder.ended()) is not None:
            return _Ended(end.outcome.value)
        if folder.plan.exists() or _starting(row.id):
            return None
        # it ended before it was a run: a secret is missing, or a parameter
        said = self._layout.console(row.project, row.id)
        lines = said.read_text(errors="replace").strip().splitlines() if said.exists() else []
        return _Ended("errored", "\n".join(lines[-20:])[:2000] or "it ended before it began, and said nothing")


_CHILDREN: list["subprocess.Popen[bytes]"] = []


def _reap() -> None:
    """Take the exit codes of our own children; what became of their runs is in their folders."""
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


def _starting(run: str) -> bool:
    """Whether a process that was started for a run is still there, before it has a folder."""
    mark = f"PIPE_SERVER_RUN={run}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    return True
            except OSError:
                continue
    return False


def _alive(folder: RunFolder) -> bool:
    owner = folder.ownership.owner()
    return bool(owner and owner.alive())


def _dead(folder: RunFolder, run: str) -> bool:
    return folder.plan.exists() and not _alive(folder) and not _starting(run) and fold(folder.records()).outcome is None


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(text)
    part.replace(path)


# -- the queue -------------------------------------------------------------------------------------


def _under_way(connection: Connection) -> "Sequence[Row[tuple[object, ...]]]":
    return connection.execute(select(runs).where(runs.c.state == "running")).all()


def _next(connection: Connection, free: int) -> "Sequence[Row[tuple[object, ...]]]":
    """The runs to start: of each project the oldest, projects with the fewest under way first."""
    if free <= 0:
        return []
    busy = Counter(row.project for row in _under_way(connection))
    waiting = list(connection.execute(select(runs).where(runs.c.state == "queued").order_by(runs.c.created)))
    chosen: list[Row[tuple[object, ...]]] = []
    while waiting and len(chosen) < free:
        row = min(waiting, key=lambda each: (busy[each.project], each.created))
        waiting.remove(row)
        busy[row.project] += 1
        chosen.append(row)
    return chosen


def _started(connection: Connection, id_: str, pid: int) -> None:
    there = and_(runs.c.id == id_, runs.c.state == "queued")
    connection.execute(update(runs).where(there).values(state="running", started=time.time(), pid=pid))
    _tell(connection, id_, "pending", "is running")


def _revived(connection: Connection, id_: str, times: int, pid: int) -> None:
    connection.execute(update(runs).where(runs.c.id == id_).values(revived=times, pid=pid))


def _finished(connection: Connection, id_: str, ended: _Ended) -> None:
    values = {"state": "ended", "outcome": ended.outcome, "note": ended.note, "ended": time.time()}
    connection.execute(update(runs).where(runs.c.id == id_).values(values))
    good = ended.outcome in ("succeeded", "skipped")
    _tell(connection, id_, "success" if good else "failure", ended.outcome + (f": {ended.note}" if ended.note else ""))


def _tell(connection: Connection, id_: str, state: str, description: str) -> None:
    values = {"state": state, "description": description[:130], "told": False, "tries": 0, "due": 0.0}
    connection.execute(update(statuses).where(statuses.c.run == id_).values(values))
