"""`pipe secrets check`: where the secrets of a file are found on this machine."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from pipeline.plan import Plan, RunIdentity
from runner.commands.load import open_call
from runner.hosts import Host, detect
from runner.secrets import search_secrets, wanted_secrets
from runner.store import Store

__all__ = ["check_secrets"]


class _Looked(NamedTuple):
    """One declared secret, and where it is. Without a place it is missing, or nobody wants it."""

    pipeline: str
    name: str
    kind: str
    stages: list[str]
    found: str
    missing: str

    @property
    def where(self) -> str:
        return self.found or (self.missing and f"missing: {self.missing}") or "no stage wants it"


def check_secrets(file: str, pipelines: Sequence[str], params: Sequence[str], *, as_json: bool) -> int:
    """Print for each declared secret of the chosen pipelines where it comes from; 1 if one is missing.

    Raises:
        PipeError: the file or the call is wrong, or a place of secrets cannot be read.
    """
    host = detect(dict(os.environ))
    store = Store(host.environ, Path.cwd())
    call = open_call(file, pipelines, params, host)
    plans = [call.plan(name, RunIdentity(id="", number=0), offline=True) for name in call.pipelines]
    looked = [one for plan in plans for one in _looked(plan, host, store)]
    for line in map(_as_json, looked) if as_json else _table(looked):
        click.echo(line)
    return int(any(one.missing for one in looked))


def _looked(plan: Plan, host: Host, store: Store) -> Iterator[_Looked]:
    found, missing = search_secrets(plan, host, store.path)
    wanted = wanted_secrets(plan)
    for name, source in plan.secrets.items():
        places = found.origins.get(name, ""), missing.get(name, "")
        yield _Looked(plan.pipeline, name, source.kind, wanted.get(name, []), *places)


def _as_json(one: _Looked) -> str:
    told = one._asdict() | {"outcome": "found" if one.found else "missing" if one.missing else "unwanted"}
    return json.dumps(told, ensure_ascii=False)


def _table(looked: Sequence[_Looked]) -> Iterator[str]:
    if not looked:
        yield "no secret is declared"
        return
    names = max(len(one.name) for one in looked)
    for before, one in zip([None, *looked], looked, strict=False):
        if before is None or before.pipeline != one.pipeline:
            yield one.pipeline
        sign = "✓" if one.found else "✗" if one.missing else "·"
        stages = f"  ({', '.join(one.stages)})" if one.found else ""
        yield f"  {sign} {one.name:{names}}  {one.kind:5}  {one.where}{stages}"
