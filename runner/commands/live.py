"""`pipe plan --live`: what a run would do, and what would stop it, asked of everybody who has a say in it."""

import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import click
from pydantic import JsonValue
from ulid_transform import ulid_now

from pipeline.plan import Plan, RunIdentity
from pipeline.stage import Cause, CauseKind, Finding, Severity
from runner.commands.load import Call, open_call
from runner.commands.plan import tree
from runner.commands.source import source_of
from runner.findings import Told, as_json, blocking, lines
from runner.hosts import detect
from runner.mask import Masker
from runner.preflight import Preflight, Report, Scene
from runner.secrets import Secrets, not_found, search_secrets
from runner.settings import cache_folder
from runner.store import Store
from stages.catalog import kind

__all__ = ["Looked", "look", "show"]


@dataclass
class Looked:
    """One pipeline's plan, and what a look ahead at it brought."""

    plan: Plan
    secrets: Secrets
    missing: Mapping[str, str] = field(default_factory=dict)
    """Secrets that are nowhere, with the places that were tried."""
    report: Report = field(default_factory=Report)
    facts: dict[str, JsonValue] = field(default_factory=dict)
    """What was found once for all stages: the commits that branches mean."""

    @property
    def found(self) -> list[Told]:
        """All findings, missing secrets first."""
        return [*(Told("", _no_secret(text)) for text in not_found(self.missing)), *self.report.found]

    @property
    def blocked(self) -> bool:
        """It would fail."""
        return bool(blocking(self.found))


def show(file: str, pipelines: Sequence[str], params: Sequence[str], *, as_json: bool, save: str = "") -> int:
    """Print the plans of the chosen pipelines and what was found; 1 if one would fail."""
    host = detect(dict(os.environ))
    call = open_call(file, pipelines, params, host)
    store = Store(host.environ, Path.cwd())
    plans = [call.plan(name, _identity(call, store, name)) for name in call.pipelines]
    looked = look(call, store, plans)
    mask = _masker(looked).mask_text
    for one in looked:
        for line in [json.dumps(_as_json(one), ensure_ascii=False)] if as_json else _shown(one):
            click.echo(mask(line))
    blocked = any(one.blocked for one in looked)
    if save and not blocked:
        from runner.commands.saved import save as write

        write(Path(save), call, looked)
        click.echo(f"saved: {save}; `pipe run --plan {save}` runs exactly this", err=as_json)
    elif save:
        click.echo(f"not saved to {save}: what will fail is not worth approving", err=True)
    return int(blocked)


def look(call: Call, store: Store, plans: Sequence[Plan]) -> list[Looked]:
    """Look ahead at all of them at once; what needs a secret that is missing is not looked at."""
    found = [search_secrets(plan, call.host, store.path) for plan in plans]
    looked = [Looked(plan, secrets, missing) for plan, (secrets, missing) in zip(plans, found, strict=True)]
    _load_kinds(plans)
    anyio.run(_look, call, looked, store)
    return looked


def _load_kinds(plans: Sequence[Plan]) -> None:
    """Modules of kinds are read before there is an event loop that reading them would hold up."""
    for name in {leaf.uses for plan in plans for leaf in (*plan.leaves, *plan.finally_)}:
        kind(name)


async def _look(call: Call, looked: Sequence[Looked], store: Store) -> None:
    async def one(item: Looked) -> None:
        scene = Scene(
            plan=item.plan,
            kind=kind,
            host=call.host,
            secrets=item.secrets,
            workspace=Path.cwd(),
            cache=cache_folder(call.host.environ, store.path, trusted=call.host.trigger.trusted),
            once=_Facts(item.facts).once,
            source=source_of(call.path, "", call.host),
        )
        item.report = await Preflight(scene).run()

    async with anyio.create_task_group() as tasks:
        for item in looked:
            tasks.start_soon(one, item)


class _Facts:
    """Facts of a run that does not exist."""

    def __init__(self, known: dict[str, JsonValue]) -> None:
        self._known = known
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def once(self, key: str, find: Callable[[], Awaitable[JsonValue]]) -> JsonValue:
        async with self._locks[key]:
            if key not in self._known:
                self._known[key] = await find()
            return self._known[key]


def _identity(call: Call, store: Store, pipeline: str) -> RunIdentity:
    number = call.host.number or store.next_number(pipeline)
    previous = store.previous(pipeline, number)
    return RunIdentity(id=call.host.run or ulid_now(), number=number, previous=previous, url=call.host.url)


def _masker(looked: Sequence[Looked]) -> Masker:
    masker = Masker()
    for one in looked:
        for text in one.secrets.texts():
            masker.add(text)
    return masker


def _no_secret(text: str) -> Finding:
    return Finding(Severity.FAILS, Cause(CauseKind.CONFIG, text))


# -- words -----------------------------------------------------------------------------------------


def _shown(one: Looked) -> Iterator[str]:
    reasons = {name: cause.message for name, cause in one.report.skipped.items()}
    yield from tree(one.plan, reasons, verdicts=True)
    yield ""
    yield from lines(one.found)
    yield from (f"will happen: {leaf}: {what}" for leaf, what in one.report.intends)
    for key, value in one.facts.items():
        commit = value.get("commit") if isinstance(value, dict) else value
        yield f"{key}: {commit}"
    stages = len({leaf for leaf, _ in one.report.checked})
    count = len(one.report.checked)
    yield f"ok: {count} thing(s) of {stages} stage(s), looked at in {one.report.seconds:.1f} s"


def _as_json(one: Looked) -> dict[str, JsonValue]:
    skipped = one.report.skipped
    return {
        "pipeline": one.plan.pipeline,
        "number": one.plan.run.number,
        "stages": [
            {
                "name": leaf.name,
                "uses": leaf.uses,
                "verdict": "skipped" if leaf.name in skipped else "run",
                "reason": skipped[leaf.name].message if leaf.name in skipped else "",
            }
            for leaf in (*one.plan.leaves, *one.plan.finally_)
        ],
        "findings": [as_json(told) for told in one.found],
        "checked": [{"stage": leaf, "what": what} for leaf, what in one.report.checked],
        "intends": [{"stage": leaf, "what": what} for leaf, what in one.report.intends],
        "facts": one.facts,
        "seconds": round(one.report.seconds, 3),
        "will_fail": one.blocked,
    }
