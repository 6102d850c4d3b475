"""What a release is, as it is kept: a head that says who, why and how it ended, and a part for each deploy of it."""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.objects import MANAGED_BY, RUN, Object, Ref, dig, identity

__all__ = [
    "KIND",
    "NUMBER",
    "TARGET",
    "TURN",
    "Head",
    "Part",
    "Terms",
    "end_of_part",
    "now",
    "overlaid",
    "read_head",
    "read_parts",
    "slug",
    "whose",
    "write_head",
    "write_part",
]

TARGET, NUMBER, KIND, TURN = "pipe-ci/target", "pipe-ci/release", "pipe-ci/record", "pipe-ci/turn"
"""Labels of the Secrets that keep releases: what they go to, which one it is, `head` or `part`, and its turn."""
_TYPE = "pipe-ci/release.v1"
_HEAD, _PART, _OBJECTS = "head", "part", "objects"
# A Secret holds 1 MiB; the rest is for the record itself. https://kubernetes.io/docs/concepts/configuration/secret/
_CHUNK = 900_000


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Record(BaseModel):
    # A record of a newer version may say more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Head(_Record):
    """One release of one target."""

    target: str
    number: int
    turn: int = 0
    """Which hold of the Lease it was deployed under: the order in which releases came; 0: it deployed nothing."""
    run: str
    """`backend#12`."""
    run_id: str
    commit: str = ""
    by: str = ""
    why: str = ""
    time: str = Field(default_factory=now)
    """When its number was drawn."""
    parts: tuple[str, ...] = ()
    """What it was going to deploy."""
    outcome: Literal["", "complete", "partial", "rolled back"] = ""
    """Empty as long as nobody has said how it ended."""
    message: str = ""
    """Why it is not complete, in a line."""
    ended: str = ""
    state: Mapping[str, int] = {}
    """What the target holds after it: each part, and the release that deployed it last."""
    restores: int = 0
    """The release that this one went back to."""
    undone_by: int = 0
    """The release that went back from this one."""
    irreversible: tuple[str, ...] = ()
    """Stages of the run that cannot be undone: until it is closed all that it may run, then those that it did."""

    @property
    def name(self) -> str:
        """`his@12`."""
        return f"{self.target}@{self.number}"

    @property
    def order(self) -> tuple[int, int]:
        """Releases in the order in which they came. A number is drawn earlier, and a rollback's inside of a turn."""
        return self.turn, self.number


class Terms(_Record):
    """How a deploy writes and waits; a rollback does so on the same terms."""

    on_conflict: Literal["fail", "force", "ignore"] = "fail"
    """What holds where a field has another owner."""
    waits_for: tuple[str, ...] = ()
    """What its pods need while they start."""
    wait: float = 300.0
    """Seconds that its rollout may take."""


class Part(Terms):
    """What one deploy of a release applies."""

    name: str
    """The leaf: `deploy[gateway]`."""
    number: int
    turn: int = 0
    run_id: str = ""
    started: str = Field(default_factory=now)
    objects: tuple[Object, ...] = ()
    """As they are applied, the images pinned."""
    created: tuple[tuple[str, str, str, str], ...] = ()
    """Those that were not there before: version, kind, namespace, name."""
    outcome: str = ""
    """How the deploy ended; empty: nobody has said."""
    message: str = ""
    stayed: tuple[Ref, ...] = ()
    """Objects of earlier deploys that it does not describe, and that stay as nobody has said that they may go."""
    pieces: int = 1
    """How many Secrets hold its objects."""

    @property
    def order(self) -> tuple[int, int]:
        """As a head's."""
        return self.turn, self.number

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Which objects."""
        return tuple(map(identity, self.objects))


# -- as Secrets ------------------------------------------------------------------------------------


def write_head(head: Head, namespace: str, version: str = "") -> Object:
    """The Secret of a head; `version` is the one that it takes the place of."""
    data = {_HEAD: _coded(head.model_dump_json().encode())}
    return _secret(f"pipe-release.{head.target}.{head.number}", namespace, head, "head", data, version)


def read_head(secret: Object) -> Head:
    """Raises StageFailed (config) when it is none."""
    try:
        head = Head.model_validate_json(_decoded(dig(secret, "data", _HEAD) or ""))
    except ValueError as error:
        ref = identity(secret)
        way = f"`kubectl -n {ref.namespace} delete secret {ref.name}` forgets that release"
        raise StageFailed(f"{ref} is no record of a release any more; {way}", kind=CauseKind.CONFIG) from error
    turn = dig(secret, "metadata", "labels", TURN)
    return head.model_copy(update={"turn": int(turn)}) if turn else head


def write_part(part: Part, head: Head, namespace: str, chunk: int = _CHUNK) -> list[Object]:
    """The Secrets of a part: its objects compressed, and split where they are more than one Secret holds."""
    packed = zlib.compress(json.dumps(part.objects).encode(), 9)
    chunks = [packed[at : at + chunk] for at in range(0, len(packed), chunk)]
    whole = part.model_copy(update={"pieces": len(chunks)})
    stem = f"pipe-release.{head.target}.{head.number}.{slug(part.name)}"
    return [
        _secret(f"{stem}.{at}", namespace, head, "part", {_OBJECTS: _coded(block), _PART: _said(whole, at)})
        for at, block in enumerate(chunks)
    ]


def _said(part: Part, at: int = 0) -> str:
    """A part without its objects; the Secrets after the first say only whose they are."""
    if at:
        return _coded(json.dumps({"name": part.name, "number": part.number, "at": at}).encode())
    return _coded(part.model_dump_json(exclude={"objects"}).encode())


def end_of_part(part: Part) -> Object:
    """What changes in a part's first Secret when it has ended."""
    return {"data": {_PART: _said(part)}}


def whose(secret: Object) -> tuple[str, int]:
    """The part that a Secret holds a piece of: its name, and its release's number."""
    record = json.loads(_decoded(secret["data"][_PART]))
    return record["name"], record["number"]


def read_parts(secrets: Iterable[Object]) -> list[Part]:
    """The parts that these Secrets hold, in the order in which they were begun; one that lacks a piece is left out."""
    said: dict[tuple[str, int], Part] = {}
    pieces: dict[tuple[str, int], dict[int, bytes]] = {}
    for secret in secrets:
        record, key = json.loads(_decoded(secret["data"][_PART])), whose(secret)
        pieces.setdefault(key, {})[record.get("at", 0)] = _decoded(secret["data"][_OBJECTS])
        if "at" not in record:
            said[key] = Part.model_validate(record)
    whole = [
        part.model_copy(update={"objects": _objects(pieces[key], part.pieces)})
        for key, part in said.items()
        if len(pieces[key]) >= part.pieces
    ]
    return sorted(whole, key=lambda part: (part.order, part.started))


def _objects(pieces: Mapping[int, bytes], count: int) -> tuple[Object, ...]:
    return tuple(json.loads(zlib.decompress(b"".join(pieces[at] for at in range(count)))))


def overlaid(parts: Iterable[Part]) -> dict[Ref, Object]:
    """The objects of several parts; of one that two parts have, the newer release's."""
    found: dict[Ref, Object] = {}
    for part in sorted(parts, key=lambda part: part.order):
        found |= zip(part.refs, part.objects, strict=True)
    return found


def _secret(name: str, namespace: str, head: Head, kind: str, data: Mapping[str, str], version: str = "") -> Object:
    labels = {**MANAGED_BY, TARGET: head.target, NUMBER: str(head.number), KIND: kind}
    labels |= {TURN: str(head.turn)} if head.turn else {}
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels, "annotations": {RUN: head.run_id}}
    if version:
        metadata["resourceVersion"] = version
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _TYPE, "data": dict(data)}


def slug(name: str) -> str:
    """A leaf's name as a part of an object's, unique whatever it holds."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-")
    return f"{plain}-{sha256(name.encode()).hexdigest()[:8]}"


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)
