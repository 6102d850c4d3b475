"""All runs below one folder, and their numbers."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import PipeError
from runner.folder import RunFolder

__all__ = ["Store"]


class Store:
    """All runs below one folder: `<store>/<pipeline>/<number>/`."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self.path = Path(environ.get("PIPE_STORE") or folder / ".pipe").absolute()

    def prepare(self) -> None:
        """Make the folder, readable by its owner alone where secrets may lie, and keep it out of git.

        Raises:
            PipeError: the place cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def next_number(self, pipeline: str) -> int:
        """The number that the next run will probably get."""
        return max(self._numbers(pipeline), default=0) + 1

    def previous(self, pipeline: str, number: int) -> str:
        """How the last run before `number` ended: an outcome, or empty when there is none or it did not end."""
        before = [known for known in self._numbers(pipeline) if known < number]
        if not before:
            return ""
        folder = RunFolder(self.path / pipeline / str(max(before)))
        end = folder.ended()
        return end.outcome.value if end else ""

    def take(self, pipeline: str, number: int | None) -> tuple[int, RunFolder]:
        """Claim a run's number by making its folder, which one process alone can do.

        `number` None takes the next free one; a number that the host gave must be free.

        Raises:
            PipeError: the host's number is taken, or the store cannot be written.
        """
        self.prepare()
        wanted = number or self.next_number(pipeline)
        while True:
            folder = self.path / pipeline / str(wanted)
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
                (folder / "logs").mkdir()
                RunFolder(folder).ownership.claim()
            except FileExistsError:
                if number is not None:
                    raise PipeError(
                        f"run {pipeline}#{number} exists already in {self.path}: "
                        f"the host gave its number; set PIPE_STORE to another folder"
                    ) from None
                wanted += 1
                continue
            except OSError as error:
                raise self._unwritable(error) from error
            return wanted, RunFolder(folder)

    def runs(self) -> list[tuple[str, int, RunFolder]]:
        """Every run that is kept, the newest first."""
        found = [
            (folder.name, number, RunFolder(folder / str(number)))
            for folder in (sorted(self.path.glob("[!.]*")) if self.path.is_dir() else ())
            for number in self._numbers(folder.name)
        ]
        return sorted(found, key=lambda run: (run[2].made(), run[1]), reverse=True)

    def find(self, words: str) -> RunFolder:
        """The run that somebody means: `backend#12`, `12` or `backend` (its newest), or the path of its folder.

        Raises:
            PipeError: there is none, or several; it names what there is.
        """
        if "/" in words or words in (".", ".."):
            return self._at(Path(words))
        pipeline, hash_, number = words.rpartition("#") if "#" in words else ("", "", words)
        wanted = (pipeline, number) if hash_ or words.isdigit() else (words, "")
        found = [run for run in self.runs() if wanted[0] in ("", run[0]) and wanted[1] in ("", str(run[1]))]
        names = {run[0] for run in found}
        if not found:
            which = f"no run '{words}'" if words else "no run"
            raise PipeError(f"there is {which} in {self.path}{self._known()}")
        if len(names) > 1 and words:
            several = ", ".join(f"{name}#{number}" for name in sorted(names))
            raise PipeError(f"which run {words} do you mean: {several}?")
        return found[0][2]

    def _at(self, path: Path) -> RunFolder:
        folder = RunFolder(path.absolute())
        if not folder.plan.is_file():
            raise PipeError(f"{path} is no folder of a run: it has no {folder.plan.name}")
        return folder

    def _known(self) -> str:
        newest = [f"{name}#{number}" for name, number, _ in self.runs()[:5]]
        return f"; the newest are {', '.join(newest)}" if newest else ": nothing has run here yet"

    def _numbers(self, pipeline: str) -> Iterator[int]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in (self.path / pipeline).iterdir():
                if entry.name.isdigit():
                    yield int(entry.name)

    def _unwritable(self, error: OSError) -> PipeError:
        place = error.filename or self.path
        return PipeError(f"cannot write {place}: {error.strerror}; set PIPE_STORE to a folder that can be written")
