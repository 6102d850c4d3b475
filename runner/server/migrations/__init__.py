"""From any earlier schema of the database to the one of this program, in one transaction."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import PipeError
from runner.server.connections import is_shared, writing

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["bring_up", "configuration", "known"]

_HERE = Path(__file__).parent
_UNNUMBERED = "0000"
"""Whatever databases were before they had a version."""


def known() -> list[str]:
    """The versions that this program can make, the oldest first."""
    names = (re.fullmatch(r"m([0-9]{4})_\w+\.py", path.name) for path in (_HERE / "versions").iterdir())
    return sorted(name[1] for name in names if name)


def bring_up(engine: Engine, file: Path | None = None, in_use: Callable[[Connection], str] = lambda _: "") -> None:
    """Bring the schema up to date; nothing is imported for it when it is.

    A `file` of SQLite is copied beside itself before. `in_use` says who works on the database with another program.

    Raises:
        PipeError: it was made by a newer program, somebody uses it, or it cannot be done; nothing was changed then.
    """
    with engine.connect() as connection:
        if _version(connection) == known()[-1]:
            return
    with writing(engine) as connection:
        version = _version(connection)  # somebody may have been quicker
        if version != known()[-1]:
            if is_shared(engine):  # a large table may take its time, and nobody else is there
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            _check(version, in_use(connection))
            if version and file:
                _back_up(engine, file)
            _upgrade(connection, version)


def _version(connection: Connection) -> str:
    """The version of the schema; empty when there is none yet."""
    there = inspect(connection)
    if there.has_table("alembic_version"):
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    return _UNNUMBERED if there.has_table("deliveries") else ""


def _check(version: str, user: str) -> None:
    if version and version not in (_UNNUMBERED, *known()):
        raise PipeError(
            f"the database was brought to version {version} by a newer pipe, and this one knows {known()[-1]}: "
            "use the newer one, or the copy that it made before"
        )
    if version and user:
        raise PipeError(f"the database has to be brought from version {version} to {known()[-1]}: end {user} first")


def _back_up(engine: Engine, file: Path) -> None:
    """Keep the file as it is; what an attempt before this one kept is the same."""
    copy = file.with_name(f"{file.name}.before-{known()[-1]}")
    with suppress(FileNotFoundError):
        copy.unlink()
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(copy),))
    copy.chmod(0o600)


def _upgrade(connection: Connection, version: str) -> None:
    from alembic import command

    try:
        command.upgrade(configuration(connection), "head")
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise PipeError(
            f"the database cannot be brought from version {version} to {known()[-1]}, and is as it was: {reason}"
        ) from error


def configuration(connection: Connection) -> "Config":
    """What Alembic works with: our folder, and a connection whose transaction it leaves to us."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
