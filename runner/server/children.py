"""The processes of runs: each with its file, its secrets and its limits, as the user of its project."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio.to_thread
from sqlalchemy import Row

from pipeline.errors import PipeError
from pipeline.plan import Limits, SecretSource, Trigger
from runner import cgroups
from runner.handover import Handed, offer
from runner.secrets import variables
from runner.server import secrets
from runner.server.confinement import Confinement
from runner.server.copies import grant
from runner.server.layout import Layout
from runner.server.projects import Project, while_standing
from runner.server.registry import Registry
from runner.server.users import Account, Users, settle
from runner.sinks.mirror import TOKEN

__all__ = ["NO_BOUNDS", "Bounds", "Children"]

_LAUNCH = [sys.executable, "-c", "from runner.launch import main; main()"]
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "JAVA_HOME",
    "DOCKER_HOST",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GIT_SSL_CAINFO", "PIPE_CACHE"),
    *("PIPE_KEEP", "PIPE_KEEP_DAYS", "PIPE_KEEP_FREE"),
)
"""Variables of the server that its runs see; `--pass` adds others."""
OF_ONE_USER = ("HOME", "TMPDIR", "PIPE_CACHE")
"""Those that lead to places of the server's own user."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one run may use: bytes of memory, processes of its user, and how far it stands back for others."""

    memory: int | None = None
    processes: int = 0
    nice: int = 0


NO_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class _Given:
    """What a run is handed, and the variables that it must not see because secrets come from them."""

    secrets: Mapping[str, Handed]
    withheld: frozenset[str] = frozenset()
    token: str = ""
    """By which it reports itself."""


class Children:
    """Starts processes that outlive us, each in a session of its own and with its output in a file."""

    def __init__(
        self,
        registry: Registry,
        users: Users | None = None,
        bounds: Bounds = NO_BOUNDS,
        passed_on: Sequence[str] = (),
        mirror: str = "",
    ) -> None:
        """`users` None: they are the server's own user. `mirror`: the URL to which they report, if they do."""
        self._registry = registry
        self._layout: Layout = registry.layout
        self._users = users
        self._bounds = bounds
        self._mirror = mirror
        self._passed_on = (*PASSED_ON, *passed_on)
        self._running: list[subprocess.Popen[bytes]] = []

    async def begin(self, row: "Row[tuple[object, ...]]", project: Project) -> int:
        """Lay the file out as it was at the commit where it is read, and start `pipe run` on it; the pid.

        Raises:
            RepositoryError: the repository cannot be read now.
            NoCommit: it has lost the commit.
            OSError, PipeError: it cannot be started, and why: among others that its project was removed meanwhile.
        """
        repository = self._registry.repository(project)
        await repository.bring_commit(row.file_commit)  # another server may have taken its event in
        text = await repository.text(row.file_commit, project.file)
        if text is None:
            raise FileNotFoundError(f"there is no {project.file} at {row.file_commit}")
        file = self._layout.file(project.place, row.file_commit, project.file)
        given = [f"{row.pipeline}.{name}={value}" for name, value in json.loads(row.params).items()]
        params = [word for each in given for word in ("-p", each)]
        words = ["run", str(file), row.pipeline, *params, "-o", "plain"]
        return await self._start(row, project, words, {file: text})

    async def go_on(self, row: "Row[tuple[object, ...]]", project: Project, folder: Path) -> int:
        """Start `pipe resume` on a run whose engine died; the pid. Raises as `begin` does."""
        await self._registry.repository(project).bring_commit(
            row.file_commit
        )  # which secrets it declares is read there
        return await self._start(row, project, ["resume", str(folder), "-o", "plain"], {})

    def reap(self) -> None:
        """Take the exit codes of our own children; what became of their runs is in their folders."""
        self._running[:] = [child for child in self._running if child.poll() is None]

    def clear(self, run: str) -> None:
        """Take away what held the processes of a run that has ended. Blocks."""
        if self._bounds.memory:
            cgroups.remove(cgroups.named(run, "", 0))

    async def _start(
        self, row: "Row[tuple[object, ...]]", project: Project, words: Sequence[str], files: Mapping[Path, bytes]
    ) -> int:
        given = await self._given(row, project)
        account = None
        if users := self._users:
            account = await self._registry.database.write(lambda c: users.account(c, project.place))
        token = ""
        if self._mirror:
            token = await self._registry.database.write(partial(grant, run=row.id))
            words = [*words, "--mirror", self._mirror]
        launch = partial(self._launch, row, project, words, files, replace(given, token=token), account)
        return await anyio.to_thread.run_sync(launch)

    async def _given(self, row: "Row[tuple[object, ...]]", project: Project) -> _Given:
        """The secrets of one run, by what its pipeline declares; a file that is wrong is told by the run itself."""
        try:
            file = await self._registry.intake(project).file(row.file_commit)
        except PipeError:
            return _Given({})
        specs = {name: pipeline.spec.secrets for name, pipeline in file.pipelines.items()}
        sources = {
            name: {secret: SecretSource(kind=spec.kind, env=spec.env) for secret, spec in each.items()}
            for name, each in specs.items()
        }
        withheld = frozenset(
            variable
            for each in sources.values()
            for name, source in each.items()
            for variable in variables(name, source)
        )
        trigger = Trigger.model_validate_json(row.trigger)
        passed = {name: os.environ[name] for name in self._passed_on if name in os.environ}
        places = await anyio.to_thread.run_sync(secrets.places, self._layout.store(project.place), passed)
        declared = sources.get(row.pipeline, {})
        read = partial(
            secrets.for_run, seal=self._registry.seal, project=project.name, trigger=trigger, declared=declared,
            places=places,
        )  # fmt: skip
        return _Given(await self._registry.database.read(while_standing(project, read)), withheld)

    def _launch(
        self,
        row: "Row[tuple[object, ...]]",
        project: Project,
        words: Sequence[str],
        files: Mapping[Path, bytes],
        given: _Given,
        account: Account | None,
    ) -> int:
        """Blocks."""
        if account:
            settle(self._layout, project.place, account)
        for path, text in files.items():
            _write(path, text, self._layout.place(project.place), account)
        if given.token:
            self._layout.copy(project.place, row.id).mkdir(mode=0o700, parents=True, exist_ok=True)
        held = self._held(row.id, account)
        descriptor = offer(given.secrets)
        try:
            with self._layout.console(project.place, row.id).open("ab") as console:
                child = subprocess.Popen(
                    held.around([*_LAUNCH, *words, "--secrets-fd", str(descriptor)]),
                    cwd=self._scratch(project.place, row.id, account),
                    env=self._environ(row, project, given, account),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(descriptor,),
                    umask=0o022,  # a build copies modes into images: what others may not reach, its folder keeps
                )
        finally:
            os.close(descriptor)
        self._running.append(child)
        return child.pid

    def _held(self, run: str, account: Account | None) -> Confinement:
        users = self._users
        folders: tuple[str, ...] = ()
        if self._bounds.memory:
            group = cgroups.Group(cgroups.named(run, "", 0), Limits(memory=self._bounds.memory))
            folders = tuple(map(str, group.folders))
        if account is None or users is None:
            return Confinement(cgroups=folders, nice=self._bounds.nice)
        for folder in folders:  # `resources:` of its stages make groups below
            os.chown(folder, account.uid, account.gid)
        processes = self._bounds.processes
        return Confinement(account.uid, account.gid, users.groups, folders, processes, self._bounds.nice)

    def _scratch(self, place: str, run: str, account: Account | None) -> Path:
        made = self._layout.scratch(place, run)
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account:
            os.chown(made, account.uid, account.gid)
        return made

    def _environ(
        self, row: "Row[tuple[object, ...]]", project: Project, given: _Given, account: Account | None
    ) -> dict[str, str]:
        """What a run sees of our own variables, and what it is told about itself."""
        hidden = given.withheld | frozenset(OF_ONE_USER if account else ())
        passed = [name for name in self._passed_on if name not in hidden and not name.startswith("PIPE_SECRET_")]
        environ = {name: os.environ[name] for name in passed if name in os.environ}
        if account:
            environ["HOME"] = str(self._layout.home(project.place))
            environ["TMPDIR"] = str(self._layout.temporary(project.place))
        trigger = Trigger.model_validate_json(row.trigger).model_copy(update={"repo": project.url})
        if not trigger.trusted:
            # what a stranger's run leaves in a cache is for other strangers alone
            environ["PIPE_CACHE"] = str(self._layout.strangers_cache(project.place))
            environ |= {"PIPE_SERVER_FROM": row.fetched_from, "PIPE_SERVER_HEAD": row.ref}
        return environ | {
            "PIPE_STORE": str(self._layout.store(project.place)),
            "PIPE_SERVER_RUN": row.id,
            "PIPE_SERVER_NUMBER": str(row.number),
            "PIPE_KEEP_ARTIFACTS": "0",  # `pipe projects keep` says how many
            "PIPE_SERVER_TRIGGER": trigger.model_dump_json(),
            **({TOKEN: given.token} if given.token else {}),
        }


def _write(path: Path, text: bytes, place: Path, account: Account | None) -> None:
    """Write a file whole or not at all; the user of the project may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(text)
    if account:
        os.chown(part, -1, account.gid)
        part.chmod(0o640)
        for folder in path.relative_to(place).parents:
            if str(folder) != ".":
                os.chown(place / folder, -1, account.gid)
                (place / folder).chmod(0o710)
    part.replace(path)
