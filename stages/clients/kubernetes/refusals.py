"""What the cluster refuses, as a table that people can act on."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.stage import Cause, CauseKind, Finding, Severity, StageErrored, StageFailed
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.ownership import claims
from stages.clients.kubernetes.transport import ApiError

__all__ = ["answered_no", "explain", "has_no_dry_run", "of_the_object", "refusals"]

_NO_SUCH_TYPE = "failed to create typed patch object"
_IMMUTABLE = ("immutable", "updates to statefulset spec", "may not change once set", "cannot change roleRef")
_INVALID = re.compile(r"Invalid value: (.*): ([^:]+)")
_NO_DRY_RUN = "does not support dry run"
_LONG = 80
_WAYS = {
    "owned": (
        "A field that somebody else owns is not taken unless you say so. Ways out: leave the field out of the manifest,"
        " so that its owner keeps it; or say `on_conflict: ignore`, which does that for every such field; or"
        " `on_conflict: force`, which takes them; or make the owner give it up"
    ),
    "immutable": (
        "An immutable field cannot be changed, and pipe never deletes an object to make it again. Ways out: leave the"
        " field as it is; or give the object a new name; or delete it yourself, and the next deploy makes it again"
        " (what hangs on it, its pods say, is gone meanwhile)"
    ),
    "forbidden": "Ways out: give the account of this kubeconfig the right that is named, or use another kubeconfig",
}
_FIXED = "field is immutable"
_BRIEF = {
    "owned": "on_conflict: force | ignore",
    "immutable": "keep the field | new name | delete it first",
    "forbidden": "another account",
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


def has_no_dry_run(error: ApiError) -> bool:
    """Whether an admission webhook would act on it, so that the cluster tries nothing without doing it.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#side-effects
    """
    return _NO_DRY_RUN in error.message


def _passes(error: ApiError) -> bool:
    """Whether the answer says more about the moment than about the request."""
    return (error.status >= 500 or error.status == 429) and not of_the_object(error)


def _rows(manifest: Manifest, error: ApiError) -> Iterator[_Row]:
    thing = f"{manifest.ref} ({manifest.place})"
    # A Secret's refusal may quote its data.
    hidden = manifest.ref.kind == "Secret" and error.status in (400, 422, 500)
    if error.status == 403:
        yield _Row("forbidden", thing, "", error.message)
    elif owned := claims(error):
        yield from (_Row("owned", thing, claim.field, f"is owned by {claim.says}") for claim in owned)
    elif not error.causes:
        yield _Row("invalid", thing, "", _withheld(error) if hidden else error.message)
    else:
        for cause in error.causes:
            row = _cause(thing, cause)
            why = row.why if not hidden else _FIXED if row.sort == "immutable" else _withheld(error)
            yield replace(row, why=why)


def _withheld(error: ApiError) -> str:
    return f"HTTP {error.status} {error.reason}; its words are withheld, they may quote the Secret"


def _cause(thing: str, cause: dict[str, str]) -> _Row:
    message, field = cause.get("message", ""), cause.get("field", "")
    sort = "immutable" if any(sign in message for sign in _IMMUTABLE) else "invalid"
    return _Row(sort, thing, field, _brief(message))


def _brief(message: str) -> str:
    """The cluster's words in one line, without a value that nobody reads: a whole pod template, say."""
    first = message.partition("\n")[0]
    invalid = _INVALID.fullmatch(first)
    return f"Invalid value: {invalid[2]}" if invalid and len(invalid[1]) > _LONG else first


def _table(rows: Sequence[_Row]) -> list[str]:
    lines = [
        ("OBJECT", "FIELD", "WHY", "WAYS OUT"),
        *((row.thing, row.field or "-", row.why, _BRIEF.get(row.sort, "-")) for row in rows),
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(3)]
    return ["  ".join([*map(str.ljust, line, widths), line[-1]]) for line in lines]
