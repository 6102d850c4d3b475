"""Running small plans in the real engine, with the probe and shell kinds and a store in a temporary folder."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from pydantic import JsonValue

from pipeline.plan import Leaf, Need, NeedWord, Plan, RunIdentity
from pipeline.stage import Outcome
from runner.attempt import World
from runner.context import Facts
from runner.engine import Engine, Pools, Request
from runner.events import Record
from runner.folder import RunFolder
from runner.hosts import Host
from runner.journal import Journal
from runner.mask import Masker
from runner.secrets import find_secrets
from runner.state import LeafState, RunState
from runner.store import Store
from stages.catalog import kind

__all__ = [
    "Run",
    "leaf",
    "need",
    "probe",
    "resumed",
    "run",
    "shell",
    "started",
    "until_inside_an_effect",
    "until_started",
]

_LOADED = [kind("probe"), kind("shell")]  # as resolve does before an event loop runs


def need(*leaves: str, word: str = "ok", group: bool = False) -> Need:
    """A need of these leaves of one stage."""
    return Need(on=leaves[0].partition("[")[0], leaves=leaves, word=NeedWord(word), group=group)


def leaf(name: str, uses: str, fields: Mapping[str, JsonValue], **more: object) -> Leaf:
    """A leaf as `resolve` would make it; `needs` may be given as texts."""
    stage, _, key = name.partition("[")
    needs = more.pop("needs", ())
    assert isinstance(needs, Sequence)
    given = {"timeout": "1h", "computes": kind(uses).computes, **more}
    return Leaf.model_validate(
        {
            "name": name,
            "stage": stage,
            "key": key.rstrip("]"),
            "uses": uses,
            "fields": dict(fields),
            "needs": tuple(need(item) if isinstance(item, str) else item for item in needs),
            **given,
        }
    )


def probe(
    name: str, *, needs: Sequence[str | Need] = (), options: Mapping[str, object] | None = None, **fields: JsonValue
) -> Leaf:
    """A leaf of the fake kind; `options` are keys of the stage itself."""
    return leaf(name, "probe", fields, needs=needs, **(options or {}))


def shell(name: str, script: str, *, needs: Sequence[str | Need] = (), **options: object) -> Leaf:
    """A leaf that runs a script."""
    return leaf(name, "shell", {"script": script}, needs=needs, **options)


@dataclass
class Run:
    """A run that has ended, or is under way."""

    engine: Engine
    folder: RunFolder
    workspace: Path
    outcome: Outcome | None = None

    @property
    def state(self) -> RunState:
        return self.engine.journal.state

    @property
    def records(self) -> list[Record]:
        return list(self.folder.records())

    def __getitem__(self, name: str) -> LeafState:
        return self.state.leaves[name]

    def outcomes(self) -> dict[str, str]:
        return {name: str(leaf.outcome) for name, leaf in self.state.leaves.items()}

    def log(self, name: str, attempt: int = 1) -> str:
        return self.folder.log(name, attempt).read_text()


def _engine(
    tmp_path: Path,
    leaves: Sequence[Leaf],
    *,
    finally_: Sequence[Leaf] = (),
    jobs: int = 8,
    pools: Mapping[str, int] | None = None,
    fail_fast: bool = False,
    environ: Mapping[str, str] | None = None,
    **plan_fields: object,
) -> Run:
    host = Host("terminal", {"PATH": os.environ["PATH"], **(environ or {})})
    number, folder = Store({}, tmp_path).take("test", None)
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    plan = Plan.model_validate(
        {
            "pipeline": "test",
            "file": "test.yaml",
            "run": RunIdentity(id=f"01TEST{number}", number=number),
            "leaves": tuple(leaves),
            "finally": tuple(finally_),
            "pools": dict(pools or {}),
            **plan_fields,
        }
    )
    return _in(folder, plan, host, tmp_path, jobs=jobs, fail_fast=fail_fast)


def _in(
    folder: RunFolder, plan: Plan, host: Host, place: Path, *, epoch: int = 1, jobs: int = 8, fail_fast: bool = False
) -> Run:
    masker = Masker()
    secrets = find_secrets(plan, host, place)
    for text in secrets.texts():
        masker.add(text)
    journal = Journal(folder, masker, epoch)
    workspace = place / "workspace"
    world = World(plan, journal, masker, secrets, host, workspace, place / "cache", kind, Facts(journal))
    return Run(Engine(world, Pools(jobs, plan.pools), Request(fail_fast=fail_fast)), folder, workspace)


async def resumed(before: Run) -> Run:
    """The same run in another engine, as after the death of the one before."""
    world, folder = before.engine.world, before.folder
    folder.ownership.release(1)
    made = _in(folder, world.plan, world.host, before.workspace.parent, epoch=folder.ownership.claim())
    with anyio.fail_after(30):
        made.outcome = await made.engine.run()
    return made


async def run(tmp_path: Path, *leaves: Leaf, **options: object) -> Run:
    """Run these leaves to the end; not longer than 30 seconds."""
    made = _engine(tmp_path, leaves, **options)  # type: ignore[arg-type]
    with anyio.fail_after(30):
        made.outcome = await made.engine.run()
    return made


@asynccontextmanager
async def started(tmp_path: Path, *leaves: Leaf, **options: object) -> AsyncIterator[Run]:
    """A run under way; leaving waits for its end."""
    made = _engine(tmp_path, leaves, **options)  # type: ignore[arg-type]

    async def work() -> None:
        made.outcome = await made.engine.run()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            yield made


async def until_inside_an_effect(run: Run, name: str) -> None:
    """Return when the body of a leaf's effect is running."""
    while name not in run.engine._wave.controls or not run.engine._wave.controls[name]._effects:
        await anyio.sleep(0.01)


async def until_started(run: Run, name: str) -> None:
    """Return when a leaf is running."""
    while not run.state.leaf(name).running:
        await anyio.sleep(0.01)
