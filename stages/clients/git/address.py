"""Which URLs and ref names may reach git, and what is wrong with the others."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

__all__ = ["Address", "check_ref", "is_commit", "parse_url"]

Scheme: TypeAlias = Literal["http", "https", "ssh", "file"]

SCP_LIKE = re.compile(r"(?P<user>[A-Za-z0-9_][\w.+-]*)@(?P<host>[A-Za-z0-9][\w.-]*):(?P<path>[^:].*)")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]")
UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(?:/|$)|(?:^|/)\.|\.$|/$|^/|^-|^@$")


@dataclass(frozen=True, slots=True)
class Address:
    """A repository's URL, taken apart; it holds no password."""

    url: str
    scheme: Scheme
    host: str
    """Host and port as in the URL; empty for a local repository."""
    path: str
    user: str = ""

    def __str__(self) -> str:
        return self.host or self.path


def parse_url(url: str) -> Address:
    """Take a URL apart.

    Raises:
        ValueError: it is no URL of http, https, ssh or file, or a password stands in it.
    """
    if not url or url.startswith("-") or UNPRINTABLE.search(url):
        raise ValueError(f"{url!r} is no URL of a git repository: it is empty, begins with a dash or holds a space")
    if url.startswith("/"):
        return Address(f"file://{url}", "file", "", url)
    if match := SCP_LIKE.fullmatch(url):
        return Address(url, "ssh", match["host"], match["path"], match["user"])
    return _parse_full(url)


def _parse_full(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise ValueError(f"the URL cannot be read: {error}") from None
    if parts.scheme not in {"http", "https", "ssh", "file"}:
        shown = f"'{parts.scheme}:' of the URL" if parts.scheme else f"{url!r}"
        raise ValueError(f"{shown} is not supported: use https://, http://, ssh://, user@host:path or file:///")
    if parts.password is not None or (parts.username and parts.scheme != "ssh"):
        raise ValueError(
            f"a login stands in the URL of {parts.hostname}, where logs and .git/config would keep it: "
            "take it out, declare it under `secrets:` (NAME: login) and name it in `secret:`"
        )
    if parts.scheme == "file":
        return Address(url, "file", "", parts.path)
    host = parts.netloc.rpartition("@")[2]
    if not HOST.fullmatch(host.removesuffix(port) if port else host):
        raise ValueError(f"{host!r} is no name of a host")
    return Address(url, _scheme(parts.scheme), host, parts.path.strip("/"), parts.username or "")


def _scheme(text: str) -> Scheme:
    return "https" if text == "https" else "http" if text == "http" else "ssh"


def is_commit(ref: str) -> bool:
    """Whether it is the full name of a commit: 40 or 64 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", ref) is not None


def check_ref(ref: str) -> None:
    """Apply git's own rules for names.

    Raises:
        ValueError: git knows no branch or tag of such a name.
    """
    if not ref or BAD_IN_REF.search(ref):
        raise ValueError(f"{ref!r} is no name that a branch, tag or commit can have")
