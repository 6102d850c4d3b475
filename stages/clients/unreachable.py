"""Hosts and ports that a program could not have, in our words: pure functions of what it wrote."""

import re
from collections.abc import Iterator, Sequence

__all__ = ["in_plain_words"]

_NO_HOST = (
    re.compile(r"UnknownHostException: (?P<host>[^\s:]+)"),
    re.compile(r"ENOTFOUND (?P<host>\S+)"),
    re.compile(r"lookup (?P<host>\S+?)(?: on \S+)?: no such host"),
    re.compile(r'could not translate host name "(?P<host>[^"]+)"'),
    re.compile(r'host not found in upstream "(?P<host>[^":]+)'),
    re.compile(r"bad address '(?P<host>[^':]+)"),
)
_REFUSED = re.compile(r"connection refused|ECONNREFUSED|java\.net\.ConnectException", re.IGNORECASE)
# Each form begins only where a word does, and is bounded: a log may be one line of a megabyte.
_ADDRESS = re.compile(
    r"(?P<url>(?<![a-z0-9+.-])[a-z][a-z0-9+:.-]{0,30}://[^\s\"',;)]+)"
    r"|(?P<port>(?<![\w.:/-])[A-Za-z0-9](?:[\w.-]{0,252}[A-Za-z0-9])?(?:/[\d.]{1,40})?:\d{2,5})(?!\w|:\d)"
    r"|\((?P<alone>\d+(?:\.\d+){3})\)"
)
_IN_USE = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
_OTHER_CPU = re.compile(r"exec format error", re.IGNORECASE)


def in_plain_words(texts: Sequence[str]) -> tuple[str, str] | None:
    """What texts that belong together say of a host or port, and the way out; None if it is about none."""
    for text in texts:
        for pattern in _NO_HOST:
            if match := pattern.search(text):
                host = match["host"]
                hint = f"check the name '{host}', and that its Service is there (in another namespace: NAME.NAMESPACE)"
                return f"there is no host '{host}': {text}", hint
    refused = next((text for text in texts if _REFUSED.search(text)), None)
    if refused:
        where = next((address for text in texts for address in _addresses(text)), "")
        before = texts[: texts.index(refused)]
        to, by = f" to {where}" if where else "", f" ({before[-1]})" if before and not where else ""
        return (
            f"connection refused{to}: {refused}{by}",
            f"see that {where or 'what it connects to'} runs and listens there before this starts",
        )
    used = next((text for text in texts if _IN_USE.search(text)), None)
    if used:
        return f"its port is in use already: {used}", "give it another port, or end what listens there in the same pod"
    if other := next((text for text in texts if _OTHER_CPU.search(text)), None):
        return (
            f"its program is not made for this node's architecture, or is a script without #!: {other}",
            "build the image for the architecture of the nodes",
        )
    return None


def _addresses(text: str) -> Iterator[str]:
    for match in _ADDRESS.finditer(text):
        yield next(part for part in match.groups() if part)
