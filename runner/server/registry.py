"""The projects as the server's parts share them: each with the one copy of its repository."""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runner.server import projects
from runner.server.database import Database
from runner.server.fleet import Fleet
from runner.server.intake import Copies, Intake
from runner.server.layout import Layout
from runner.server.projects import Project
from runner.server.repositories import Repository, Strangers
from runner.server.sealing import Seal

__all__ = ["Registry"]


KNOWN_FOR = 2.0
MOST_MISSING = 1000


@dataclass
class Registry:
    """Looks projects up by name; one that was added meanwhile is found."""

    database: Database
    seal: Seal
    layout: Layout
    fleet: Fleet
    _repositories: dict[Path, Repository] = field(default_factory=dict)
    _foreign: dict[Path, Strangers] = field(default_factory=dict)
    _known: dict[str, tuple[float, Project]] = field(default_factory=dict)
    _missing: dict[str, float] = field(default_factory=dict)

    async def project(self, name: str) -> Project | None:
        """The project of that name; what was looked up less than two seconds ago is not looked up again."""
        until, known = self._known.get(name, (0.0, None))
        if time.monotonic() < until:
            return known
        found = await self.database.read(lambda connection: projects.find(connection, self.seal, name))
        if found:
            self._known[name] = time.monotonic() + KNOWN_FOR, found
        else:
            self._known.pop(name, None)
        return found

    async def at(self, name: str, place: str) -> Project | None:
        """The project of that name, if its place is that one; not another one that has got its name."""
        found = await self.project(name)
        return found if found and found.place == place else None

    def forget(self, name: str) -> None:
        """Look a project up anew next time: the one that was known has been removed."""
        self._known.pop(name, None)

    async def for_stranger(self, name: str) -> Project | None:
        """The same for who may not know whether it is there: that it is not is remembered as long as that it is.

        What no project can be called is not even remembered: a name of a stranger has any length.
        """
        if not projects.is_name(name):
            return None
        if time.monotonic() < self._missing.get(name, 0.0):
            return None
        found = await self.project(name)
        if found is None:
            if len(self._missing) >= MOST_MISSING:
                self._missing.clear()
            self._missing[name] = time.monotonic() + KNOWN_FOR
        return found

    async def names(self) -> list[str]:
        """All of them."""
        return await self.database.read(projects.known)

    def intake(self, project: Project) -> Intake:
        """What turns its events into runs."""
        copies = Copies(self.repository(project), self._strangers(project))
        hold = partial(self.fleet.hold, project=project.name)
        return Intake(self.database, project, copies, self.layout.store(project.place), hold)

    def repository(self, project: Project) -> Repository:
        """Its copy of git; the same one for everybody, so that two never fetch at once."""
        folder = self.layout.repository(project.place, project.url)
        known = self._repositories.setdefault(folder, Repository(project, folder))
        known.project = project  # its login may be another one by now
        return known

    def _strangers(self, project: Project) -> Strangers:
        folder, beside = (each(project.place, project.url) for each in (self.layout.strangers, self.layout.repository))
        known = self._foreign.setdefault(folder, Strangers(project, folder, beside))
        known.project = project
        return known
