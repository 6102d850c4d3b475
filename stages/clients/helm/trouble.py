"""What Helm's last words mean, and whose turn it is."""

import re
from collections.abc import Sequence

from pipeline.stage import CauseKind, StageErrored, StageFailed

__all__ = ["trouble"]

_ERROR = re.compile(r"^Error: (?P<why>.*)", re.DOTALL | re.MULTILINE)
_ACTION = re.compile(r"^(?:INSTALLATION|UPGRADE|ROLLBACK) FAILED: ")
_LONGEST = 500
_REPOSITORY = r'(?:looks like "(?P<url>[^"]+)" is not a valid chart repository|failed to fetch (?P<index>\S+))'

_NETWORK = re.compile(
    r"connection refused|connection reset|no such host|i/o timeout|TLS handshake timeout|no route to host|EOF$"
    r"|Client\.Timeout exceeded|server misbehaving|50[234] (?:Bad Gateway|Service Unavailable|Gateway Timeout)"
)
_BUSY = re.compile(r"another operation \(install/upgrade/rollback\) is in progress|release: already exists")
_MEANINGS = (
    (_REPOSITORY + r".*\s(?:401|403)\b", "the chart repository {where} refuses the login; give it by `login:`"),
    (_REPOSITORY + r".*\s404\b", "there is no chart repository at {where}: it has no index.yaml"),
    (_REPOSITORY + r".*(?:unmarshal|yaml|no API version)", "what {where} serves as index.yaml is no index of charts"),
    (r"\b(?:401|403)\b.*(?:unauthorized|forbidden|denied)", "the registry refuses the login: {why}"),
    (r"basic credential not found", "the registry wants a login; give it by `login:` ({why})"),
    (r"repo \S+ not found", "{why}: give its URL by `repo:`, or have helm know it (`helm repo add`)"),
    (r"missing in charts/ directory", "{why}: let a stage before run `helm dependency build`"),
    (r"invalid ownership metadata", "something in the cluster is not of this release: {why}"),
    (r"execution error at \((?P<place>[^)]+)\): (?P<said>.*)", "the chart refuses its values at {place}: {said}"),
    (r"values don't meet the specifications of the schema", "the values are not what the chart's schema allows: {why}"),
)


def trouble(action: str, exit_code: int, lines: Sequence[str]) -> StageFailed | StageErrored:
    """The error for a helm that ended so, by what it wrote.

    Args:
        action: what it was to do: `helm upgrade`.
        exit_code: how it ended.
        lines: its last lines.
    """
    text = "\n".join(lines)
    match = _ERROR.search(text)
    why = " ".join(_ACTION.sub("", match["why"] if match else (lines[-1] if lines else "")).split())
    evidence = list(lines)[-20:]
    if not match:
        return StageFailed(f"{action} ended with exit code {exit_code}: {why}".removesuffix(": "), evidence=evidence)
    for pattern, words in _MEANINGS:
        if found := re.search(pattern, why, re.IGNORECASE):
            groups = found.groupdict()
            where = groups.get("url") or groups.get("index")
            said = words.format(why=why, where=where, place=groups.get("place"), said=groups.get("said"))
            return StageFailed(f"{action}: {said}"[:_LONGEST], kind=CauseKind.CONFIG, evidence=evidence)
    if _BUSY.search(why):
        return StageErrored(f"{action}: another helm works on this release", evidence=evidence)
    if _NETWORK.search(why):
        return StageErrored(f"{action}: {why}"[:_LONGEST], evidence=evidence)
    return StageFailed(f"{action}: {why}"[:_LONGEST], evidence=evidence)
