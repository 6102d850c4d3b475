"""The schema comes from migrations alone, is that of the tables in the code, and no database is changed half."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, select
from sqlalchemy.exc import DBAPIError

from pipeline.errors import PipeError
from runner.ownership import Ownership
from runner.server.connections import engine_for, url_of
from runner.server.database import Database, projects, runs, tokens
from runner.server.layout import Place
from runner.server.migrations import bring_up, known
from runner.server.serve import open_folder
from tests.support.postgresql import Postgresql

SCHEMAS = Path(__file__).with_name("schemas")
"""The tables of programs from before there were versions."""
FIRST, NEWEST = "first", "one_server"
ROWS = {
    FIRST: """
INSERT INTO runs VALUES ('r1', 'shop', 'demo', 1, 'push 1', 'hook', '', 'refs/heads/main', 'c', '{}', '{}', 'running',
  '', '', 7, 0, 1, 1, 0);
INSERT INTO tokens VALUES ('d1', 'ann', 1);""",
    NEWEST: """
INSERT INTO runs VALUES ('r1', 'shop', 'demo', 1, 'push 1', 'hook', '', 'refs/heads/main', 'c', 'c', '', '[]', '{}',
  '{}', 'running', '', '', '', 7, 0, 0, 0, 0, 1, 1, 0);
INSERT INTO tokens VALUES ('t1', 'd1', 'ann', '', 'admin', '', 1, 0, 0);
INSERT INTO secrets VALUES ('shop', 'registry', 'text', x'00', 1);
INSERT INTO audit VALUES (1, 1, 'ann', 'machine', '', 'add project', 'shop', 'shop', '');""",
}


def old(path: Path, schema: str = FIRST) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((SCHEMAS / f"{schema}.sql").read_text() + ROWS[schema])
    return path


def shape(engine: Engine) -> dict[str, object]:
    """All that matters of a schema; values that a column has by itself play no part, as we give every value."""
    seen = inspect(engine)
    found: dict[str, object] = {}
    for table in set(seen.get_table_names()) - {"alembic_version"}:
        columns = {(each["name"], str(each["type"]), each["nullable"]) for each in seen.get_columns(table)}
        indexes = {
            (each["name"], tuple(each["column_names"]), bool(each["unique"]), _where(each))
            for each in seen.get_indexes(table)
            if not each.get("duplicates_constraint")
        }
        unique = {frozenset(each["column_names"]) for each in seen.get_unique_constraints(table)}
        key = tuple(seen.get_pk_constraint(table)["constrained_columns"])
        found[table] = (columns, key, unique, indexes)
    return found


def _where(index: Any) -> str:
    options = index.get("dialect_options", {})
    return str(options.get("sqlite_where", options.get("postgresql_where", "")))


def as_declared(engine: Engine) -> Engine:
    projects.metadata.create_all(engine)
    return engine


def version(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    engine = engine_for(tmp_path / "server.db")
    bring_up(engine)
    declared = as_declared(engine_for(tmp_path / "declared.db"))
    assert shape(engine) == shape(declared), "write a migration: python -m tests.migrate WORDS"


@pytest.mark.network
def test_the_migrations_make_the_tables_of_the_code_in_postgresql(postgresql: Postgresql) -> None:
    engine, declared = (engine_for(url_of(postgresql.database())) for _ in range(2))
    bring_up(engine)
    assert shape(engine) == shape(as_declared(declared))
    engine.dispose()
    declared.dispose()


@pytest.mark.parametrize("schema", [FIRST, NEWEST])
def test_a_database_without_a_version_is_taken_on_with_what_it_holds_and_copied_before(
    tmp_path: Path, schema: str
) -> None:
    path = old(tmp_path / "server.db", schema)
    database = Database(path)
    assert database.read_now(
        lambda c: c.execute(select(runs.c.id, runs.c.state, runs.c.server, runs.c.file_commit)).all()
    ) == [("r1", "running", "", "c")]
    assert database.read_now(lambda c: c.execute(select(tokens.c.name, tokens.c.role, tokens.c.scope)).all()) == [
        ("ann", "admin", "")
    ]
    assert shape(engine_for(path)) == shape(as_declared(engine_for(tmp_path / "declared.db")))
    assert version(path) == known()[-1]
    copy = tmp_path / f"server.db.before-{known()[-1]}"
    assert copy.stat().st_mode & 0o077 == 0
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == [("r1",)]
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall() == []


def test_an_old_file_that_a_newer_program_has_begun_on_is_completed(tmp_path: Path) -> None:
    """Programs without versions made the tables that were missing, and no columns."""
    path = old(tmp_path / "server.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for statement in (SCHEMAS / f"{NEWEST}.sql").read_text().split(";\n"):
            if statement.startswith("CREATE TABLE") and statement.split()[2] not in there:
                connection.execute(statement)
    Database(path).close()
    assert shape(engine_for(path)) == shape(as_declared(engine_for(tmp_path / "declared.db")))


def test_projects_keep_their_places_and_runs_from_before_a_project_are_of_a_former_one(tmp_path: Path) -> None:
    path = old(tmp_path / "server.db", NEWEST)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
INSERT INTO projects VALUES ('shop', 'u', 'f', 'generic', 5, x'', x'', x'', '', '', 0);
INSERT INTO uids VALUES ('shop', 200000);
INSERT INTO keeps VALUES ('shop', 'runs', 0, 0), ('other', 'logs', 7, 7);
INSERT INTO runs SELECT 'r2', project, pipeline, 2, 'push 2', found_by, delivery, ref, "commit", file_commit, fetched_from,
  chain, "trigger", params, state, approved_by, outcome, note, pid, revived, follow_at, followed, traced, 9, 9, ended
  FROM runs;""")
    database = Database(path)
    wanted = select(runs.c.id, runs.c.project, runs.c.place).order_by(runs.c.id)
    assert database.read_now(lambda c: c.execute(wanted).all()) == [("r1", "shop~0", "shop"), ("r2", "shop", "shop")]
    kept = "SELECT * FROM keeps ORDER BY project"
    assert database.read_now(lambda c: c.exec_driver_sql(kept).all()) == [
        ("other", "logs", 7, 7),
        ("shop", "runs", 0, 0),
        ("shop~0", "runs", 0, 0),
    ]
    there = {"SELECT name, place FROM projects": ("shop", "shop"), "SELECT place, uid FROM uids": ("shop", 200000)}
    for question, answer in {**there, "SELECT place, project FROM places": ("shop", "shop")}.items():
        assert database.read_now(lambda c, question=question: c.exec_driver_sql(question).all()) == [answer]  # type: ignore[misc]


def test_the_audit_log_of_a_file_without_a_version_stays_and_is_only_added_to(tmp_path: Path) -> None:
    database = Database(old(tmp_path / "server.db", NEWEST))
    with pytest.raises(DBAPIError, match="the audit log is only added to"):
        database.write_now(lambda c: c.exec_driver_sql("DELETE FROM audit"))
    assert database.read_now(lambda c: c.exec_driver_sql("SELECT who FROM audit").scalars().all()) == ["ann"]


def test_a_new_database_leaves_no_copy(tmp_path: Path) -> None:
    Database(tmp_path / "server.db").close()
    assert [path.name for path in tmp_path.glob("*before*")] == []


def test_a_database_of_a_newer_program_is_refused_with_the_way_out(tmp_path: Path) -> None:
    database = Database(tmp_path / "server.db")
    database.write_now(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9000'"))
    with pytest.raises(PipeError, match=r"version 9000 by a newer pipe.*use the newer one, or the copy"):
        Database(tmp_path / "server.db")


def test_a_migration_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = old(tmp_path / "server.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE servers (other TEXT)")
        before = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        with pytest.raises(PipeError, match=r"cannot be brought from version 0000 .* and is as it was: .*servers"):
            Database(path)
        assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before


def test_no_command_changes_the_tables_under_a_server_that_runs(tmp_path: Path) -> None:
    old(tmp_path / "server.db")
    argv = [sys.executable, "-c", f"from runner.ownership import *; from pathlib import *; Ownership(Path('{tmp_path}')).claim('pipe serve'); print(flush=True); input()"]  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdin
        server.stdout.readline()
        with pytest.raises(PipeError, match="end pipe serve, process"):
            open_folder(Place(tmp_path), {})
        server.stdin.close()
    open_folder(Place(tmp_path), {})
    assert Ownership(tmp_path).owner()


def test_nothing_of_alembic_is_imported_when_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    Database(tmp_path / "server.db").close()
    code = f"""
import sys
from pathlib import Path
from runner.server.database import Database
Database(Path({str(tmp_path)!r}) / "server.db")
sys.exit(any(name.split(".")[0] in ("alembic", "mako", "psycopg") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
