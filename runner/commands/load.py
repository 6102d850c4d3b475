"""From the words of a call to plans: the file, the pipelines chosen, the values given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipeError, hinted
from pipeline.model import PipelineFile, read
from pipeline.plan import Plan, RunIdentity
from pipeline.resolve import assignments, resolve
from pipeline.source import load
from runner.hosts import Host
from stages.catalog import installed

__all__ = ["Call", "open_call"]


@dataclass(frozen=True)
class Call:
    """A file, which of its pipelines are meant, and the parameters for each."""

    file: PipelineFile
    path: Path
    pipelines: tuple[str, ...]
    params: Mapping[str, Mapping[str, str]]
    host: Host

    def plan(self, pipeline: str, run: RunIdentity, *, offline: bool = False) -> Plan:
        """The plan of one pipeline. `offline`: host variables that are not set are shown as `<unset>`.

        Raises:
            InvalidPipeline: parameters are missing or wrong, all of them at once.
        """
        return resolve(
            self.file,
            pipeline,
            run=run,
            trigger=self.host.trigger,
            params=self.params[pipeline],
            host_env=self.host.environ,
            unset="placeholder" if offline else "error",
            kinds=installed(),
        )


def open_call(path: str, pipelines: Sequence[str], params: Sequence[str], host: Host) -> Call:
    """Read and check a file.

    Raises:
        InvalidPipeline: everything that is wrong with it.
        PipeError: it cannot be read, or a pipeline or parameter that was named is not in it.
    """
    place = Path(path)
    if place.is_dir():
        raise PipeError(f"{path} is a folder: name a file in it{_beside(place / 'pipeline.yaml')}")
    if not place.is_file():
        raise PipeError(f"{path}: no such file{_beside(place)}")
    file = read(load(place, path), installed())
    known = tuple(file.pipelines)
    for name in pipelines:
        if name not in known:
            raise PipeError(hinted(f"{path} has no pipeline '{name}'", name, known))
    chosen = tuple(pipelines) or known
    return Call(file, place, chosen, assignments(file, chosen, params), host)


def _beside(place: Path) -> str:
    folder = place.parent
    names = [p.name for p in folder.glob("*.y*ml")] if folder.is_dir() else []
    return hinted("", place.name, names)
