"""The inbox: a delivery is verified, kept with its verdict in one transaction, and only then answered."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, select, update
from ulid_transform import ulid_now

from runner.server.database import Database, deliveries
from runner.server.payloads import redacted
from runner.server.projects import REMOVED, Project, known, stands
from runner.server.signatures import UNSIGNED_BODY, Forge, Headers, forge_of, key_of, refusal

__all__ = ["LARGEST", "Examined", "Receipt", "again", "examine", "receive"]

LARGEST = 26 << 20
"""Bytes of the largest body that is taken; no forge sends more than 25 MiB."""
LONGEST_NAME = 64
_NOBODYS = secrets.token_urlsafe(32)
"""The hook secret of every project that there is not."""

_KEPT = ("content-type", "user-agent")
_KEPT_PREFIXES = ("x-", "webhook-", "idempotency-")
_NEVER_KEPT = ("token", "signature", "secret", "authorization")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery: its id, and whether it was taken, was there already, or was refused and why."""

    id: str
    fresh: bool = True
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """A delivery with the verdict on it, as it will be kept, and why it is not taken if it is not."""

    row: Mapping[str, object]
    project: Project | None
    """Whose hook secret has proved it."""
    refused: str = ""
    """For those who may see the project."""
    told: str = ""
    """For whoever sent it: nothing that they could not know."""


def examine(name: str, project: Project | None, headers: Headers, body: bytes) -> Examined:
    """Find out whether a delivery is genuine. Takes a second for the largest body; call it in a thread then.

    `project` None: there is none of that name. It is examined all the same, so that what is answered, and how long
    that takes, does not tell a stranger which projects there are.
    """
    forge, now = forge_of(headers), time.time()
    unproven = refusal(forge, headers, body, project.secret if project else _NOBODYS, now)
    why = _misled(forge, name, project) or unproven
    row = {
        "id": ulid_now(),
        "project": name[:LONGEST_NAME],
        "forge": forge,
        "key": key_of(forge, headers, body),
        "received": now,
        "headers": "{}" if why else json.dumps(_kept(headers)),
        "body": b"" if why else redacted(forge, headers, body),
        "size": len(body),
        "state": "refused" if why else "new",
        "note": why,
    }
    return Examined(row, project, why, unproven or why)


async def receive(database: Database, examined: Examined) -> Receipt:
    """Take one delivery in with the verdict on it; when this returns it is on disk.

    What the secret of a project has proved that was removed meanwhile is refused: the next one of its name has another.
    """
    return await database.write(lambda connection: _keep(connection, examined))


def _misled(forge: Forge, name: str, project: Project | None) -> str:
    """Why it came to the wrong place."""
    if project is None:
        return f"there is no project '{name[:LONGEST_NAME]}'"
    if project.forge in (forge, "generic"):
        return ""
    return f"it comes from {forge}, and the project's forge is {project.forge}"


def _kept(headers: Headers) -> Mapping[str, str]:
    """What may be kept: no header that could be a secret."""
    return {
        name: value[:500]
        for name, value in headers.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES)) and not any(word in name for word in _NEVER_KEPT)
    }


def _keep(connection: Connection, examined: Examined) -> Receipt:
    row, project, why = examined.row, examined.project, examined.refused
    if not why and not (project and stands(connection, project)):
        why = REMOVED
    if why:
        return _refuse(connection, row, why)
    same = and_(deliveries.c.project == row["project"], deliveries.c.key == row["key"], deliveries.c.state != "refused")
    there = connection.execute(select(deliveries.c.id, deliveries.c.state).where(same)).one_or_none()
    if there is None:
        if why := _replayed(connection, row):
            return _refuse(connection, row, why)
        connection.execute(insert(deliveries).values(row))
        return Receipt(str(row["id"]))
    # one whose work failed is worked again, so that a redelivery helps
    renewed = {"state": "new", "due": 0.0, "tries": 0} if there.state == "failed" else {}
    found = deliveries.c.id == there.id
    connection.execute(update(deliveries).where(found).values(copies=deliveries.c.copies + 1, **renewed))
    return Receipt(there.id, fresh=False)


def _refuse(connection: Connection, row: Mapping[str, object], why: str) -> Receipt:
    """Keep that it came, and nothing of what it said."""
    refused = {"state": "refused", "note": why, "headers": "{}", "body": b""}
    connection.execute(insert(deliveries).values({**row, **refused}))
    return Receipt(str(row["id"]), refused=why)


def _replayed(connection: Connection, row: Mapping[str, object]) -> str:
    """Why a signature may not be used again: that of some forges is the same for every body, and each is for one."""
    stamp, mark, _ = str(row["key"]).partition(UNSIGNED_BODY)
    if not mark:
        return ""
    of_stamp = deliveries.c.key.startswith(stamp + mark, autoescape=True)
    twin = and_(deliveries.c.project == row["project"], of_stamp, deliveries.c.state != "refused")
    if connection.execute(select(deliveries.c.id).where(twin).limit(1)).first() is None:
        return ""
    return "its signature came with another body before"


def again(connection: Connection, id_: str) -> str:
    """Work a delivery once more, from what was kept of it; why not and what to do, empty if it will be."""
    found = connection.execute(select(deliveries).where(deliveries.c.id == id_)).one_or_none()
    if found is None:
        return "it is not kept any more"
    if found.state == "refused":
        return f"it was refused ({found.note}), so nothing of it was kept: mend that, and have it sent again"
    if found.project not in known(connection):
        return REMOVED
    if found.forge == "poll":
        return "nobody sent it, looking at the repository found it: start a run of that ref instead"
    connection.execute(update(deliveries).where(deliveries.c.id == id_).values(state="new", due=0.0, tries=0))
    return ""
