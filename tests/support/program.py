"""Starting `pipe` as a user does."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PIPE", "events_of", "host", "pipe"]

PIPE = Path(sys.executable).with_name("pipe")


def host(**more: str) -> dict[str, str]:
    """An environment with what a program needs and nothing of the caller's own."""
    kept = ("PATH", "HOME", "JAVA_HOME", "LANG")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **more}


def pipe(
    folder: Path, *words: str | Path, env: Mapping[str, str] | None = None, limit: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """Run `pipe` in a folder and return what it said; not longer than `limit` seconds."""
    argv = [str(word) for word in (PIPE, *words)]
    return subprocess.run(
        argv, cwd=folder, env=env or host(), capture_output=True, text=True, timeout=limit, check=False
    )


def events_of(folder: Path, pipeline: str, number: int = 1) -> list[dict[str, Any]]:
    """The journal of a run in `folder`'s store."""
    journal = folder / ".pipe" / pipeline / str(number) / "events.1.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()]
