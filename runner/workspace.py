"""The folder that a run's stages share, and snapshots of it for those that want their own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan
from pipeline.stage import CauseKind, StageFailed
from runner.folder import RunFolder

__all__ = ["attempt_folders", "leaf_folder", "run_workspace"]


def run_workspace(plan: Plan, folder: RunFolder, caller: Path) -> Path:
    """One workspace a run: the caller's folder if nothing checks out, else `<run>/work`.

    Raises:
        PipeError: it cannot be made.
    """
    if not plan.checks_out:
        return caller
    try:
        folder.work.mkdir(exist_ok=True)
    except OSError as error:
        raise PipeError(f"cannot make the workspace {folder.work}: {error.strerror}") from error
    return folder.work


@asynccontextmanager
async def leaf_folder(leaf: Leaf, workspace: Path, copies: Path) -> AsyncIterator[tuple[Path, Path]]:
    """The workspace that a leaf sees and its `dir:` in it; with `workspace: copy` a snapshot in `copies`.

    Raises:
        StageFailed: `dir:` leads out of the workspace, or is not there.
    """
    if leaf.workspace == "shared":
        yield workspace, _inside(leaf, workspace)
        return
    place = _place(copies)
    try:
        copy = await anyio.to_thread.run_sync(_snapshot, workspace, place / "work")
        yield copy, _inside(leaf, copy)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, place, ignore_errors=True))


def _place(copies: Path) -> Path:
    copies.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(dir=copies))


def _snapshot(workspace: Path, copy: Path) -> Path:
    shutil.copytree(workspace, copy, symlinks=True, ignore=shutil.ignore_patterns(".pipe"))
    return copy


def _inside(leaf: Leaf, workspace: Path) -> Path:
    if not leaf.dir:
        return workspace
    folder = (workspace / leaf.dir).resolve()
    if not folder.is_relative_to(workspace.resolve()):
        raise StageFailed(f"dir: {leaf.dir} leads out of the workspace", kind=CauseKind.CONFIG)
    if not folder.is_dir():
        raise StageFailed(f"dir: there is no folder {leaf.dir} in the workspace", kind=CauseKind.CONFIG)
    return folder


@contextmanager
def attempt_folders(place: Path | None) -> Iterator[tuple[Path, Path]]:
    """Two folders of one attempt (0700), in `place` if that is given: for its outputs, and for files with secrets.

    Few have such files: whoever writes one makes the second folder.
    """
    outputs = Path(tempfile.mkdtemp(prefix="pipe-", dir=place))
    secrets = outputs.with_name(f"{outputs.name}-secrets")
    try:
        yield outputs, secrets
    finally:
        for folder in (outputs, secrets):
            _remove(folder)


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()  # one system call for most of them
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
