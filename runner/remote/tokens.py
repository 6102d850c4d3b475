"""The tokens for servers that somebody has logged in to: one file, which nobody else may read."""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.errors import PipeError

__all__ = ["Token", "Tokens", "token_for"]


class Token(str):
    """A token that does not show itself by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<token>"


class Tokens:
    """`pipe-ci/tokens.json` below `$XDG_CONFIG_HOME`, else `~/.config`: the URL of each server with a token."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - HOME may be unset
        self.file = Path(home) / "pipe-ci" / "tokens.json"

    def read(self) -> dict[str, str]:
        """All of them.

        Raises:
            PipeError: the file cannot be read, or others could read it too.
        """
        try:
            with self.file.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise PipeError(f"others may read the tokens in {self.file}: chmod 600 {self.file}")
                return {str(url): str(token) for url, token in json.load(file).items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PipeError(f"cannot read {self.file}: {error.strerror}") from error
        except (ValueError, AttributeError):
            raise PipeError(f"{self.file} is spoiled: remove it and log in again") from None

    def keep(self, url: str, token: str) -> None:
        """Keep a token, or forget that of a server if it is empty.

        Raises:
            PipeError: the file cannot be read or written; what was in it stays.
        """
        kept = {**self.read(), url: token}
        part = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({url: token for url, token in kept.items() if token}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.file)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise PipeError(f"cannot write {self.file}: {error.strerror}") from error


def token_for(url: str, environ: Mapping[str, str]) -> Token:
    """`$PIPE_TOKEN`, else what `pipe login` kept for that server; empty if there is neither."""
    return Token(environ.get("PIPE_TOKEN") or Tokens(environ).read().get(url, ""))
