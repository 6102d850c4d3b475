"""What an engine leaves on its host when it dies together with its guardian: processes, and folders with secrets."""

import os
import re
import shutil
from pathlib import Path

from runner.events import RunResumed, RunStarted
from runner.folder import RunFolder
from runner.process import end_marked

__all__ = ["clear"]

_OURS = re.compile(r"pipe-[0-9]+-[0-9a-f]{12}")


def clear(folder: RunFolder, run: str) -> int:
    """Remove what the dead engines of a run left here, and say how many processes that were. Blocks."""
    left = end_marked(run)
    for record in folder.records():
        if isinstance(record.event, RunStarted | RunResumed) and record.event.private:
            _remove(Path(record.event.private))
    shutil.rmtree(folder.copies, ignore_errors=True)
    return left


def _remove(private: Path) -> None:
    """A journal may come from anywhere: only a folder that a guardian of this user made is removed."""
    try:
        ours = _OURS.fullmatch(private.name) and private.lstat().st_uid == os.getuid() and not private.is_symlink()
    except OSError:
        return
    if ours:
        shutil.rmtree(private, ignore_errors=True)
