"""What all secret stores have in common: they answer a name with a document, and a document holds one secret."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Protocol

from pipeline.errors import PipeError
from pipeline.stage import SecretKind
from runner.handover import Handed

__all__ = ["Document", "SecretStore", "secret_in"]

Document = bytes | Mapping[str, bytes]
"""What a store keeps under a name: one value, or several by key."""

_VALUE = "value"
_SSH_KEY = "ssh-privatekey"
_DOCKER = ".dockerconfigjson"


class SecretStore(Protocol):
    """A place that `PIPE_SECRETS` names."""

    @property
    def address(self) -> str:
        """The place as `PIPE_SECRETS` names it."""

    @property
    def variables(self) -> frozenset[str]:
        """The host's variables that open it: no process of a stage gets them."""

    def read(self, name: str) -> Document | None:
        """What it keeps under a name; None if it has nothing. Blocks, bounded in time.

        Raises:
            PipeError: it cannot be read.
        """


def secret_in(document: Document, kind: SecretKind, where: str) -> Handed:
    """The secret of the kind that was declared.

    A login is `username` and `password`, or a `.dockerconfigjson` with one registry; any other kind is the only
    value there is, else that of the key `value` (of an ssh key also `ssh-privatekey`). The keys are those of
    Kubernetes' own secret types.

    Raises:
        PipeError: the document holds no such thing; `where` is what the message calls it.
    """
    if kind == "login":
        username, password = _login(document, where)
        return Handed(kind=kind, value=password, username=username)
    value = _single(document, kind, where)
    if kind == "text":
        return Handed(kind=kind, value=_text(value, where).removesuffix("\n"))
    return Handed(kind=kind, value=base64.b64encode(value).decode())


def _login(document: Document, where: str) -> tuple[str, str]:
    if isinstance(document, Mapping):
        if "username" in document and "password" in document:
            return _text(document["username"], where), _text(document["password"], where)
        if _DOCKER in document:
            return _docker_login(document[_DOCKER], where)
    raise PipeError(f"{where} is declared as login: it needs the keys username and password, and has {_keys(document)}")


def _docker_login(config: bytes, where: str) -> tuple[str, str]:
    try:
        (entry,) = json.loads(config)["auths"].values()
        if "username" in entry:
            return str(entry["username"]), str(entry["password"])
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise PipeError(f"{where}: {_DOCKER} is not the login of one registry") from None
    return username, password


def _single(document: Document, kind: SecretKind, where: str) -> bytes:
    if not isinstance(document, Mapping):
        return document
    for key in (_SSH_KEY, _VALUE) if kind == "ssh" else (_VALUE,):
        if key in document:
            return document[key]
    if len(document) == 1:
        return next(iter(document.values()))
    raise PipeError(f"{where} is declared as {kind}: it needs one key, or one called value, and has {_keys(document)}")


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PipeError(f"{where} is no text in UTF-8; bytes are of the kind file") from None


def _keys(document: Document) -> str:
    return ", ".join(sorted(document)) or "none" if isinstance(document, Mapping) else "a value without keys"
