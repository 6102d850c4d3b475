"""Secrets on their way from the server to a run: by a descriptor that one process inherits, and read once."""

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import PipeError
from pipeline.stage import Login, Secret, SecretFile, SecretKind, SecretText

__all__ = ["Handed", "Received", "handed", "offer", "receive", "taken"]


class Handed(BaseModel):
    """One secret: of a login `value` is the password, of a file or an ssh key its bytes in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: SecretKind
    value: str
    username: str = ""


_ALL = TypeAdapter(dict[str, Handed])


def handed(kind: SecretKind, secret: Secret) -> Handed:
    """A secret as it is handed over; a file is read.

    Raises:
        OSError: it cannot be.
    """
    match secret:
        case SecretText(value):
            return Handed(kind=kind, value=value)
        case Login(username, password):
            return Handed(kind=kind, value=password, username=username)
        case SecretFile(path):
            return Handed(kind=kind, value=base64.b64encode(path.read_bytes()).decode())


def offer(secrets: Mapping[str, Handed]) -> int:
    """A descriptor that holds the secrets, for a child to inherit; in memory, and complete before anybody reads.

    The caller closes it when the child has been started.
    """
    descriptor = os.memfd_create("secrets", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(_ALL.dump_json(dict(secrets)))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@dataclass(frozen=True, slots=True)
class Received:
    """What a run was given."""

    secrets: Mapping[str, Handed]

    def secret(self, name: str, kind: SecretKind) -> Secret | None:
        """The secret of that name; None if there is none.

        Raises:
            PipeError: it is of another kind, or this host has no place for a file.
        """
        found = self.secrets.get(name)
        if found is None:
            return None
        if found.kind != kind:
            raise PipeError(f"secret '{name}' is declared as {kind}, and the server keeps a {found.kind} of that name")
        return taken(found)


def taken(secret: Handed) -> Secret:
    """A secret as a run uses it. A file is in memory alone, and gone with this process.

    Raises:
        PipeError: this host has no such place for a file.
    """
    match secret.kind:
        case "text":
            return SecretText(secret.value)
        case "login":
            return Login(secret.username, secret.value)
    if not hasattr(os, "memfd_create"):
        raise PipeError("this host has no private place in memory for a secret of kind file (that takes Linux)")
    descriptor = os.memfd_create("secret", os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(base64.b64decode(secret.value))
    return SecretFile(Path(f"/proc/{os.getpid()}/fd/{descriptor}"))


def receive(descriptor: int | None) -> Received | None:
    """Read what was handed over and leave nothing behind for whoever has the descriptor too.

    Raises:
        PipeError: there is nothing of that kind.
    """
    if descriptor is None:
        return None
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            text = file.readall() or b""
            with suppress(OSError):  # a pipe is empty now as it is
                os.ftruncate(descriptor, 0)
        return Received(_ALL.validate_json(text))
    except (OSError, ValidationError) as error:
        raise PipeError(f"--secrets-fd {descriptor}: no secrets come from there") from error
