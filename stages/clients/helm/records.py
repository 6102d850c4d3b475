"""What Helm records of a release, one Secret a revision, and what we note on those Secrets by labels.

Helm hands the labels of a revision on to the next one, so each of ours begins with the number of the revision that it
was meant for; on any other it says nothing.
"""

import base64
import binascii
import gzip
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.stage import StageErrored
from stages.clients.kubernetes.api import Cluster, Resource
from stages.clients.kubernetes.objects import Object, Ref, dig
from stages.clients.kubernetes.transport import Request

__all__ = [
    "History",
    "Promise",
    "Recorded",
    "Revision",
    "labels_of",
    "note",
    "read_history",
    "read_recorded",
    "read_revision",
    "secret_ref",
    "this_machine",
]

MADE, UNDONE, JUDGED = "pipe-ci/made", "pipe-ci/undone", "pipe-ci/verdict"
"""Labels: who makes the revision, who rolls it back, and whether what it describes runs."""
_STANDING = {"deployed", "superseded"}
_GZIP = b"\x1f\x8b"
_SECRETS = Resource("v1", "Secret", "secrets", namespaced=True)
_METADATA_ALONE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches"""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Promise:
    """What is known of a helm that we start: `until` when it has ended (by the cluster's clock), where, for whom."""

    until: datetime
    machine: str
    mark: str
    """Names the stage of the run and what it was to install."""

    def label(self, number: int) -> str:
        """As the label of a revision."""
        return f"{number}.{int(self.until.timestamp())}.{self.machine}.{self.mark}"


def _promise(label: str, number: int) -> Promise | None:
    parts = label.split(".")
    if len(parts) != 4 or parts[0] != str(number) or not parts[1].isdecimal():
        return None
    return Promise(datetime.fromtimestamp(int(parts[1]), UTC), parts[2], parts[3])


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a release, as far as the labels of its record tell."""

    number: int
    status: str
    """As Helm has it: `deployed`, `superseded`, `failed`, `pending-upgrade`, …"""
    created: datetime
    changed: datetime
    """When its record was last written, by the cluster's clock."""
    uid: str
    made: Promise | None = None
    undone: Promise | None = None
    verdict: str = ""
    """Ours on what it describes: `open`, `good`, `bad`; empty: we have none."""

    @property
    def is_pending(self) -> bool:
        """A helm works on it, or has died over it."""
        return self.status.startswith("pending-")

    @property
    def stood(self) -> bool:
        """Helm took it for done, and we have not found that it does not run."""
        return self.status in _STANDING and self.verdict in ("", "good")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Revision):
    """A revision with all that Helm keeps of it, up to 1 MiB packed."""

    record: Mapping[str, Any]

    @property
    def manifest(self) -> str:
        """The objects that it describes, hooks left out."""
        return str(self.record.get("manifest") or "")

    @property
    def hooks(self) -> tuple[Mapping[str, Any], ...]:
        """Its hooks, each with how its last run ended."""
        return tuple(self.record.get("hooks") or ())

    @property
    def chart(self) -> Mapping[str, Any]:
        """What the chart says of itself."""
        found: Mapping[str, Any] = dig(self.record, "chart", "metadata") or {}
        return found


@dataclass(frozen=True, slots=True)
class History:
    """The revisions of a release that are kept, the newest last, and the cluster's clock when it told them."""

    revisions: tuple[Revision, ...]
    now: datetime

    @property
    def newest(self) -> Revision | None:
        """The newest one."""
        return self.revisions[-1] if self.revisions else None

    def get(self, number: int) -> Revision | None:
        """One by its number."""
        return next((each for each in self.revisions if each.number == number), None)

    def last_good(self, before: int) -> Revision | None:
        """The newest one before another that is worth going back to."""
        return next((each for each in reversed(self.revisions) if each.number < before and each.stood), None)

    def last_deployed(self, before: int) -> Revision | None:
        """The newest one before another that was there as a whole, whether it ran or not."""
        standing = [each for each in self.revisions if each.number < before and each.status in _STANDING]
        return max(standing, key=lambda each: (each.status == "deployed", each.number), default=None)

    def made_by(self, mark: str) -> Revision | None:
        """The newest one that a stage has made, however that ended."""
        return next((each for each in reversed(self.revisions) if each.made and each.made.mark == mark), None)

    def taken_over_by(self, mark: str) -> Revision | None:
        """The newest one, if an earlier attempt of a stage has made it and nobody has found that it does not run."""
        newest = self.newest
        stands = newest and newest.status == "deployed" and newest.verdict != "bad"
        return newest if stands and newest and newest.made and newest.made.mark == mark else None

    def own(self, mark: str, before: "History") -> Revision | None:
        """The revision that an attempt has made since `before`, or took over then; None: it has changed nothing.

        What an earlier attempt made and this one did not take over, that one has dealt with.
        """
        made, last = self.made_by(mark), before.newest.number if before.newest else 0
        return made if made and (made.number > last or before.taken_over_by(mark)) else None


async def read_history(cluster: Cluster, namespace: str, release: str) -> History:
    """Read which revisions Helm has recorded of a release: labels alone, so that it may be asked every moment.

    Raises:
        ApiError, StageErrored: as the cluster does.
        StageErrored: a record is none.
    """
    path = _SECRETS.path(namespace)
    query = (("labelSelector", f"owner=helm,name={release}"),)
    action = f"list the records of the release {release}"
    answer = await cluster.transport.send(Request("GET", path, action, query, accept=_METADATA_ALONE))
    found = [read_revision(secret) for secret in json.loads(answer.data).get("items") or ()]
    return History(tuple(sorted(found, key=lambda each: each.number)), cluster.now)


async def read_recorded(cluster: Cluster, namespace: str, release: str, number: int) -> Recorded:
    """Read all that Helm has recorded of a revision.

    Raises:
        ApiError, StageErrored: as the cluster does.
        StageErrored: there is no such record, or it is none.
    """
    ref = secret_ref(namespace, release, number)
    secret = await cluster.get(ref)
    if secret is None:
        raise StageErrored(f"{ref}, the record of revision {number}, is not there any more")
    with _readable(secret["metadata"]):
        record = _decoded(dig(secret, "data", "release") or "")
        return Recorded(**_told(secret["metadata"]), record=record)


def read_revision(secret: Object) -> Revision:
    """The revision that a Secret of type `helm.sh/release.v1` records; its metadata are enough.

    Raises:
        StageErrored: it is none.
    """
    with _readable(secret["metadata"]):
        return Revision(**_told(secret["metadata"]))


@contextmanager
def _readable(metadata: Object) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, OSError, EOFError) as error:
        name = f"Secret {metadata.get('namespace')}/{metadata.get('name')}"
        raise StageErrored(f"{name} is no record of a Helm release that can be read: {error}") from error


def _told(metadata: Object) -> dict[str, Any]:
    """What the metadata of a record say."""
    labels = metadata.get("labels") or {}
    number = int(labels["version"])
    created = _time(metadata["creationTimestamp"])
    written = [_time(each["time"]) for each in metadata.get("managedFields") or () if each.get("time")]
    judged, _, verdict = str(labels.get(JUDGED) or "").partition(".")
    return {
        "number": number,
        "status": str(labels.get("status") or ""),
        "created": created,
        "changed": max([created, *written]),
        "uid": metadata["uid"],
        "made": _promise(labels.get(MADE) or "", number),
        "undone": _promise(labels.get(UNDONE) or "", number),
        "verdict": verdict if judged == str(number) else "",
    }


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _decoded(data: str) -> Mapping[str, Any]:
    """Gzipped JSON in base64 (github.com/helm/helm, pkg/storage/driver/util.go), in the base64 of the Secret."""
    try:
        packed = base64.b64decode(base64.b64decode(data))
    except binascii.Error as error:
        raise ValueError("its data is no base64") from error
    found = json.loads(gzip.decompress(packed) if packed.startswith(_GZIP) else packed)
    if not isinstance(found, dict):
        raise ValueError("its data is no object")  # noqa: TRY004 - as all that is wrong with it
    return found


# -- what we note ----------------------------------------------------------------------------------


def secret_ref(namespace: str, release: str, number: int) -> Ref:
    """The Secret of a revision."""
    return Ref("v1", "Secret", namespace, f"sh.helm.release.v1.{release}.v{number}")


def labels_of(number: int, promise: Promise) -> dict[str, str]:
    """What a revision is made with."""
    return {MADE: promise.label(number), JUDGED: f"{number}.open"}


async def note(cluster: Cluster, secret: Ref, number: int, **said: str | Promise) -> None:
    """Note a `verdict` on a revision, or by whom it is `undone`. Raises what `Cluster.merge` does."""
    labels = {
        UNDONE if name == "undone" else JUDGED: word.label(number) if isinstance(word, Promise) else f"{number}.{word}"
        for name, word in said.items()
    }
    await cluster.merge(secret, {"metadata": {"labels": labels}})


def this_machine() -> str:
    """This boot of this machine or container, in a few characters; blocks."""
    try:
        boot = _BOOT.read_text()
    except OSError:
        boot = ""
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()[:8]
