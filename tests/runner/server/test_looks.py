"""When a server looks: for the most part when it is told, and else all of it in the same moment."""

import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, insert

from runner.server import fleet, outbox
from runner.server.database import Database, refs
from runner.server.fleet import Fleet
from runner.server.layout import Layout
from runner.server.looks import until_next
from runner.server.outbox import Outbox, pause_after


def test_looks_of_all_rhythms_meet_on_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_041.5)
    assert [until_next(every) for every in (60, 30, 10)] == [18.5, 18.5, 8.5]


def test_what_a_command_writes_into_the_file_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "WATCH_EVERY", 0.02)
    ours = Database(tmp_path / "server.db")
    heard: list[float] = []

    alone = Fleet(ours, Layout(tmp_path), "")

    async def scene() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(alone.listen, lambda: heard.append(time.time()))
                await anyio.sleep(0.2)
                assert not heard, "nobody has written anything"
                await anyio.to_thread.run_sync(write)
                while not heard:
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()

    def write() -> None:
        theirs = Database(tmp_path / "server.db")
        theirs.write_now(lambda c: c.execute(insert(refs).values(project="p", ref="r", commit="c", moves=0)))
        theirs.close()

    anyio.run(scene)
    ours.close()


async def _never(_: Outbox) -> None:
    await anyio.sleep_forever()


def test_what_was_not_taken_is_tried_again_though_nobody_says_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(Outbox, "_look_again", _never)
    database = Database(tmp_path / "server.db")
    database.look_every = 3600.0
    tries: list[Any] = []
    taken = anyio.Event()
    not_before = 0.0

    def due(_: Connection) -> Mapping[Hashable, Any]:
        return {} if taken.is_set() or time.time() < not_before else {"forge": SimpleNamespace(tries=0)}

    def told(_connection: Connection, _entry: Any, note: str) -> None:
        nonlocal not_before
        not_before = time.time() + pause_after(0) if note else 0.0

    async def deliver(entry: Any) -> str:
        tries.append(entry)
        if len(tries) < 2:
            return "503"
        taken.set()
        return ""

    async def scene() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Outbox(database, due, deliver, told).work)
                await taken.wait()
                tasks.cancel_scope.cancel()

    anyio.run(scene)
    database.close()
    assert len(tries) == 2


def test_what_an_earlier_server_tried_in_vain_is_tried_when_it_is_due_though_that_is_after_our_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.02)
    database = Database(tmp_path / "server.db")
    database.look_every = 3600.0
    tried = anyio.Event()
    not_before = time.time() + 0.2

    def due(_: Connection) -> Mapping[Hashable, Any]:
        return {} if time.time() < not_before else {"forge": SimpleNamespace(tries=1)}

    async def deliver(_: Any) -> str:
        tried.set()
        await anyio.sleep_forever()
        return ""

    async def scene() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Outbox(database, due, deliver, lambda *_: None).work)
                await tried.wait()
                tasks.cancel_scope.cancel()

    anyio.run(scene)
    database.close()
