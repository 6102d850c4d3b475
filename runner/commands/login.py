"""`pipe login` and `pipe logout`: the token for a server, kept for later calls."""

import getpass
import os
import sys
from ipaddress import ip_address
from urllib.parse import urlsplit

import click

from pipeline.errors import PipeError
from runner.remote.connection import Server, server_url
from runner.remote.tokens import Tokens

__all__ = ["login", "logout"]


def login(words: str) -> int:
    """Ask for a token, try it, and keep it; without a terminal it is the first line of stdin.

    Raises:
        PipeError: the server does not know it, or it cannot be kept.
    """
    url = server_url(words)
    if url.startswith("http://") and not _is_here(url):
        sys.stderr.write(f"pipe: {url} is not encrypted: others on the way can read the token\n")
    token = getpass.getpass(f"Token for {url}: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not token.strip():
        raise PipeError("no token was given; `pipe token NAME` makes one on the server's machine")
    Server(url, token.strip()).get("projects")
    tokens = Tokens(os.environ)
    tokens.keep(url, token.strip())
    click.echo(f"{url}: the token is kept in {tokens.file}")
    return 0


def logout(words: str) -> int:
    """Forget the token for a server; the server knows it still."""
    url = server_url(words)
    tokens = Tokens(os.environ)
    if url not in tokens.read():
        raise PipeError(f"there is no token for {url} in {tokens.file}")
    tokens.keep(url, "")
    click.echo(f"{url}: forgotten")
    return 0


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
