"""Secrets of projects: sealed in the database, never shown again, and which of them a run is given."""

import base64
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import Connection, and_, delete, select

from pipeline.errors import PipeError
from pipeline.plan import SecretSource, Trigger
from pipeline.stage import SecretKind
from runner.handover import Handed, handed
from runner.secrets import look_up, read_file
from runner.server.database import secrets
from runner.server.projects import must_know
from runner.server.sealing import Seal

__all__ = ["LARGEST", "Known", "for_run", "known", "places", "put", "remove", "secret_of"]

LARGEST = 256 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Known(BaseModel):
    """What may be seen of a secret: that it is there, of which kind, and when it was set (seconds since the epoch)."""

    name: str
    kind: SecretKind
    changed: float


def secret_of(kind: SecretKind, content: bytes, username: str = "") -> Handed:
    """A secret out of what somebody gave: a text or a password without the end of its line, a file as it is.

    Raises:
        PipeError: it is empty, too large or no text, or a user name is missing or too much.
    """
    if (kind == "login") != bool(username):
        raise PipeError("a login has a user name, and no other kind has one")
    if len(content) > LARGEST:
        raise PipeError(f"a secret has no more than {LARGEST >> 10} KiB, and this one has {len(content)} bytes")
    if not content.strip():
        raise PipeError("the secret is empty")
    if kind in ("file", "ssh"):
        return Handed(kind=kind, value=base64.b64encode(content).decode())
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise PipeError(f"a secret of kind {kind} is text in UTF-8; bytes are kept by the kind file") from None
    return Handed(kind=kind, value=text.removesuffix("\n").removesuffix("\r"), username=username)


def put(connection: Connection, seal: Seal, project: str, name: str, secret: Handed) -> None:
    """Keep a secret in the place of the former one.

    Raises:
        PipeError: the name is none, or there is no such project.
    """
    if not _NAME.fullmatch(name):
        raise PipeError(f"'{name}' is no name of a secret: letters, digits, '.', '_' and '-'")
    must_know(connection, project)
    remove(connection, project, name)
    row = {"project": project, "name": name, "kind": secret.kind, "changed": time.time()}
    connection.execute(secrets.insert().values(**row, sealed=seal.close(secret.model_dump_json())))


def known(connection: Connection, project: str) -> list[Known]:
    """The secrets of a project by name, without their values."""
    columns = (secrets.c.name, secrets.c.kind, secrets.c.changed)
    rows = connection.execute(select(*columns).where(secrets.c.project == project).order_by(secrets.c.name))
    return [Known.model_validate(dict(row)) for row in rows.mappings()]


def remove(connection: Connection, project: str, name: str) -> bool:
    """Forget a secret; false if there is none."""
    mine = and_(secrets.c.project == project, secrets.c.name == name)
    return bool(connection.execute(delete(secrets).where(mine)).rowcount)


def for_run(
    connection: Connection,
    seal: Seal,
    project: str,
    trigger: Trigger,
    declared: Mapping[str, SecretSource],
    places: Sequence[Mapping[str, str]],
) -> dict[str, Handed]:
    """What one run is given: of the secrets that its pipeline declares those that there are.

    They come from the database, else from `places`: the server's variables that runs may see, and the project's
    `secrets.env`. A pull request of a fork gets none: whoever opened it is a stranger, and wrote what is run.

    Raises:
        PipeError: one was sealed with another key, or names a file that cannot be read.
    """
    if not trigger.trusted:
        return {}
    mine = select(secrets).where(secrets.c.project == project, secrets.c.name.in_(declared))
    found = {row.name: Handed.model_validate_json(seal.open(row.sealed)) for row in connection.execute(mine)}
    for name, source in declared.items():
        if name not in found and (value := look_up(name, source, places)):
            found[name] = handed(source.kind, value)
    return found


def places(store: Path, passed_on: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Where secrets come from that the database does not have. Blocks.

    Raises:
        PipeError: `secrets.env` is not the server's own, or a line of it is wrong.
    """
    return [passed_on, read_file(store / "secrets.env", ours_alone=True)]
