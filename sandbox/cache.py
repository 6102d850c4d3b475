"""Build what is expensive once for all checkouts of this user."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.layout import CACHE, locked


@contextmanager
def workshop(kind: str) -> Iterator[Path]:
    """Give a folder in the cache to build something of this kind in, alone; what crashes left there is removed."""
    folder = CACHE / f"building-{kind}"
    with locked(CACHE / f"{kind}.lock"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def bound_to_us(command: list[str]) -> list[str]:
    """Return `command` so that it dies with the thread that starts it: nobody waits for an orphaned compiler."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]
