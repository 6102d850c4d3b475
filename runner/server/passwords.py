"""Passwords: argon2id, in threads of its own, and the same time for a name that nobody has."""

import secrets
import unicodedata
from typing import Any

import anyio
import anyio.to_thread

from pipeline.errors import PipeError

__all__ = ["Passwords", "check"]

SHORTEST, LONGEST = 12, 256
AT_ONCE = 2
"""How many are worked on at the same time: each takes a core and 19 MiB."""


def check(password: str, name: str) -> None:
    """Refuse a password that is guessed too easily.

    Raises:
        PipeError: why, in words for whoever chose it.
    """
    if len(password) < SHORTEST:
        raise PipeError(f"the password is too short: {SHORTEST} characters are the least; a few words make a good one")
    if len(password) > LONGEST:
        raise PipeError(f"the password is too long: {LONGEST} characters are the most")
    if len(set(password)) < 5 or (name and not password.casefold().replace(name, "")):
        raise PipeError("the password is easily guessed: take one of more different characters, and not the name")


class Passwords:
    """Makes and compares hashes."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._hasher: Any = None
        self._nobodys = ""

    async def hashed(self, password: str) -> str:
        """What is kept of a password."""
        return await anyio.to_thread.run_sync(self.hashed_now, password, limiter=self._limiter)

    def hashed_now(self, password: str) -> str:
        """The same where no event loop runs. Blocks for some 50 ms."""
        self._load()
        return str(self._hasher.hash(_bytes(password)))

    async def match(self, kept: str, password: str) -> bool:
        """Whether it is the password that was kept; without a kept one it takes as long, and is false."""
        return await anyio.to_thread.run_sync(self._match, kept, password, limiter=self._limiter)

    def _match(self, kept: str, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        self._load()
        try:
            right = self._hasher.verify(kept or self._nobodys, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return bool(right and kept)

    def _load(self) -> None:
        """argon2 is imported when somebody signs in, and not when the server starts."""
        if self._nobodys:
            return
        from argon2 import PasswordHasher

        # OWASP, Password Storage Cheat Sheet: the least for argon2id
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._nobodys = self._hasher.hash(secrets.token_bytes(32))


def _bytes(password: str) -> bytes:
    """One form for what keyboards make of the same letters (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password[: LONGEST * 2]).encode("utf-8", "surrogatepass")
