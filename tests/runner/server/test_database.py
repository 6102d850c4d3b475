"""What work on the database can rely on, whichever it is: it is alone while it writes, and done whole or not."""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from select import select as select_
from typing import Any, cast

import anyio
import pytest
from sqlalchemy import Connection, event, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from pipeline.errors import PipeError
from runner.server import connections
from runner.server.audit import Actor, note
from runner.server.connections import Away, begin, engine_for, shown, url_of, writing
from runner.server.database import Database, audit, refs
from tests.support.postgresql import Postgresql
from tests.support.wait import until

pytestmark = [pytest.mark.network]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("postgresql").database() if request.param == "postgresql" else tmp_path / "x.db")


def opened(place: str) -> Database:
    return Database(url_of(place) if place.startswith("postgresql") else Path(place))


def keep(connection: Connection, ref: str, moves: int = 0) -> None:
    connection.execute(insert(refs).values(project="p", ref=ref, commit="c", moves=moves))


def moves(connection: Connection) -> dict[str, int]:
    return {row.ref: row.moves for row in connection.execute(select(refs))}


def count_up(connection: Connection) -> None:
    """What is right only if nobody writes between the look and the change."""
    now = moves(connection)["a"]
    time.sleep(0.002)
    connection.execute(update(refs).values(moves=now + 1))


def test_a_piece_that_fails_undoes_nothing_of_those_beside_it(place: str) -> None:
    database = opened(place)
    database.write_now(partial(keep, ref="a"))
    errors: list[Exception] = []

    async def attempt(ref: str) -> None:
        try:
            await database.write(partial(keep, ref=ref))
        except IntegrityError as error:
            errors.append(error)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as tasks:
            for ref in ("b", "a", "c", "a", "d"):
                tasks.start_soon(attempt, ref)

    anyio.run(all_at_once)
    assert sorted(database.read_now(moves)) == ["a", "b", "c", "d"]
    assert len(errors) == 2
    database.close()


def test_nobody_writes_between_a_look_and_a_change(place: str) -> None:
    one, other = opened(place), opened(place)
    one.write_now(partial(keep, ref="a"))

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                for database in (one, other):
                    tasks.start_soon(database.write, count_up)
                    await anyio.sleep(0)

    anyio.run(both)
    assert one.read_now(moves) == {"a": 40}
    one.close()
    other.close()


def test_text_is_taken_whatever_programs_say(place: str) -> None:
    database = opened(place)
    database.write_now(partial(keep, ref="a\0b"))
    assert list(database.read_now(moves)) in (["a\0b"], ["a\ufffdb"])
    database.close()


def test_nobody_commits_to_a_file_while_the_log_of_another_one_is_moved_into_it(tmp_path: Path) -> None:
    one, other, waits = Database(tmp_path / "x.db"), Database(tmp_path / "x.db"), threading.Event()

    def moved(*_: object) -> None:
        """Its transaction has been committed, and the log moved; the connection goes back."""
        writer = threading.Thread(target=other.write_now, args=(partial(keep, ref="b"),))
        writer.start()
        writer.join(0.2)
        seen.append(sorted(other.read_now(moves)))
        waits.set()

    seen: list[list[str]] = []
    event.listen(one._engine, "checkin", moved, once=True)
    one.write_now(partial(keep, ref="a"))
    assert waits.is_set()
    assert seen == [["a"]], "what the other one wrote had to wait"
    until(lambda: sorted(one.read_now(moves)) == ["a", "b"])
    one.close()
    other.close()


def test_who_does_not_end_a_transaction_holds_up_others_for_a_while_and_readers_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WRITE_WITHIN", 0.05)
    still, other = engine_for(tmp_path / "x.db"), Database(tmp_path / "x.db")
    with writing(still):
        assert other.read_now(moves) == {}
        with pytest.raises(PipeError, match=r"does not answer: another process has been writing to it for 0\.05 s"):
            other.write_now(partial(keep, ref="a"))
        with pytest.raises(PipeError, match="another process"):
            Database(tmp_path / "x.db").write_now(partial(keep, ref="a"))
    other.write_now(partial(keep, ref="a"))
    assert other.read_now(moves) == {"a": 0}
    still.dispose()
    other.close()


@pytest.mark.slow
def test_a_server_that_stands_still_in_a_transaction_holds_up_nobody_for_long(postgresql: Postgresql) -> None:
    place = url_of(postgresql.database())
    still, other = engine_for(place), Database(place)
    with still.connect() as connection:
        begin(connection)
        other.write_now(partial(keep, ref="a"))
        connection.invalidate()
    assert other.read_now(moves) == {"a": 0}
    still.dispose()
    other.close()


def test_a_transaction_that_was_cut_off_is_a_database_that_is_away_for_all_in_it_and_the_next_one_is_written(
    postgresql: Postgresql,
) -> None:
    database, told = Database(url_of(postgresql.database())), []

    def stand_still(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
        select_([cast("Any", connection.connection.driver_connection)], [], [], 10)
        keep(connection, "lost")

    async def attempt(work: Callable[[Connection], None]) -> None:
        try:
            await database.write(work)
        except Away as away:
            told.append(str(away))

    async def together() -> None:
        async with anyio.create_task_group() as tasks:
            for work in (partial(keep, ref="before"), stand_still, partial(keep, ref="after")):
                tasks.start_soon(attempt, work)

    anyio.run(together)
    assert len(told) == 3
    assert "idle-in-transaction timeout" in told[0]
    database.write_now(partial(keep, ref="next"))
    assert sorted(database.read_now(moves)) == ["next"]
    database.close()


@pytest.mark.parametrize("words", ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit"])
def test_the_audit_log_is_only_added_to(place: str, words: str) -> None:
    database = opened(place)
    database.write_now(lambda c: note(c, Actor("ann", "machine"), "add project", "shop"))
    with pytest.raises(DBAPIError, match="the audit log is only added to"):
        database.write_now(lambda c: c.exec_driver_sql(words))
    assert database.read_now(lambda c: c.execute(select(audit.c.who)).scalars().all()) == ["ann"]
    database.close()


def test_while_a_database_is_known_to_be_away_nobody_waits_for_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")

    async def lost_and_found() -> None:
        database._lose(Away("it is gone"))
        for asked in (partial(database.read, moves), partial(database.write, partial(keep, ref="a"))):
            with pytest.raises(Away, match="it is gone"):
                await asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.mend)
            await database.back()
            tasks.cancel_scope.cancel()
        await database.write(partial(keep, ref="a"))

    anyio.run(lost_and_found)
    assert database.read_now(moves) == {"a": 0}


def test_a_password_is_never_shown() -> None:
    for url in ("postgresql://me:hush@db/x", "postgres://me@db/x?password=hush&sslmode=require"):
        assert "hush" not in shown(url_of(url))
    with pytest.raises(PipeError, match="postgresql://USER@HOST/NAME"):
        url_of("sqlite:///x")
