"""The server's copies of repositories: what is said when a host has not got what is asked for, or is not there."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import anyio
import pytest

from runner.server import repositories
from runner.server.projects import Project
from runner.server.repositories import NoCommit, RepositoryError
from sandbox.git_host import USER, Handler, serve
from tests.runner.server.conftest import Repository

NOWHERE = "1" * 40

pytestmark = pytest.mark.network


class Old(Handler):
    """A host that speaks the first protocol alone."""

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"GIT_PROTOCOL": ""}


@pytest.fixture(params=["file", "http", "old"])
def copy(tmp_path: Path, repository: Repository, request: pytest.FixtureRequest) -> Iterator[repositories.Repository]:
    """A copy of a repository that is had by one way or another."""
    if request.param == "file":
        yield repositories.Repository(Project("shop", f"file://{repository.bare}"), tmp_path / "copy.git")
        return
    with serve("127.0.0.1", 0, repository.bare.parent, "secret") as host:
        if request.param == "old":
            host.RequestHandlerClass = type("Host", (Old,), {"folder": repository.bare.parent, "password": "secret"})
        thread = Thread(target=host.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{host.server_address[1]}/{repository.bare.name}"
        project = Project("shop", url, username=USER, password="secret")
        yield repositories.Repository(project, tmp_path / "copy.git")
        host.shutdown()
        thread.join()


async def test_a_host_says_that_it_has_no_such_commit(copy: repositories.Repository) -> None:
    with pytest.raises(NoCommit, match=r"shop.git has no commit 111111111111 any more"):
        await copy.bring_commit(NOWHERE)


def test_of_a_host_that_fails_nobody_says_that_it_has_lost_a_commit(
    copy: repositories.Repository, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = copy.bring

    async def then_away() -> None:
        await bring()
        await anyio.Path(repository.bare).rename(repository.bare.with_name("away"))

    monkeypatch.setattr(copy, "bring", then_away)
    with pytest.raises(RepositoryError):
        anyio.run(copy.bring_commit, NOWHERE)


@pytest.mark.parametrize(
    ("said", "no_commit"),
    [
        (f"fatal: remote error: want {NOWHERE} not valid", True),  # JGit: Gerrit, GitBucket
        ("fatal: repository 'https://git.example/shop.git/' not found", False),
        ("fatal: unable to access 'https://git.example/shop.git/': The requested URL returned error: 503", False),
        ("fatal: the remote end hung up unexpectedly", False),
    ],
)
def test_what_other_hosts_say(said: str, *, no_commit: bool) -> None:
    assert repositories._Refused("https://git.example/shop.git", 128, said).no_commit == no_commit
