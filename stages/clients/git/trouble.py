"""What git says when it fails, in our words: who has to change what."""

import re
from collections.abc import Callable, Sequence

from pipeline.stage import CauseKind, StageErrored, StageFailed
from stages.clients.git.address import Address

__all__ = ["SILENT", "trouble", "worth_trying"]

FAILED = re.compile(
    r"(?P<absent>repository .* not found|does not appear to be a git repository|Repository not found|HTTP code = 404"
    r"|returned error: 404|not valid: is this a git repository)"
    r"|(?P<nameless>could not read Username|could not read Password)"
    r"|(?P<refused>Authentication failed|returned error: 40[13]|HTTP Basic: Access denied)"
    r"|(?P<key>Permission denied \()"
    r"|(?P<stranger>Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED)"
    r"|(?P<unknown>Could not resolve host(?:name)?)"
    r"|(?P<certificate>SSL certificate problem|server certificate verification failed)"
    r"|(?P<away>Failed to connect|Connection refused|Connection timed out|timed out|No route to host"
    r"|Network is unreachable|Operation too slow|Could not read from remote|early EOF|RPC failed"
    r"|returned error: (?:5\d\d|429)|Empty reply|Connection reset|Recv failure|unexpected disconnect"
    r"|not a git-upload-pack|protocol error|hung up|nothing heard|transfer closed|bad line length|expected flush)",
    re.IGNORECASE,
)
SILENT = "fatal: nothing heard for {limit:g} s"
"""What is said of a host that git was still waiting for."""

CONNECTING = re.compile(
    r"Failed to connect|Couldn't connect|connect to (?:host|address)|Connection refused|Connection timed out"
    r"|No route to host|Network is unreachable",
    re.IGNORECASE,
)
RECEIVING = re.compile(
    r"early EOF|unexpected disconnect|transfer closed|Operation too slow|index-pack|bad pack|sideband|curl 18|curl 56"
    r"|invalid index-pack|fetch-pack",
    re.IGNORECASE,
)

NOISE = ("warning:", "hint:", "remote: Enumerating", "Please make sure", "and the repository exists")


def worth_trying(lines: Sequence[str]) -> int:
    """How many further calls may help after one that failed with these lines.

    A host that was reached and broke off is asked again, one that was silent or refused a login once more: of several
    machines behind a name one may be behind. A host without a name, or with nobody at its port, is told at once.
    """
    said = "\n".join(_evidence(lines))
    match = FAILED.search(said)
    if match is None or CONNECTING.search(said):
        return 0
    if "nothing heard" in said:
        return 1
    return {"away": 3, "refused": 1, "nameless": 1}.get(match.lastgroup or "", 0)


def trouble(
    command: str, address: Address, lines: Sequence[str], secret: str, tries: int = 1
) -> StageFailed | StageErrored:
    """The error for a git command that failed so often, by the lines that it wrote at last."""
    evidence = _evidence(lines)
    match = FAILED.search("\n".join(evidence))
    where = f"git {command} {address}"
    if match is None:
        said = next((line for line in evidence if line.startswith(("fatal:", "error:"))), "it did not say why")
        return StageErrored(f"{where}: {said}", evidence=evidence)
    words = WORDS[match.lastgroup or "away"](address, secret, evidence)
    if match.lastgroup in {"unknown", "away"}:
        return StageErrored(f"{where}: {words} ({_when(evidence, tries)})", evidence=evidence)
    kind = CauseKind.USER if match.lastgroup in {"refused", "key"} else CauseKind.CONFIG
    return StageFailed(f"{where}: {words}", kind=kind, evidence=evidence)


def _evidence(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(NOISE)][-8:]


def _when(lines: Sequence[str], tries: int) -> str:
    """How far it had come, and how often it was tried."""
    said = "\n".join(lines)
    if "Could not resolve" in said:
        phase = "resolving"
    elif CONNECTING.search(said):
        phase = "connecting"
    elif "nothing heard" in said:
        phase = "connecting or negotiating"
    else:
        phase = "receiving" if RECEIVING.search(said) else "negotiating"
    return f"while {phase}" + (f", {tries} tries" if tries > 1 else "")


def _absent(address: Address, secret: str, _: Sequence[str]) -> str:
    seen = f", or the login '{secret}' may not see it" if secret else ", or it cannot be seen without `secret:`"
    return f"there is no repository '{address.path}'" + (seen if address.host else "")


def _nameless(_: Address, secret: str, __: Sequence[str]) -> str:
    if secret:
        return f"another host than that of `url` asks for a login, and the secret '{secret}' is not sent there"
    return "it wants a login: declare one under `secrets:` and name it in `secret:`"


def _refused(_: Address, secret: str, __: Sequence[str]) -> str:
    if secret:
        return (
            f"the login of the secret '{secret}' was refused: wrong user name, password or token, or no right to read"
        )
    return "access was refused: declare a login under `secrets:` and name it in `secret:`"


def _key(_: Address, secret: str, __: Sequence[str]) -> str:
    if secret:
        return f"the ssh key of the secret '{secret}' was refused"
    return "no ssh key was accepted: declare one under `secrets:` (NAME: ssh) and name it in `secret:`"


def _stranger(*_: object) -> str:
    return "the host shows another key than the one in known_hosts: if that is right, remove the old one there"


def _unknown(address: Address, _: str, __: Sequence[str]) -> str:
    return f"no host has the name '{address.host.partition(':')[0]}', or the name server does not answer: check `url:`"


def _certificate(*_: object) -> str:
    return "its certificate is not trusted: set GIT_SSL_CAINFO to the file of your authority"


def _away(_: Address, __: str, lines: Sequence[str]) -> str:
    said = next((line for line in lines if FAILED.search(line)), "")
    reason = said.removeprefix("fatal: ").removeprefix("error: ").rpartition("': ")[2]
    return f"it does not answer: {reason}"


WORDS: dict[str, Callable[[Address, str, Sequence[str]], str]] = {
    "absent": _absent,
    "nameless": _nameless,
    "refused": _refused,
    "key": _key,
    "stranger": _stranger,
    "unknown": _unknown,
    "certificate": _certificate,
    "away": _away,
}
