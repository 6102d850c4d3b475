"""What is done for a project while it is removed, and another one gets its name, does not reach that one."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import insert, select
from starlette.exceptions import HTTPException

from pipeline.plan import Trigger
from pipeline.triggers import Event
from runner.server import api, feedback, inbox, notifications, projects, repositories
from runner.server.children import Children
from runner.server.database import deliveries, refs, runs, statuses, times
from runner.server.desk import Desk, note_refs
from runner.server.doors import Doors
from runner.server.intake import Found
from runner.server.payloads import Change
from runner.server.projects import Project, Removed
from runner.server.repositories import RepositoryError
from runner.server.secrets import put, secret_of
from tests.runner.server.conftest import Repository
from tests.runner.server.office import Office
from tests.support.receivers import Heard
from tests.support.wait import until

CRON = "name: demo\ntriggers: {cron: [{at: '0 4 * * *', zone: ZONE}]}\nstages: {s: {run: 'true'}}\n"
ITS_OWN = {"refs/heads/main": "d" * 40, "refs/heads/its-own": "e" * 40}
"""The refs of the next project's repository."""
WAITS = "two"
"""The delivery that waits for it."""

pytestmark = pytest.mark.network


@dataclass
class Meanwhile:
    """A project of a real repository, the parts of a server that work it, and what they ask git while it changes."""

    office: Office
    repository: Repository
    patch: pytest.MonkeyPatch
    swapped: list[Project] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = self.office.registry()
        self.desk = Desk(self.office.database, self.registry, lambda: None, 0.0)
        self.commit = self.repository.git("rev-parse", "main")
        self.old = self.replaced({"refs/heads/main": self.commit})

    def replaced(self, stand: dict[str, str], file: str = "pipeline.yaml") -> Project:
        """The project is removed, and another one of that name is added, as `projects add` does it."""
        project = Project("shop", f"file://{self.repository.bare}", file)
        self.office.database.write_now(partial(projects.remove, name="shop"))
        made = self.office.database.write_now(partial(projects.add, seal=self.office.seal, project=project))
        self.office.database.write_now(partial(note_refs, project="shop", now=stand))
        anyio.run(self.registry.fleet.projects)
        return made

    def swap(self, moment: str, error: Exception | None = None) -> None:
        """That happens, once, while the host of the repository is asked for something."""
        asked = getattr(repositories.Repository, moment)

        async def meanwhile(repository: Any, *words: Any) -> Any:
            found = await asked(repository, *words)
            if not self.swapped:
                await anyio.to_thread.run_sync(self.begin_anew)
                if error:
                    raise error
            return found

        self.patch.setattr(repositories.Repository, moment, meanwhile)

    def begin_anew(self) -> None:
        made = self.replaced(ITS_OWN)
        row = {"project": "shop", "at": "1 1 * * *", "zone": "UTC", "looked": 7.0}
        self.office.database.write_now(lambda c: c.execute(insert(times).values(row)))
        self.pushed(WAITS, "0" * 40)  # the branch is gone
        self.swapped.append(made)

    def pushed(self, id_: str, commit: str) -> None:
        """A delivery waits; nothing starts at a push to that branch."""
        body = {"ref": "refs/heads/side", "after": commit, "head_commit": {"id": commit}}
        row = {"id": id_, "project": "shop", "forge": "gitea", "key": id_, "received": 1.0, "size": 1, "state": "new"}
        said = {"headers": json.dumps({"x-gitea-event": "push"}), "body": json.dumps(body).encode()}
        self.office.database.write_now(lambda c: c.execute(insert(deliveries).values(**row, **said)))

    def delivery(self, id_: str) -> tuple[str, str, str]:
        columns = (deliveries.c.project, deliveries.c.state, deliveries.c.note)
        wanted = select(*columns).where(deliveries.c.id == id_)
        project, state, note = self.office.database.read_now(lambda c: c.execute(wanted).one())
        return project, state, note

    def known(self) -> list[list[tuple[str, ...]]]:
        """What is known of the project that has the name: where its refs stand, its times, its runs, its deliveries."""
        of_each = ((refs.c.ref, refs.c.commit), (times.c.at,), (runs.c.id,), (deliveries.c.id, deliveries.c.state))
        wanted = [select(*columns).where(columns[0].table.c.project == "shop") for columns in of_each]
        return self.office.database.read_now(lambda c: [sorted(map(tuple, c.execute(each))) for each in wanted])


UNTOUCHED: list[list[tuple[str, ...]]] = [[("", ""), *sorted(ITS_OWN.items())], [("1 1 * * *",)], [], [(WAITS, "new")]]


@pytest.fixture
def meanwhile(office: Office, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    repository.commit(
        "a clock", pipeline_yaml=CRON.replace("ZONE", "UTC"), other_yaml=CRON.replace("ZONE", "Asia/Tokyo")
    )
    return Meanwhile(office, repository, monkeypatch)


def test_another_project_waits_for_what_its_own_file_says(meanwhile: Meanwhile) -> None:
    zones = []
    for file in ("pipeline.yaml", "other.yaml"):
        project = meanwhile.replaced({"refs/heads/main": meanwhile.commit}, file)
        zones += [zone for _, zone in anyio.run(meanwhile.desk._waits_for, project).cron]
    assert zones == ["UTC", "Asia/Tokyo"]


def test_nothing_is_started_of_an_event_of_the_former_project(meanwhile: Meanwhile) -> None:
    """Be it that its triggers start something, or only that its ref has moved."""
    meanwhile.swap("bring")
    event = Event(Trigger(kind="push", branch="its-own", commit=meanwhile.commit))
    take = partial(meanwhile.registry.intake(meanwhile.old).take, Change(event, "refs/heads/its-own"), Found("poll"))
    with pytest.raises(Removed, match="shop: its project was removed"):
        anyio.run(take)
    assert meanwhile.known() == UNTOUCHED


def test_nobody_starts_a_run_of_the_former_project_either(meanwhile: Meanwhile) -> None:
    meanwhile.swap("bring")
    start = meanwhile.registry.intake(meanwhile.old).start
    with pytest.raises(Removed, match="shop: its project was removed"):
        anyio.run(partial(start, "demo", "main", {}, "ann", "", told=lambda *_: None))
    assert meanwhile.known() == UNTOUCHED


@pytest.mark.parametrize(("look", "moment"), [("_poll", "refs"), ("_look_at_clock", "main_branch")])
def test_what_was_seen_of_the_former_project_is_not_noted(meanwhile: Meanwhile, look: str, moment: str) -> None:
    meanwhile.swap(moment)
    with pytest.raises(Removed):
        anyio.run(getattr(meanwhile.desk, look), meanwhile.old)
    assert meanwhile.known() == UNTOUCHED


@pytest.mark.parametrize("error", [None, RepositoryError("it does not answer")])
def test_a_delivery_that_failed_as_its_project_was_removed_stays_so(
    meanwhile: Meanwhile, error: Exception | None
) -> None:
    meanwhile.pushed("one", meanwhile.commit)
    meanwhile.swap("bring", error)
    with pytest.raises(Removed):
        anyio.run(meanwhile.desk._work_off, meanwhile.old)
    assert meanwhile.delivery("one") == ("shop~2", "failed", "its project was removed")
    assert meanwhile.known() == UNTOUCHED


def test_what_has_come_for_the_next_project_is_not_worked_with_the_repository_of_the_former(
    meanwhile: Meanwhile,
) -> None:
    meanwhile.begin_anew()
    with pytest.raises(Removed):
        anyio.run(meanwhile.desk._work_off, meanwhile.old)
    assert meanwhile.known() == UNTOUCHED


def test_the_worker_of_the_former_project_goes_on_with_the_next_one_at_once(meanwhile: Meanwhile) -> None:
    meanwhile.pushed("one", meanwhile.commit)
    meanwhile.swap("bring")
    with meanwhile.office.working(lambda registry: Desk(registry.database, registry, lambda: None, 0.0)):
        until(lambda: meanwhile.swapped and meanwhile.delivery(WAITS)[1] == "done", 10)
    assert meanwhile.delivery("one")[:2] == ("shop~2", "failed")


async def test_who_finds_a_project_removed_looks_it_up_anew(meanwhile: Meanwhile) -> None:
    stale = await meanwhile.registry.project("shop")
    assert stale == meanwhile.old
    await anyio.to_thread.run_sync(meanwhile.begin_anew)
    await meanwhile.desk._unharmed("what came in", meanwhile.desk._work_off, stale)
    assert await meanwhile.registry.project("shop") == meanwhile.swapped[0]


async def test_a_run_of_the_former_project_is_given_no_secrets_of_the_next_one(meanwhile: Meanwhile) -> None:
    text = "name: demo\nsecrets: {token: text}\nstages: {s: {run: 'true'}}\n"
    commit = meanwhile.repository.commit("a secret", pipeline_yaml=text)
    start = meanwhile.registry.intake(meanwhile.old).start
    _, id_ = await start("demo", "main", {}, "ann", "", told=lambda *_: None)
    row = await meanwhile.office.database.read(lambda c: c.execute(select(runs).where(runs.c.id == id_)).one())
    assert row.file_commit == commit
    children = Children(meanwhile.registry)
    assert (await children._given(row, meanwhile.old)).secrets == {}

    await anyio.to_thread.run_sync(meanwhile.begin_anew)
    handed = secret_of("text", b"of the next one")
    await meanwhile.office.database.write(lambda c: put(c, meanwhile.office.seal, "shop", "token", handed))
    with pytest.raises(Removed):
        await children.begin(row, meanwhile.old)


def test_what_the_hook_secret_of_the_former_project_has_proved_is_refused(meanwhile: Meanwhile) -> None:
    body = b'{"ref": "refs/heads/main"}'
    signed = hmac.new(meanwhile.old.secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-gitea-event": "push", "x-gitea-delivery": "k", "x-gitea-signature": signed}
    examined = inbox.examine("shop", meanwhile.old, headers, body)
    assert anyio.run(inbox.receive, meanwhile.office.database, examined).refused == ""

    late = inbox.examine("shop", meanwhile.old, {**headers, "x-gitea-delivery": "l"}, body)
    meanwhile.begin_anew()
    receipt = anyio.run(inbox.receive, meanwhile.office.database, late)
    assert receipt.refused == "its project was removed"
    assert meanwhile.delivery(receipt.id) == ("shop", "refused", "its project was removed")


def told_to_the_forge(office: Office) -> Callable[[], Awaitable[str]]:
    """What tells it of a run, once it has been looked up."""
    row = {"run": "run001", "state": "failure", "description": "failed"}
    office.database.write_now(lambda c: c.execute(insert(statuses).values(row)))
    registry = office.registry()
    entry = office.database.read_now(partial(feedback._due, fleet=registry.fleet))["shop"]
    return partial(feedback.Feedback(office.database, registry)._tell, entry)


def told_to_a_target(office: Office) -> Callable[[], Awaitable[str]]:
    registry = office.registry()
    entry = office.database.read_now(partial(notifications._due, fleet=registry.fleet))["shop", "chat"]
    return partial(notifications.Notifier(registry, "")._send, entry)


@pytest.mark.parametrize("tell", [told_to_the_forge, told_to_a_target])
def test_nobody_is_told_of_a_run_of_the_former_project_by_what_the_next_one_has(
    office: Office, hook: Heard, tell: Callable[[Office], Callable[[], Awaitable[str]]]
) -> None:
    url = f"http://127.0.0.1:{hook.port}/team/shop.git"
    office.target("chat", url, "failed")
    office.ended("failed")
    found = tell(office)
    project = Project("shop", url, forge="gitea", token="t0ken")
    office.database.write_now(partial(projects.remove, name="shop"))
    office.database.write_now(partial(projects.add, seal=office.seal, project=project))
    office.target("chat", url, "failed")
    assert (anyio.run(found), hook.paths) == ("", [])


async def test_who_asks_again_after_the_removal_is_answered_for_the_next_project(meanwhile: Meanwhile) -> None:
    doors = cast("Doors", SimpleNamespace(registry=meanwhile.registry))
    assert await meanwhile.registry.project("shop") == meanwhile.old
    await anyio.to_thread.run_sync(meanwhile.begin_anew)
    with pytest.raises(HTTPException, match="its project was removed; if another one has its name now") as refused:
        async with api._intake(doors, "shop") as intake:
            await intake.start("demo", "main", {}, "ann", "", told=lambda *_: None)
    assert refused.value.status_code == 503
    async with api._intake(doors, "shop") as intake:
        assert intake._project == meanwhile.swapped[0]
