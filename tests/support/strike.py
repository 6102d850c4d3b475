"""Killing what carries a run: its engine, its guardian, or both at once."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

__all__ = ["WHOM", "strike"]

WHOM = ("engine", "guardian", "both")


def strike(run: "subprocess.Popen[bytes]", whom: str) -> None:
    """SIGKILL to one of `WHOM`, as far as it is there."""
    for pid in _victims(run.pid, whom):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _victims(guardian: int, whom: str) -> list[int]:
    with contextlib.suppress(OSError, IndexError):
        engine = int(Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()[0])
        return {"engine": [engine], "guardian": [guardian], "both": [guardian, engine]}[whom]
    return [guardian]
