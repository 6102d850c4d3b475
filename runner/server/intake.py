"""From events to runs: the file is read at the event's commit, and its triggers say which pipelines start."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread
from sqlalchemy import Connection, and_, func, insert, select, update
from ulid_transform import ulid_now

from pipeline.errors import PipeError, hinted
from pipeline.model import PipelineFile, read
from pipeline.plan import RunIdentity, Trigger, slug
from pipeline.resolve import assignments, resolve
from pipeline.source import load
from pipeline.spec import ParamSpec, PipelineSpec
from pipeline.triggers import Decision, Event, decide
from runner.server.announcements import announce
from runner.server.database import Database, refs, runs, statuses
from runner.server.ends import WAITS
from runner.server.forks import Refused, find, needs_approval, withdraw
from runner.server.payloads import Change, named_ref
from runner.server.projects import Project, must_stand
from runner.server.repositories import SOME_COMMIT, Repository, Strangers
from runner.server.users import as_owner
from runner.store import Store
from stages.catalog import installed

__all__ = ["Copies", "Found", "Intake"]

SHORT = re.compile(r"[0-9a-f]{7,39}")
"""Bitbucket tells the beginning of a commit's id alone."""
LONGEST_VALUE = 32 << 10
LONGEST_CHAIN = 30
"""How many runs may follow each other's ends."""
_BECAME = {"queued": "started", "waiting": "waits for approval"}
_UNFIT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """What found an event: a hook's delivery, the poll, or somebody's call."""

    by: str
    delivery: str = ""


@dataclass(frozen=True, slots=True)
class Copies:
    """What the server has of a project's repository, and apart from it of its forks."""

    own: Repository
    strangers: Strangers


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the commit of an event lies, and what goes with it."""

    copy: Repository
    file_commit: str
    """At which the pipeline file is read."""
    fetched_from: str = ""
    state: Literal["queued", "waiting"] = "queued"


class Intake:
    """Turns the events of one project into runs that wait for their start."""

    def __init__(
        self, database: Database, project: Project, copies: Copies, store: Path, hold: Callable[[Connection], None]
    ) -> None:
        """`store` is where the project's runs lie; `hold` raises when another server works its events by now."""
        self._database = database
        self._store = store
        self._project = project
        self._repository = copies.own
        self._strangers = copies.strangers
        self._hold = hold

    async def take(self, change: Change, found: Found) -> list[str]:
        """What became of one event: a line for each pipeline of the file.

        Raises:
            Removed: the project was removed meanwhile.
            RepositoryError: the repository cannot be read now; nothing was kept, so it can be taken again.
        """
        await self._repository.bring()
        try:
            change, origin = await self._located(await self._placed(change))
        except Refused as refused:
            return [str(refused)]
        event = replace(change.event, message=await origin.copy.message(change.event.trigger.commit))
        said = await self._decide(event, change.ref, origin)
        made = await self._database.write(lambda c: self._insert(c, change, found, said, origin))
        return [*filter(None, [said.why]), *(f"{name}: {said}" for name, said in made.items())]

    async def _located(self, change: Change) -> tuple[Change, _Origin]:
        """The event with its commit, and where that lies.

        Raises:
            Refused: nothing may be run of it.
        """
        trigger = change.event.trigger
        if not trigger.trusted:
            base = await self._base_that_takes_forks(trigger.base)
            head = await find(self._project, self._strangers, change)
            state: Literal["queued", "waiting"] = "waiting" if needs_approval(self._project, change) else "queued"
            placed = trigger.model_copy(update={"commit": head.commit})
            event = replace(change.event, trigger=placed)
            ref = f"refs/heads/{trigger.branch}" if head.fetched_from else change.ref
            return replace(change, event=event, ref=ref), _Origin(self._strangers, base, head.fetched_from, state)
        if not await self._repository.has(trigger.commit):
            raise Refused(f"the repository has no commit {trigger.commit or '(none)'} any more")
        if await self._late(change):
            raise Refused(f"it came late: {change.ref} has moved on from {trigger.commit[:12]}, and that has been seen")
        return change, _Origin(self._repository, trigger.commit)

    async def _base_that_takes_forks(self, branch: str) -> str:
        """The commit of the branch that a pull request is meant for.

        Raises:
            Refused: there is none, or its file takes no forks: then nothing of a stranger is even fetched.
        """
        commit = await self._repository.commit(f"refs/heads/{branch}")
        if not commit:
            raise Refused(f"the pull request is meant for {branch or 'no branch'}, which the repository does not have")
        try:
            file = await self.file(commit)
        except PipeError as error:
            raise Refused(str(error)) from None
        triggers = [pipeline.spec.triggers for pipeline in file.pipelines.values() if pipeline.spec.triggers]
        if not any(each.forks for some in triggers for each in some.pull_request):
            raise Refused("pull requests of forks are not taken (`forks: true`)")
        return commit

    async def _placed(self, change: Change) -> Change:
        """The event in our own words: of the project's repository, whatever name its forge has for it, and of a commit.

        An event that comes from no commit is one of the newest commit of the main branch.
        """
        told = change.event.trigger
        found = {} if told.kind == "pipeline" else {"repo": self._project.url}
        ref = change.ref
        if not told.commit and told.trusted:
            branch = await self._repository.main_branch()
            ref = f"refs/heads/{branch}"
            found |= {"branch": branch, "slug": slug(branch), "commit": await self._repository.commit(ref)}
        elif told.trusted and SHORT.fullmatch(told.commit):
            found["commit"] = await self._repository.commit(told.commit)
        trigger = told.model_copy(update=found)
        return replace(change, event=replace(change.event, trigger=trigger), ref=ref)

    async def pipelines(self, ref: str) -> dict[str, Mapping[str, ParamSpec]]:
        """The pipelines, each with its parameters, at a branch, tag, commit or BRANCH@COMMIT; empty: the main branch.

        Raises:
            PipeError: there is no such ref, or something is wrong with the file there.
            RepositoryError: the repository cannot be read now.
        """
        await self._repository.bring()
        _, commit = await self._found(ref or await self._repository.main_branch())
        file = await self.file(commit)
        return {name: pipeline.spec.params for name, pipeline in file.pipelines.items()}

    async def start(
        self,
        pipeline: str,
        ref: str,
        params: Mapping[str, str],
        by: str,
        key: str,
        told: Callable[[Connection, int, str], None],
    ) -> tuple[int, str]:
        """Start a run because somebody wants it: its number and id.

        `ref` is a branch, a tag, a commit or BRANCH@COMMIT; empty: the main branch. With a key that was given before,
        it is that run. `told` is called with both in the transaction that keeps the run.

        Raises:
            PipeError: there is no such pipeline, parameter or ref, or no such project any more.
            RepositoryError: the repository cannot be read now.
        """
        await self._repository.bring()
        full, commit = await self._found(ref or await self._repository.main_branch())
        kind, name = named_ref(full)
        trigger = Trigger(kind="manual", commit=commit, author=by, **({kind: name, "slug": slug(name)} if kind else {}))
        file = await self._check_start(pipeline, params, trigger)
        change = Change(Event(trigger), full if kind else "", name=key or ulid_now())
        origin = _Origin(self._repository, commit)

        def queue(connection: Connection) -> tuple[int, str]:
            must_stand(connection, self._project)
            event = _named(change, Found("call"))
            number = self._started(connection, pipeline, event)
            wanted = _Wanted(pipeline, params, event, grouped=_takes_turns(file, pipeline))
            number = number or self._queue(connection, wanted, change, Found("call"), origin)
            id_ = self._id(connection, pipeline, number)
            told(connection, number, id_)
            return number, id_

        return await self._database.write(queue)

    async def _found(self, ref: str) -> tuple[str, str]:
        """The full name of a branch or tag, or a commit as it is, and the commit that it stands for.

        `main@COMMIT` is the branch as it stood at one of its commits.
        """
        as_it_is = ref.startswith("refs/") or await self._repository.has(ref)
        for full in [ref] if as_it_is else [f"refs/heads/{ref}", f"refs/tags/{ref}"]:
            if commit := await self._repository.commit(full):
                return full, commit
        branch, _, earlier = ref.rpartition("@")
        if branch and SOME_COMMIT.fullmatch(earlier):
            return await self._at(branch, earlier)
        raise PipeError(f"there is no branch, tag or commit '{ref}' in {self._project.url}")

    async def _at(self, branch: str, earlier: str) -> tuple[str, str]:
        full = f"refs/heads/{branch.removeprefix('refs/heads/')}"
        tip, commit = await self._repository.commit(full), await self._repository.commit(earlier)
        if not tip:
            raise PipeError(f"there is no branch '{branch}' in {self._project.url}")
        if not commit or await self._repository.base(commit, tip) != commit:
            raise PipeError(f"{branch} has no commit {earlier} in {self._project.url}")
        return full, commit

    async def _check_start(self, pipeline: str, params: Mapping[str, str], trigger: Trigger) -> PipelineFile:
        """The file; raise PipeError for a pipeline, a parameter or a value that cannot be."""
        file = await self.file(trigger.commit)
        if pipeline not in file.pipelines:
            raise PipeError(hinted(f"{self._project.file} has no pipeline '{pipeline}'", pipeline, file.pipelines))
        assignments(file, [pipeline], [f"{name}={value}" for name, value in params.items()])
        if unfit := unfit_param(params):
            raise PipeError(unfit)
        check = partial(
            resolve, file, pipeline, run=RunIdentity(id="", number=1), trigger=trigger, params=params, host_env={},
            unset="placeholder", kinds=installed(),
        )  # fmt: skip
        await anyio.to_thread.run_sync(check)
        return file

    def _started(self, connection: Connection, pipeline: str, event: str) -> int:
        """The number of the run that an event started; 0 if there is none."""
        same = and_(runs.c.project == self._project.name, runs.c.pipeline == pipeline, runs.c.event == event)
        return connection.execute(select(runs.c.number).where(same)).scalar_one_or_none() or 0

    def _id(self, connection: Connection, pipeline: str, number: int) -> str:
        mine = and_(runs.c.project == self._project.name, runs.c.pipeline == pipeline, runs.c.number == number)
        return str(connection.execute(select(runs.c.id).where(mine)).scalar_one())

    async def file(self, commit: str) -> PipelineFile:
        """The pipeline file as it was at a commit.

        Raises:
            PipeError: there is none, or everything that is wrong with it.
        """
        text = await self._repository.text(commit, self._project.file)
        if text is None:
            raise PipeError(f"there is no {self._project.file} at {commit[:12]}")
        return await anyio.to_thread.run_sync(self._read, text)

    def _read(self, text: bytes) -> PipelineFile:
        return read(load(text.decode("utf-8", "replace"), self._project.file), installed())

    async def _late(self, change: Change) -> bool:
        """Whether the ref has moved on to what was taken already: an older commit would be released over it."""
        if change.event.trigger.kind not in ("push", "tag"):
            return False
        commit = change.event.trigger.commit
        mine = and_(refs.c.project == self._project.name, refs.c.ref == change.ref, refs.c.moves > 0)
        seen = await self._database.read(lambda c: c.execute(select(refs.c.commit).where(mine)).scalar_one_or_none())
        if not seen or seen == commit or await self._repository.commit(change.ref) == commit:
            return False
        return bool(await self._repository.base(commit, seen) != seen)

    async def _decide(self, event: Event, ref: str, origin: _Origin) -> "_Said":
        """What the triggers of each pipeline say, or why the file cannot be asked."""
        try:
            file = await self.file(origin.file_commit)
        except PipeError as error:
            return _Said({}, why=str(error))
        found = {}
        for name in file.pipelines:
            asked = replace(event, paths=await self._paths(file.pipelines[name].spec, event, ref, origin))
            spec = file.pipelines[name].spec
            decision = partial(decide, spec, asked, repo=self._project.url, variables={})
            found[name] = await anyio.to_thread.run_sync(decision)
        return _Said(found, frozenset(name for name in found if _takes_turns(file, name)))

    async def _paths(self, spec: PipelineSpec, event: Event, ref: str, origin: _Origin) -> Sequence[str] | None:
        """What changed since the pipeline's last run on that branch, or since the branches of a pull request parted."""
        triggers = spec.triggers
        entries = (*triggers.push, *triggers.pull_request) if triggers else ()
        if not any(each.paths for each in entries):
            return None
        commit = event.trigger.commit
        if event.trigger.kind == "pull_request":
            base = await self._repository.commit(f"refs/heads/{event.trigger.base}")
            before = await origin.copy.base(base, commit) if base else ""
        else:
            before = await self._database.read(lambda connection: self._last(connection, spec.name, ref, commit))
        return await origin.copy.changed(before, commit) if before else None

    def _last(self, connection: Connection, pipeline: str, ref: str, commit: str) -> str:
        """The commit of the last push of which a run succeeded; what a failed one should have built is still new."""
        mine = and_(runs.c.project == self._project.name, runs.c.pipeline == pipeline, runs.c.ref == ref)
        good = and_(runs.c.outcome == "succeeded", runs.c.event.like("push %"), runs.c.commit != commit)
        newest = select(runs.c.commit).where(mine, good).order_by(runs.c.number.desc()).limit(1)
        return connection.execute(newest).scalar_one_or_none() or ""

    def _insert(
        self, connection: Connection, change: Change, found: Found, said: "_Said", origin: _Origin
    ) -> dict[str, str]:
        """Keep the runs and where the ref stands now, all or nothing; what became of each pipeline.

        An event that is known already has its run, whatever its triggers would say by now.
        """
        must_stand(connection, self._project)
        event = self._move(connection, change) or _named(change, found)
        self._withdraw(connection, change.event.trigger, event)
        lines = {}
        for name, decision in said.decisions.items():
            if there := self._started(connection, name, event):
                lines[name] = f"#{there} runs it already"
            elif decision.starts and (unfit := unfit_param(decision.params)):
                lines[name] = unfit
            elif decision.starts and (circle := _circle(change.chain, f"{self._project.name}/{name}")):
                lines[name] = circle
            elif decision.starts:
                wanted = _Wanted(name, decision.params, event, grouped=name in said.grouped)
                number = self._queue(connection, wanted, change, found, origin)
                lines[name] = f"#{number} {_BECAME[origin.state]}"
            else:
                lines[name] = decision.why
        return lines

    def _withdraw(self, connection: Connection, trigger: Trigger, event: str) -> None:
        """An approval is for one commit and one base: what waits for one of an earlier state of it waits in vain."""
        if trigger.kind == "pull_request":
            why = f"the pull request has moved on to {trigger.commit[:12]} for {trigger.base}"
            withdraw(connection, self._project.name, trigger.number, event, why)

    def _move(self, connection: Connection, change: Change) -> str:
        """Note where a branch or tag stands now, and name that move; it is the same one while the ref stays there."""
        trigger = change.event.trigger
        if trigger.kind not in ("push", "tag"):
            return ""
        self._hold(connection)
        mine = and_(refs.c.project == self._project.name, refs.c.ref == change.ref)
        known = connection.execute(select(refs).where(mine)).one_or_none()
        stays = known is not None and known.moves > 0 and known.commit == trigger.commit
        moves = (known.moves if known else 0) + (not stays)
        if known is None:
            row = {"project": self._project.name, "ref": change.ref, "commit": trigger.commit, "moves": moves}
            connection.execute(insert(refs).values(row))
        else:
            connection.execute(update(refs).where(mine).values(commit=trigger.commit, moves=moves))
        return f"{trigger.kind} {change.ref} {moves} {trigger.commit}"

    def _number(self, connection: Connection, pipeline: str) -> int:
        """The next number: beyond all that the database knows, and all that lie in the store."""
        mine = and_(runs.c.project == self._project.name, runs.c.pipeline == pipeline)
        known = connection.execute(select(func.max(runs.c.number)).where(mine)).scalar_one_or_none() or 0
        with as_owner(self._store):
            return max(known + 1, Store({"PIPE_STORE": str(self._store)}, self._store).next_number(pipeline))

    def _queue(self, connection: Connection, wanted: "_Wanted", change: Change, found: Found, origin: _Origin) -> int:
        trigger = change.event.trigger
        number = self._number(connection, wanted.pipeline)
        id_ = ulid_now()
        row = {
            "id": id_,
            "project": self._project.name,
            "place": self._project.place,
            "pipeline": wanted.pipeline,
            "number": number,
            "event": wanted.event,
            "found_by": found.by,
            "delivery": found.delivery,
            "ref": change.ref,
            "commit": trigger.commit,
            "file_commit": origin.file_commit,
            "fetched_from": origin.fetched_from,
            "chain": json.dumps(change.chain),
            "trigger": trigger.model_dump_json(),
            "params": json.dumps(dict(wanted.params)),
            "grouped": wanted.grouped,
            "state": origin.state,
            "created": time.time(),
        }
        connection.execute(insert(runs).values(row))
        told = {"run": id_, "state": "pending", "description": WAITS[origin.state]}
        connection.execute(insert(statuses).values(told))
        if origin.state == "waiting":
            announce(connection, id_, "waiting")
        return number


@dataclass(frozen=True, slots=True)
class _Said:
    """What the file says of an event: which pipelines start, which of them take turns; or why it cannot be asked."""

    decisions: Mapping[str, Decision]
    grouped: frozenset[str] = frozenset()
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A run that is to be."""

    pipeline: str
    params: Mapping[str, str]
    event: str
    grouped: bool


def _takes_turns(file: PipelineFile, pipeline: str) -> bool:
    return file.pipelines[pipeline].spec.concurrency is not None


def _named(change: Change, found: Found) -> str:
    """An event that moves no ref, in words that are the same however often it is told."""
    trigger = change.event.trigger
    if trigger.kind == "pull_request":
        return f"pull_request {trigger.number} {trigger.commit} {trigger.base}"
    return f"{trigger.kind} {change.name or found.delivery}"


def _circle(chain: Sequence[str], name: str) -> str:
    """Why the end of a run does not start a pipeline whose own end led to it; empty if it did not."""
    if name in chain:
        return f"it would go round for ever: {' → '.join([*chain[chain.index(name) :], name])}"
    return f"it would be the {len(chain) + 1}th in a row that ends start" if len(chain) >= LONGEST_CHAIN else ""


def unfit_param(params: Mapping[str, str]) -> str:
    """Why a value cannot be given to a program; empty if all can."""
    for name, value in params.items():
        if _UNFIT.search(value):
            return f"the parameter '{name}' holds a character that no program can be given"
        if len(value.encode()) > LONGEST_VALUE:
            return f"the parameter '{name}' is longer than {LONGEST_VALUE >> 10} KiB"
    return ""
