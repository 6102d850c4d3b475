"""The server's database and the parts that work it, without the server: what they do is seen at once."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio.from_thread import start_blocking_portal
from sqlalchemy import insert, select, update

from pipeline.plan import Trigger
from runner.server import targets
from runner.server.announcements import announce_end
from runner.server.database import Database, notifications, places, projects, runs
from runner.server.fleet import Fleet
from runner.server.layout import Layout
from runner.server.notifications import Notifier
from runner.server.registry import Registry
from runner.server.sealing import Seal
from runner.server.targets import Standing


class Part(Protocol):
    """What works until it is cancelled."""

    def work(self) -> Awaitable[None]: ...

    @property
    def wake(self) -> Callable[[], None]: ...


@dataclass
class Office:
    """A server's database with one project, without the server."""

    folder: Path
    database: Database
    seal: Seal
    number: int = 0

    def project(self, name: str, url: str = "u", forge: str = "generic", token: str = "") -> None:
        sealed = dict.fromkeys(("secret", "login"), self.seal.close("")) | {"token": self.seal.close(token)}
        row = {"name": name, "place": name, "url": url, "file": "f", "forge": forge, "created": 0.0}
        self.database.write_now(lambda c: c.execute(insert(projects).values(row | sealed)))
        self.database.write_now(lambda c: c.execute(insert(places).values(place=name, project=name)))

    def target(self, name: str, url: str, *on: str) -> None:
        target = Standing(name, "Test", on)
        self.database.write_now(lambda c: targets.add(c, self.seal, "shop", url, target))

    def ended(self, outcome: str, *, ref: str = "refs/heads/main", note: str = "", number: int = 0) -> str:
        """A run that ends now, with the messages that its end causes; its id."""
        id_ = self.begun(ref=ref, note=note, number=number)
        self.end(id_, outcome)
        return id_

    def begun(self, *, ref: str = "refs/heads/main", note: str = "", number: int = 0) -> str:
        self.number = max(self.number + 1, number)
        id_ = f"run{self.number:03}"
        trigger = Trigger(kind="push", commit="c" * 40, author="Ann")
        row = {
            "id": id_, "project": "shop", "place": "shop", "pipeline": "backend", "number": number or self.number, "event": id_,
            "found_by": "hook", "ref": ref, "commit": "c" * 40, "file_commit": "c" * 40, "trigger": trigger.model_dump_json(), "params": "{}",
            "state": "running", "note": note, "created": 1.0, "started": 10.0,
        }  # fmt: skip
        self.database.write_now(lambda c: c.execute(insert(runs).values(row)))
        return id_

    def end(self, id_: str, outcome: str) -> None:
        values = {"state": "ended", "outcome": outcome, "ended": time.time()}
        self.database.write_now(lambda c: c.execute(update(runs).where(runs.c.id == id_).values(values)))
        self.database.write_now(lambda c: announce_end(c, id_))

    def written(self) -> list[tuple[str, str, str]]:
        columns = (notifications.c.run, notifications.c.event, notifications.c.target)
        wanted = select(*columns).order_by(notifications.c.run, notifications.c.target)
        return [(row.run, row.event, row.target) for row in self.database.read_now(lambda c: c.execute(wanted).all())]

    def standing(self, name: str) -> Standing:
        found = self.database.read_now(lambda c: targets.standings(c, "shop"))
        return next(each for each in found if each.name == name)

    def hurry(self) -> None:
        """Let pauses be over."""
        self.database.write_now(lambda c: c.execute(update(notifications).values(due=0.0)))

    def registry(self) -> Registry:
        layout = Layout(self.folder)
        return Registry(self.database, self.seal, layout, Fleet(self.database, layout, ""))

    @contextmanager
    def working(self, make: Callable[[Registry], Part]) -> Iterator[Callable[[], object]]:
        """A part of the server, in a thread of its own; what is yielded wakes it."""
        with start_blocking_portal() as portal:
            part = make(self.registry())
            work = portal.start_task_soon(part.work)
            try:
                yield lambda: portal.call(part.wake)
            finally:
                work.cancel()

    def telling(self) -> AbstractContextManager[Callable[[], object]]:
        """The part that works messages."""
        return self.working(lambda registry: Notifier(registry, "https://ci.example"))
