"""`pipe run --server`: starting runs on a server, and following them as if they ran here."""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from ulid_transform import ulid_now

from pipeline.errors import PipeError, hinted, nearest
from pipeline.stage import Outcome
from runner.remote.connection import Lost, Server, connect
from runner.remote.runs import ServerRun
from runner.remote.streams import Patience
from runner.sinks.choice import renderer
from runner.sinks.sink import Sink
from runner.sinks.view import RunView

__all__ = ["Options", "start"]


@dataclass(frozen=True, slots=True)
class Options:
    """The words of `pipe run --server`."""

    server: str
    project: str
    pipelines: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    ref: str = ""
    follow: bool = False
    output: str = "auto"


def start(options: Options) -> int:
    """Start a run of each pipeline that is named, or of all in the project's file, and print their names.

    With `follow` the exit code is that of the runs; Ctrl-C leaves them alone.

    Raises:
        PipeError: there is no such project, pipeline, parameter or ref, or the server cannot be reached.
    """
    server = connect(options.server, os.environ)
    wanted = _wanted(server, options)
    runs = [_started(server, options, pipeline, params) for pipeline, params in wanted.items()]
    if options.follow:
        return _Followed(runs, options.output).to_the_end()
    for run in runs:
        click.echo(run.name)
    sys.stderr.write(f"pipe: `pipe logs --server {server.url} '{runs[0].name}' -f` follows it\n")
    return 0


# -- starting --------------------------------------------------------------------------------------


def _wanted(server: Server, options: Options) -> dict[str, dict[str, str]]:
    """The pipelines that are meant, each with its parameters; all that is wrong with the words is told at once."""
    known = _pipelines(server, options)
    chosen = options.pipelines or tuple(known)
    problems = [
        hinted(f"{options.project} has no pipeline '{name}'", name, known) for name in chosen if name not in known
    ]
    found: dict[str, dict[str, str]] = {name: {} for name in chosen if name in known}
    for word in options.params if found else ():
        problems += _assign(word, {name: known[name] for name in found}, found)
    if problems:
        raise PipeError("\n".join(problems))
    return found


def _pipelines(server: Server, options: Options) -> dict[str, list[str]]:
    """The pipelines of the project's file at that ref, each with the names of its parameters."""
    projects = [row["name"] for row in server.get("projects")]
    if options.project not in projects:
        here = "; to run that file here say --server ''" if Path(options.project).is_file() else ""
        hint = nearest(options.project, projects)
        raise PipeError(f"{server.url} has no project '{options.project}'; {hint or 'it has none'}{here}")
    return {row["name"]: row["params"] for row in server.get("projects", options.project, "pipelines", ref=options.ref)}


def _assign(word: str, known: Mapping[str, Sequence[str]], found: Mapping[str, dict[str, str]]) -> list[str]:
    """Give a parameter to every pipeline that has it, or `PIPELINE.K=V` to one, as `pipe run FILE` does."""
    name, equals, value = word.partition("=")
    pipeline, _, param = name.rpartition(".")
    if not equals:
        return [f"-p {word}: write -p NAME=VALUE"]
    if pipeline and pipeline not in known:
        return [f"-p {word}: '{pipeline}' is not run"]
    takers = [each for each in known if pipeline in ("", each) and param in known[each]]
    for taker in takers:
        found[taker][param] = value
    names = {each for params in known.values() for each in params}
    return [] if takers else [f"-p {word}: there is no parameter '{param}'; {nearest(param, names) or 'there is none'}"]


def _started(server: Server, options: Options, pipeline: str, params: Mapping[str, str]) -> ServerRun:
    """Start one run; if the answer is lost the same key finds out whether it was started."""
    body = {"pipeline": pipeline, "ref": options.ref, "params": params, "key": ulid_now()}
    patience = Patience(30)
    while True:
        try:
            made = server.post("projects", options.project, "runs", body=body)
            return ServerRun(server, server.get("runs", made["run"]))
        except Lost as lost:
            patience.wait(lost)


# -- following -------------------------------------------------------------------------------------


@dataclass
class _Followed:
    """Runs that are followed to their ends, on one console."""

    runs: Sequence[ServerRun]
    output: str
    ends: dict[str, Outcome | None] = field(default_factory=dict)
    trouble: list[PipeError] = field(default_factory=list)

    def to_the_end(self) -> int:
        """The exit code: 0 when all are green, 1 when one is not, 130 after Ctrl-C."""
        shown = renderer(self.output, os.environ)
        sink = Sink(shown)
        threads = [
            threading.Thread(target=self._follow, args=(run, sink), name=run.name, daemon=True) for run in self.runs
        ]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
        sink.start()
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                self._wait(thread, sink)
        except KeyboardInterrupt:
            sink.stop()
            return self._left_alone()
        sink.stop()
        for problem in self.trouble:
            click.echo(problem, err=True)
        return 2 if self.trouble else int(any(end is not Outcome.SUCCEEDED for end in self.ends.values()))

    def _wait(self, thread: threading.Thread, sink: Sink) -> None:
        while thread.is_alive():
            thread.join(0.5)
            if sink.failure:  # nobody reads any more; the runs are still followed to their ends
                for run in self.runs:
                    run.logs.stop()

    def _follow(self, run: ServerRun, sink: Sink) -> None:
        """Bring the records of one run to the console."""
        try:
            read = None
            for record in run.follow(logs=sink.reads_logs):
                if record is not None:
                    read = read or sink.reader(self._view(run))
                    read(record)
            found = run.summary()
            self.ends[run.id] = found.outcome
            if read is None:
                click.echo(f"{run.name} never began: {found.status}", err=True)
        except PipeError as error:
            self.trouble.append(error)

    def _view(self, run: ServerRun) -> RunView:
        plan = run.plan()
        return RunView(plan, run.logs, plan.pipeline if len(self.runs) > 1 else "")

    def _left_alone(self) -> int:
        for run in self.runs:
            if run.id not in self.ends:
                words = f"--server {run.server.url} '{run.name}'"
                sys.stderr.write(f"pipe: {run.name} goes on without you; `pipe cancel {words}` ends it\n")
        return 130
