"""The projects as the server's parts share them: each with the one copy of its repository."""

from dataclasses import dataclass, field

from runner.server import projects
from runner.server.database import Database
from runner.server.intake import Intake
from runner.server.layout import Layout
from runner.server.projects import Project
from runner.server.repositories import Repository
from runner.server.sealing import Seal

__all__ = ["Registry"]


@dataclass
class Registry:
    """Looks projects up by name; one that was added meanwhile is found."""

    database: Database
    seal: Seal
    layout: Layout
    _repositories: dict[str, Repository] = field(default_factory=dict)

    async def project(self, name: str) -> Project | None:
        """The project of that name."""
        return await self.database.read(lambda connection: projects.find(connection, self.seal, name))

    async def names(self) -> list[str]:
        """All of them."""
        return await self.database.read(projects.known)

    def intake(self, project: Project) -> Intake:
        """What turns its events into runs."""
        return Intake(self.database, project, self.repository(project), self.layout.store(project.name))

    def repository(self, project: Project) -> Repository:
        """Its copy of git; the same one for everybody, so that two never fetch at once."""
        return self._repositories.setdefault(project.name, Repository(project, self.layout.repository(project.name)))
