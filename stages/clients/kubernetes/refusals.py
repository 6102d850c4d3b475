"""What the cluster refuses, as a table that people can act on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.stage import Cause, CauseKind, Finding, Severity, StageErrored, StageFailed
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.transport import ApiError

__all__ = ["answered_no", "explain", "of_the_object", "refusals"]

_CONFLICT = "FieldManagerConflict"
_NO_SUCH_TYPE = "failed to create typed patch object"
_IMMUTABLE = ("immutable", "updates to statefulset spec", "spec is immutable after creation")
_WAYS = {
    "owned": (
        "Fields owned by somebody else are never taken by force. Ways out: leave the field out of the manifest, so that"
        " its owner keeps it; or make its owner give it up; or take it over once, by hand:"
        " kubectl apply --server-side --field-manager=pipe --force-conflicts -f FILE"
    ),
    "immutable": (
        "An immutable field cannot be changed. Ways out: give the object a new name; or delete it, and the next deploy"
        " makes it again (its pods are gone meanwhile)"
    ),
    "forbidden": "Ways out: give the account of this kubeconfig the right that is named, or use another kubeconfig",
}


@dataclass(frozen=True, slots=True)
class _Row:
    sort: str
    thing: str
    field: str
    why: str


def explain(refused: Sequence[tuple[Manifest, ApiError]]) -> StageFailed | StageErrored:
    """The failure (config) for objects that the cluster refused; its evidence is the table and the ways out.

    Where the cluster only could not answer (a webhook is down, it is overloaded) it is an error (infra) instead.
    """
    rows = [row for manifest, error in refused for row in _rows(manifest, error)]
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    first = " ".join(part for part in (rows[0].thing, rows[0].field) if part)
    ways = [_WAYS[sort] for sort in dict.fromkeys(row.sort for row in rows) if sort in _WAYS]
    message = f"the cluster refuses {first}: {rows[0].why}{more}"
    if all(_passes(error) for _, error in refused):
        return StageErrored(message, evidence=_table(rows))
    return StageFailed(message, kind=CauseKind.CONFIG, evidence=[*_table(rows), *ways])


def refusals(manifest: Manifest, error: ApiError) -> list[Finding]:
    """The same before anything is written: a finding for each thing that the cluster says to an object."""
    kind = CauseKind.INFRA if _passes(error) else CauseKind.CONFIG
    return [
        Finding(
            Severity.FAILS,
            Cause(kind, f"{row.field} {row.why}".strip()),
            place=manifest.place,
            about=str(manifest.ref),
            hint=_WAYS.get(row.sort, "").removeprefix("Ways out: "),
        )
        for row in _rows(manifest, error)
    ]


def answered_no(error: ApiError, credentials: str) -> StageFailed | StageErrored:
    """The failure (config) for any other request: an unknown account (401), a missing right (403), or the like."""
    if _passes(error):
        return StageErrored(f"the cluster cannot {error.action} now: {error.message}")
    if error.status == 401:
        message = f"the cluster does not accept {credentials}: {error.message} (to {error.action})"
    elif error.status == 403:
        message = f"{credentials} may not {error.action}: {error.message}"
    else:
        message = f"the cluster does not {error.action}: {error.message} (HTTP {error.status})"
    return StageFailed(message, kind=CauseKind.CONFIG, evidence=[_WAYS["forbidden"]] if error.status == 403 else [])


def of_the_object(error: ApiError) -> bool:
    """Whether the answer is about what the object itself says; values of a wrong type are an internal error (500)."""
    return error.status in (400, 422) or (error.status == 500 and error.message.startswith(_NO_SUCH_TYPE))


def _passes(error: ApiError) -> bool:
    """Whether the answer says more about the moment than about the request."""
    return (error.status >= 500 or error.status == 429) and not of_the_object(error)


def _rows(manifest: Manifest, error: ApiError) -> Iterator[_Row]:
    thing = f"{manifest.ref} ({manifest.place})"
    # A Secret's refusal may quote its data.
    hidden = manifest.ref.kind == "Secret" and error.status in (400, 422, 500)
    if error.status == 403:
        yield _Row("forbidden", thing, "", error.message)
    elif hidden or not error.causes:
        said = f"HTTP {error.status} {error.reason}; its words are withheld, they may quote the Secret"
        yield _Row("invalid", thing, "", said if hidden else error.message)
    else:
        for cause in error.causes:
            yield _cause(thing, cause)


def _cause(thing: str, cause: dict[str, str]) -> _Row:
    message, field = cause.get("message", ""), cause.get("field", "")
    if cause.get("reason") == _CONFLICT:
        return _Row("owned", thing, field, "is owned by " + message.removeprefix("conflict with "))
    sort = "immutable" if any(sign in message for sign in _IMMUTABLE) else "invalid"
    return _Row(sort, thing, field, message)


def _table(rows: Sequence[_Row]) -> list[str]:
    lines = [("OBJECT", "FIELD", "WHY"), *((row.thing, row.field or "-", row.why) for row in rows)]
    first, second = (max(len(line[at]) for line in lines) for at in (0, 1))
    return [f"{thing:<{first}}  {name:<{second}}  {why}" for thing, name, why in lines]
