"""`sops:FILE`: a file that SOPS has encrypted; its top-level keys are names of secrets."""

import json
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from pipeline.errors import PipeError
from runner.secret_stores.store import Document

__all__ = ["Sops"]

WITHIN = 60.0
"""Seconds that decrypting may take: the key may be asked for over the network."""
_INSTALL = "install it (https://getsops.io), or leave the file out of PIPE_SECRETS"


class Sops:
    """One file, decrypted once by the program `sops`, which finds the key as it does by hand."""

    variables = frozenset(
        {"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_FILE", "VAULT_TOKEN"}
    )

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.address = f"sops:{file}"
        self._file = Path(file).expanduser()
        self._environ = environ

    def read(self, name: str) -> Document | None:
        """The value of the top-level key; see the contract."""
        found = self._decrypted.get(name)
        if found is None:
            return None
        if isinstance(found, dict):
            return {key: _bytes(value, f"{name}.{key} in {self.address}") for key, value in found.items()}
        return _bytes(found, f"{name} in {self.address}")

    @cached_property
    def _decrypted(self) -> dict[str, JsonValue]:
        if not self._file.is_file():
            raise PipeError(f"{self.address}: there is no file {self._file.absolute()}")
        command = ["sops", "--decrypt", "--output-type", "json", str(self._file.absolute())]
        try:
            done = subprocess.run(
                command,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=WITHIN,
                check=False,
            )
        except FileNotFoundError:
            raise PipeError(f"{self.address}: there is no program sops: {_INSTALL}") from None
        except subprocess.TimeoutExpired:
            raise PipeError(f"{self.address}: sops was not done after {WITHIN:g} s") from None
        if done.returncode:
            raise PipeError(f"{self.address}: sops says {_words(done.stderr)}")
        found = json.loads(done.stdout)
        if not isinstance(found, dict):
            raise PipeError(f"{self.address}: the names of secrets are the file's top-level keys, and it has none")
        return found


def _bytes(value: JsonValue, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool | int | float):
        return json.dumps(value).encode()
    raise PipeError(f"{where} is neither a text nor a number")


def _words(stderr: bytes) -> str:
    """What sops says is of several lines, and indented; none of it is a value."""
    return " ".join(stderr.decode(errors="replace").split())[:600] or "nothing, and ended badly"
