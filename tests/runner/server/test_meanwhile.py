"""What is done for a project while it is removed, and another one gets its name, does not reach that one."""

from dataclasses import dataclass
from functools import partial

import anyio
import pytest

from runner.server import projects
from runner.server.desk import Desk, note_refs
from runner.server.fleet import Fleet
from runner.server.layout import Layout
from runner.server.projects import Project
from runner.server.registry import Registry
from tests.runner.server.conftest import Repository
from tests.runner.server.office import Office

CRON = "name: demo\ntriggers: {cron: [{at: '0 4 * * *', zone: ZONE}]}\nstages: {s: {run: 'true'}}\n"

pytestmark = pytest.mark.network


@dataclass
class Meanwhile:
    """A project of a real repository, and the parts of a server that work it."""

    office: Office
    repository: Repository

    def __post_init__(self) -> None:
        layout = Layout(self.office.folder)
        self.registry = Registry(
            self.office.database, self.office.seal, layout, Fleet(self.office.database, layout, "")
        )
        self.desk = Desk(self.office.database, self.registry, lambda: None, 0.0)
        self.old = self.replaced()

    def replaced(self, file: str = "pipeline.yaml") -> Project:
        """The project is removed, and another one of that name is added, as `projects add` does it."""
        project = Project("shop", f"file://{self.repository.bare}", file)
        self.office.database.write_now(partial(projects.remove, name="shop"))
        made = self.office.database.write_now(partial(projects.add, seal=self.office.seal, project=project))
        refs = {"refs/heads/main": self.repository.git("rev-parse", "main")}
        self.office.database.write_now(partial(note_refs, project="shop", now=refs))
        return made


@pytest.fixture
def meanwhile(office: Office, repository: Repository) -> Meanwhile:
    return Meanwhile(office, repository)


def test_another_project_waits_for_what_its_own_file_says(meanwhile: Meanwhile) -> None:
    files = {"pipeline_yaml": CRON.replace("ZONE", "UTC"), "other_yaml": CRON.replace("ZONE", "Asia/Tokyo")}
    meanwhile.repository.commit("two files", **files)
    zones = []
    for file in ("pipeline.yaml", "other.yaml"):
        standing = anyio.run(meanwhile.desk._waits_for, meanwhile.replaced(file))
        zones += [zone for _, zone in standing.cron]
    assert zones == ["UTC", "Asia/Tokyo"]
