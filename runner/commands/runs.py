"""`pipe runs`: the newest runs, how each is, and why it is not green."""

import json
import time
from collections.abc import Iterator, Sequence

import click
from rich.cells import cell_len, set_cell_size

from pipeline.errors import PipeError, hinted
from runner.commands.where import where
from runner.runs import Runs, Summary
from runner.sinks.tree import clock
from runner.sinks.view import plain_text

__all__ = ["list_runs"]

LATELY = 50
"""So many runs say which pipelines there are."""


def list_runs(pipeline: str, most: int, server: str, *, as_json: bool) -> int:
    """Print the newest runs, of one pipeline or of all.

    Raises:
        PipeError: there are runs, and none of that pipeline.
    """
    known = where(server)
    chosen = [run.summary() for run in known.newest(pipeline, most)]
    if not chosen:
        return _tell_none(known, pipeline)
    for line in _json_lines(chosen) if as_json else _table(chosen):
        click.echo(line)
    return 0


def _tell_none(known: Runs, pipeline: str) -> int:
    """Nothing is wrong with that, unless the pipeline is one of which nobody has heard."""
    if pipeline and (others := known.newest("", LATELY)):
        names = dict.fromkeys(run.name.rpartition("#")[0] for run in others)
        raise PipeError(hinted(f"there are no runs of {pipeline} in {known.place}", pipeline, names))
    click.echo(f"there are no runs in {known.place} yet; `pipe run` starts one", err=True)
    return 0


def _json_lines(runs: Sequence[Summary]) -> Iterator[str]:
    for run in runs:
        yield json.dumps(
            {
                "run": run.name,
                "id": run.id,
                "status": run.status.word,
                "note": run.status.note,
                "started": run.started,
                "finished": run.finished,
                "folder": run.place,
            },
            ensure_ascii=False,
        )


def _table(runs: Sequence[Summary]) -> Iterator[str]:
    lines = []
    for run in runs:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)) if run.started else ""
        lasts = run.started and run.status.word != "died"
        took = clock((run.finished or time.time()) - run.started) if lasts else ""
        lines.append((run.name, run.status.word, began, took, plain_text(run.status.note)))
    widths = [max(cell_len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=False)]
        yield "  ".join([*cells, line[4]]).rstrip()
