"""The inbox: a delivery is verified, kept with its verdict in one transaction, and only then answered."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, select, update
from ulid_transform import ulid_now

from runner.server.database import Database, deliveries
from runner.server.payloads import redacted
from runner.server.projects import Project
from runner.server.signatures import UNSIGNED_BODY, Forge, Headers, forge_of, key_of, refusal

__all__ = ["LARGEST", "Examined", "Receipt", "again", "examine", "receive"]

LARGEST = 26 << 20
"""Bytes of the largest body that is taken; no forge sends more than 25 MiB."""

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
    """A delivery with the verdict on it, as it will be kept; `refused` says why it is not genuine."""

    row: Mapping[str, object]
    refused: str = ""


def examine(project: Project, headers: Headers, body: bytes) -> Examined:
    """Find out whether a delivery is genuine. Takes a second for the largest body; call it in a thread then."""
    forge, now = forge_of(headers), time.time()
    why = _wrong_forge(forge, project) or refusal(forge, headers, body, project.secret, now)
    row = {
        "id": ulid_now(),
        "project": project.name,
        "forge": forge,
        "key": key_of(forge, headers, body),
        "received": now,
        "headers": "{}" if why else json.dumps(_kept(headers)),
        "body": b"" if why else redacted(forge, headers, body),
        "size": len(body),
        "state": "refused" if why else "new",
        "note": why,
    }
    return Examined(row, why)


async def receive(database: Database, examined: Examined) -> Receipt:
    """Take one delivery in with the verdict on it; when this returns it is on disk."""
    return await database.write(lambda connection: _keep(connection, examined.row, examined.refused))


def _wrong_forge(forge: Forge, project: Project) -> str:
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


def _keep(connection: Connection, row: Mapping[str, object], why: str) -> Receipt:
    if why:
        connection.execute(insert(deliveries).values(row))
        return Receipt(str(row["id"]), refused=why)
    same = and_(deliveries.c.project == row["project"], deliveries.c.key == row["key"], deliveries.c.state != "refused")
    there = connection.execute(select(deliveries.c.id, deliveries.c.state).where(same)).one_or_none()
    if there is None:
        why = _replayed(connection, row)
        refused = {"state": "refused", "note": why, "headers": "{}", "body": b""} if why else {}
        connection.execute(insert(deliveries).values({**row, **refused}))
        return Receipt(str(row["id"]), refused=why)
    # one whose work failed is worked again, so that a redelivery helps
    renewed = {"state": "new", "due": 0.0, "tries": 0} if there.state == "failed" else {}
    found = deliveries.c.id == there.id
    connection.execute(update(deliveries).where(found).values(copies=deliveries.c.copies + 1, **renewed))
    return Receipt(there.id, fresh=False)


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


def again(connection: Connection, id_: str) -> bool:
    """Work a delivery once more, from what was kept of it.

    False if there is none, or nothing of it: it was refused, or nobody sent it (the poll found it).
    """
    there = and_(deliveries.c.id == id_, deliveries.c.state != "refused", deliveries.c.forge != "poll")
    changed = connection.execute(update(deliveries).where(there).values(state="new", due=0.0, tries=0))
    return bool(changed.rowcount)
