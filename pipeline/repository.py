"""Repositories by their URLs: the same one has many."""

import re

__all__ = ["same_repository"]


def same_repository(one: str, other: str) -> bool:
    """Whether two URLs lead to the same repository, by whatever scheme, user and port."""
    return _repository(one) == _repository(other)


def _repository(url: str) -> str:
    """A repository whatever way leads to it: host and path, without scheme, user, port and `.git`."""
    text = re.sub(r"^[a-z+]+://", "", url.strip(), flags=re.IGNORECASE)
    host, _, path = re.sub(r"^[^/@]*@", "", text).partition("/")
    name, colon, rest = host.partition(":")
    if colon and not rest.isdigit():  # git@host:path
        path = f"{rest}/{path}".rstrip("/")
    return f"{name}/{path.rstrip('/').removesuffix('.git')}".lower()
