"""`pipe runs`: the newest runs, how each is, and why it is not green."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.cells import cell_len, set_cell_size

from pipeline.errors import PipeError
from runner.folder import RunFolder
from runner.sinks.tree import clock
from runner.sinks.view import plain_text
from runner.state import RunState, fold
from runner.status import Status, status
from runner.store import Store

__all__ = ["list_runs"]


def list_runs(pipeline: str, most: int, *, as_json: bool) -> int:
    """Print the newest runs, of one pipeline or of all."""
    store = Store(os.environ, Path.cwd())
    known = store.runs()
    chosen = [run for run in known if pipeline in ("", run[0])][:most]
    if not chosen:
        raise PipeError(f"there are no runs {f'of {pipeline} ' if pipeline else ''}in {store.path}")
    for line in _json_lines(chosen) if as_json else _table(chosen):
        click.echo(line)
    return 0


def _described(name: str, number: int, folder: RunFolder) -> tuple[RunState, Status]:
    if not folder.plan.exists():
        return RunState(), Status("never began", "it died before its plan was written")
    try:
        state = fold(folder.records())
    except ValueError as error:
        return RunState(), Status("spoiled", f"a journal in {folder.path} cannot be read: {error}")
    return state, status(folder, f"{name}#{number}", state)


def _json_lines(runs: list[tuple[str, int, RunFolder]]) -> Iterator[str]:
    for name, number, folder in runs:
        state, how = _described(name, number, folder)
        yield json.dumps(
            {
                "run": f"{name}#{number}",
                "id": state.id,
                "status": how.word,
                "note": how.note,
                "started": state.started,
                "finished": state.finished,
                "folder": str(folder.path),
            },
            ensure_ascii=False,
        )


def _table(runs: list[tuple[str, int, RunFolder]]) -> Iterator[str]:
    lines = []
    for name, number, folder in runs:
        state, how = _described(name, number, folder)
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started)) if state.started else ""
        took = clock((state.finished or time.time()) - state.started) if state.started and how.word != "died" else ""
        lines.append((f"{name}#{number}", how.word, began, took, plain_text(how.note)))
    widths = [max(cell_len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=False)]
        yield "  ".join([*cells, line[4]]).rstrip()
