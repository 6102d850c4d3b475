"""What an engine leaves on its host when it dies, with its guardian or alone: processes, folders, control groups."""

import os
import re
import shutil
from pathlib import Path

from pipeline.plan import Plan
from runner import cgroups
from runner.events import RunResumed, RunStarted, StageStarted
from runner.folder import RunFolder
from runner.process import end_marked

__all__ = ["clear"]

_OURS = re.compile(r"pipe-[0-9]+-[0-9a-f]{12}")


def clear(folder: RunFolder, plan: Plan) -> int:
    """Remove what the dead engines of a run left here, and say how many processes that were. Blocks."""
    left = end_marked(plan.run.id)
    held = {leaf.name for leaf in (*plan.leaves, *plan.finally_) if leaf.resources}
    for record in folder.records():
        match record.event:
            case RunStarted(private=private) | RunResumed(private=private) if private:
                _remove(Path(private))
            case StageStarted(stage, attempt) if stage in held:
                cgroups.remove(cgroups.named(plan.run.id, stage, attempt))
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
