"""A first look at a repository that is added: what is there, within limits, and only to tell."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from pipeline.errors import InvalidPipeline, PipeError, hinted
from pipeline.model import read
from pipeline.source import load
from runner.server.projects import Project
from runner.server.repositories import Repository, RepositoryError
from stages.catalog import installed

__all__ = ["FirstLook", "first_look"]


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What was found, and what will not do as it is; each a line or more for people."""

    found: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    refs: Mapping[str, str] = field(default_factory=dict)
    """Where they stand."""


def first_look(project: Project) -> FirstLook:
    """Ask the repository for its main branch and the pipeline file there. Takes 40 s at most, and changes nothing.

    Raises:
        RepositoryError: it does not answer, or refuses.
    """
    with tempfile.TemporaryDirectory(prefix="pipe-look-") as folder:
        return anyio.run(_look, Repository(project, Path(folder) / "repository.git"))


async def _look(repository: Repository) -> FirstLook:
    refs = await repository.refs()
    if not refs:
        return FirstLook(doubts=(f"{repository.project.url} is empty: the first push to it is the first that counts",))
    return replace(await _look_at_file(repository), refs=refs)


async def _look_at_file(repository: Repository) -> FirstLook:
    try:
        branch = await repository.main_branch()
        commit = await repository.bring_tip(branch)
        text = await repository.text(commit, repository.project.file)
        names = await repository.names(commit)
    except RepositoryError as error:
        return FirstLook(doubts=(str(error),))
    there = f"its main branch is {branch}, at {commit[:12]}"
    file = f"{repository.project.file} at {branch}"
    if text is None:
        beside = [name for name in names if name.endswith((".yaml", ".yml"))]
        missing = hinted(f"there is no {file} (--file names another)", repository.project.file, beside)
        return FirstLook((there,), (missing,))
    try:
        pipelines = read(load(text.decode("utf-8", "replace"), repository.project.file), installed()).pipelines
    except InvalidPipeline as error:
        return FirstLook((there,), (f"{file} has mistakes:\n{error}",))
    except PipeError as error:
        return FirstLook((there,), (f"{file}: {error}",))
    idle = [name for name, pipeline in pipelines.items() if not pipeline.spec.triggers]
    doubts = (f"{file}: without `triggers:` no push starts {', '.join(idle)}",) if idle else ()
    return FirstLook((there, f"{file} has {', '.join(pipelines)}"), doubts)
