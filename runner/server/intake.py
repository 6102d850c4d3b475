"""From events to runs: the file is read at the event's commit, and its triggers say which pipelines start."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, func, insert, select, update
from ulid import ULID

from pipeline.errors import PipeError, nearest
from pipeline.model import PipelineFile, read
from pipeline.plan import Trigger
from pipeline.resolve import assignments
from pipeline.source import load
from pipeline.triggers import Decision, Event, decide
from runner.server.database import Database, refs, runs, statuses
from runner.server.payloads import Change, slug
from runner.server.projects import Project
from runner.server.repositories import Repository
from stages.catalog import installed

__all__ = ["Found", "Intake"]


@dataclass(frozen=True, slots=True)
class Found:
    """What found an event: a hook's delivery, the poll, or somebody's call."""

    by: str
    delivery: str = ""


class Intake:
    """Turns the events of one project into runs that wait for their start."""

    def __init__(self, database: Database, project: Project, repository: Repository) -> None:
        self._database = database
        self._project = project
        self._repository = repository

    async def take(self, change: Change, found: Found) -> list[str]:
        """What became of one event: a line for each pipeline of the file.

        Raises:
            RepositoryError: the repository cannot be read now; nothing was kept, so it can be taken again.
        """
        if change.event.trigger.fork:
            return ["pull requests of forks are not built yet: nothing of a stranger is run"]
        await self._repository.bring()
        change = await self._placed(change)
        trigger = change.event.trigger
        if not await self._repository.has(trigger.commit):
            return [f"the repository has no commit {trigger.commit or '(none)'} any more"]
        if await self._late(change):
            return [f"it came late: {change.ref} has moved on from {trigger.commit[:12]}, and that has been seen"]
        event = replace(change.event, message=await self._repository.message(trigger.commit))
        decisions, why = await self._decide(event, change.ref)
        lines = [why] if why else []
        made = await self._database.write(lambda c: self._insert(c, change, found, decisions))
        return [*lines, *(f"{name}: {said}" for name, said in made.items())]

    async def _placed(self, change: Change) -> Change:
        """An event that comes from no commit is one of the newest commit of the main branch."""
        trigger = change.event.trigger
        if trigger.commit:
            return change
        branch = await self._repository.main_branch()
        found = {"branch": branch, "commit": await self._repository.commit(f"refs/heads/{branch}")}
        made = trigger.model_copy(update={"repo": self._project.url, **found})
        return replace(change, event=replace(change.event, trigger=made), ref=f"refs/heads/{branch}")

    async def start(self, pipeline: str, ref: str, params: Mapping[str, str], by: str) -> tuple[int, str]:
        """Start a run because somebody wants it: its number and id.

        `ref` is a branch, a tag or a commit; empty: the main branch.

        Raises:
            PipeError: there is no such pipeline, parameter or ref.
            RepositoryError: the repository cannot be read now.
        """
        await self._repository.bring()
        ref = ref or await self._repository.main_branch()
        for full in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref if await self._repository.has(ref) else ""):
            if full and (commit := await self._repository.commit(full)):
                break
        else:
            raise PipeError(f"there is no branch, tag or commit '{ref}' in {self._project.url}")
        kind = {"refs/heads": "branch", "refs/tags": "tag"}.get("/".join(full.split("/")[:2]), "")
        file = await self.file(commit)
        if pipeline not in file.pipelines:
            raise PipeError(f"{self._project.file} has no pipeline '{pipeline}'; {nearest(pipeline, file.pipelines)}")
        assignments(file, [pipeline], [f"{name}={value}" for name, value in params.items()])
        trigger = Trigger(kind="manual", commit=commit, author=by, **({kind: ref, "slug": slug(ref)} if kind else {}))
        change = Change(Event(trigger), full if kind else "", name=str(ULID()))

        def queue(connection: Connection) -> tuple[int, str]:
            number = self._queue(connection, pipeline, params, change, f"manual {change.name}", Found("call"))
            return number, self._id(connection, pipeline, number)

        return await self._database.write(queue)

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
        return read(load(text.decode("utf-8", "replace"), self._project.file), installed())

    async def _late(self, change: Change) -> bool:
        """Whether later commits of the branch were taken already: an older one would be released over them."""
        if change.event.trigger.kind != "push":
            return False
        commit = change.event.trigger.commit
        mine = and_(refs.c.project == self._project.name, refs.c.ref == change.ref, refs.c.moves > 0)
        seen = await self._database.read(lambda c: c.execute(select(refs.c.commit).where(mine)).scalar_one_or_none())
        if seen in (None, commit) or await self._repository.commit(change.ref) == commit:
            return False
        return await self._repository.base(commit, seen) == commit

    async def _decide(self, event: Event, ref: str) -> tuple[dict[str, Decision], str]:
        """What the triggers of each pipeline say, or why the file cannot be asked."""
        try:
            file = await self.file(event.trigger.commit)
        except PipeError as error:
            return {}, str(error)
        found = {}
        for name in file.pipelines:
            asked = replace(event, paths=await self._paths(file, name, event, ref))
            found[name] = decide(file.pipelines[name].spec, asked, repo=self._project.url, variables={})
        return found, ""

    async def _paths(self, file: PipelineFile, name: str, event: Event, ref: str) -> Sequence[str] | None:
        """What changed since the pipeline's last run on that branch, or since the branches of a pull request parted."""
        triggers = file.pipelines[name].spec.triggers
        entries = (*triggers.push, *triggers.pull_request) if triggers else ()
        if not any(each.paths for each in entries):
            return None
        commit = event.trigger.commit
        if event.trigger.kind == "pull_request":
            before = await self._repository.base(f"refs/heads/{event.trigger.base}", commit)
        else:
            before = await self._database.read(lambda connection: self._last(connection, name, ref))
        return await self._repository.changed(before, commit) if before else None

    def _last(self, connection: Connection, pipeline: str, ref: str) -> str:
        mine = and_(runs.c.project == self._project.name, runs.c.pipeline == pipeline, runs.c.ref == ref)
        newest = select(runs.c.commit).where(mine).order_by(runs.c.number.desc()).limit(1)
        return connection.execute(newest).scalar_one_or_none() or ""

    def _insert(
        self, connection: Connection, change: Change, found: Found, decisions: Mapping[str, Decision]
    ) -> dict[str, str]:
        """Keep the runs and where the ref stands now, all or nothing; what became of each pipeline.

        An event that is known already has its run, whatever its triggers would say by now.
        """
        event = self._move(connection, change) or _named(change, found)
        lines = {}
        for name, decision in decisions.items():
            same = and_(runs.c.project == self._project.name, runs.c.pipeline == name, runs.c.event == event)
            there = connection.execute(select(runs.c.number).where(same)).scalar_one_or_none()
            if there is not None:
                lines[name] = f"#{there} runs it already"
            elif decision.starts:
                number = self._queue(connection, name, decision.params, change, event, found)
                lines[name] = f"#{number} started"
            else:
                lines[name] = decision.why
        return lines

    def _move(self, connection: Connection, change: Change) -> str:
        """Note where a branch or tag stands now, and name that move; it is the same one while the ref stays there."""
        trigger = change.event.trigger
        if trigger.kind not in ("push", "tag"):
            return ""
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

    def _queue(
        self, connection: Connection, name: str, params: Mapping[str, str], change: Change, event: str, found: Found
    ) -> int:
        trigger = change.event.trigger
        mine = and_(runs.c.project == self._project.name, runs.c.pipeline == name)
        number = (connection.execute(select(func.max(runs.c.number)).where(mine)).scalar_one_or_none() or 0) + 1
        id_ = str(ULID())
        row = {
            "id": id_,
            "project": self._project.name,
            "pipeline": name,
            "number": number,
            "event": event,
            "found_by": found.by,
            "delivery": found.delivery,
            "ref": change.ref,
            "commit": trigger.commit,
            "trigger": trigger.model_dump_json(),
            "params": json.dumps(dict(params)),
            "state": "queued",
            "created": time.time(),
        }
        connection.execute(insert(runs).values(row))
        told = {"run": id_, "state": "pending", "description": "waits for its start"}
        connection.execute(insert(statuses).values(told))
        return number


def _named(change: Change, found: Found) -> str:
    """An event that moves no ref, in words that are the same however often it is told."""
    trigger = change.event.trigger
    if trigger.kind == "pull_request":
        return f"pull_request {trigger.number} {trigger.commit}"
    return f"{trigger.kind} {change.name or found.delivery}"
