"""Secrets of projects at rest: sealed with a key that lies beside the database, or comes from the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pipeline.errors import PipeError

__all__ = ["Seal"]

VARIABLE = "PIPE_SERVER_KEY"


class Seal:
    """Seals and opens texts. Several keys, separated by commas, open; the first one seals (for a change of keys)."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Take the key of the environment, else that in `folder`, which is made when there is none.

        Raises:
            PipeError: the key is none.
        """
        keys = environ.get(VARIABLE) or _kept(folder / "key")
        try:
            self._box = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
        except ValueError as error:
            where = VARIABLE if environ.get(VARIABLE) else folder / "key"
            raise PipeError(f"{where} is no key: it has to be 32 bytes in URL-safe base64") from error

    def close(self, text: str) -> bytes:
        """A sealed text."""
        return self._box.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text that was sealed.

        Raises:
            PipeError: it was sealed with another key.
        """
        try:
            return self._box.decrypt(sealed).decode()
        except InvalidToken:
            raise PipeError(
                f"a secret was sealed with another key: put the former one behind a comma into {VARIABLE}"
            ) from None


def _kept(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(Fernet.generate_key().decode())
        file.flush()
        os.fsync(file.fileno())
    return path.read_text()
