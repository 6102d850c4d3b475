"""`pipe releases`, `pipe rollback` and the releases of `pipe diff`: what is kept in the cluster, and the way back."""

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import click
from pydantic import JsonValue
from ulid_transform import ulid_now

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, Retry, RunIdentity
from pipeline.stage import StageErrored, StageFailed
from runner.commands.drive import Ready, drive
from runner.commands.targets import Place, Where, place_of, split_release
from runner.guardian import Guardian
from runner.hosts import detect
from runner.secrets import find_secrets
from runner.sinks.view import plain_text
from runner.store import Store
from stages.catalog import kind
from stages.clients.kubernetes.access import cluster_at
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.compare import compare
from stages.clients.kubernetes.ledger import Ledger, state_after
from stages.clients.kubernetes.records import TARGET, Head, Part
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Wanted", "diff_releases", "list_releases", "rollback"]

T = TypeVar("T")
PIPELINE = "rollback"
"""The name under which runs of `pipe rollback` are kept."""


def list_releases(target: str, where: Where, *, as_json: bool) -> int:
    """Print the releases of a target, the newest first.

    Raises:
        PipeError: no cluster is named, it does not answer or refuses, or it knows no such target.
    """
    heads = _ask(_place(target, where), _listed)
    if as_json:
        click.echo("\n".join(json.dumps(_as_json(head)) for head in heads))
        return 0
    for line in _table(heads):
        click.echo(plain_text(line))
    return 0


def diff_releases(before: str, after: str, where: Where) -> int:
    """Print what differs between two releases of one target; raises as `list_releases`."""
    (target, first), (other, second) = split_release(before), split_release(after)
    if target != other or not (first and second):
        raise PipeError(f"two releases of one target can be compared, as in {target}@1 {target}@2")

    async def work(ledger: Ledger) -> list[str]:
        heads = await ledger.heads()
        old, new = (_known(heads, number, target) for number in (first, second))
        return [*_words(old, new), *compare(await _held(ledger, heads, old), await _held(ledger, heads, new))]

    lines = _ask(_place(target, where), work)
    shown = (
        [f"{before} → {after}", *(f"  {line}" for line in lines)] if lines else [f"{before} and {after} hold the same"]
    )
    click.echo("\n".join(map(plain_text, shown)))
    return 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The words of `pipe rollback`."""

    release: str = ""
    service: str = ""
    past_irreversible: bool = False
    output: str = "auto"
    guardian: Guardian | None = None


def rollback(wanted: Wanted, where: Where) -> int:
    """Go back to a release, in a run of its own: journaled, resumable, and red if it did not succeed.

    Raises:
        PipeError: no cluster is named, or it is not known where the target is.
    """
    host, store = detect(dict(os.environ)), Store(os.environ, Path.cwd())
    target, number = split_release(wanted.release) if wanted.release else ("", 0)
    place = _place(target, where)
    if not (place.target and place.namespace):
        found = _ask(place, _itself)
        place = replace(place, target=found.target, namespace=found.namespace)
    taken, folder = store.take(PIPELINE, None)
    plan = _plan(place, number, wanted, RunIdentity(id=ulid_now(), number=taken))
    secrets = find_secrets(plan, host, store.path)
    folder.write_plan(plan.model_dump_json(by_alias=True, exclude_defaults=True))
    ready = Ready(plan, folder, secrets, store.path, caller=Path.cwd())
    return drive([ready], replace(host, number=None), wanted.output, wanted.guardian)


def _plan(place: Place, number: int, wanted: Wanted, run: RunIdentity) -> Plan:
    fields: dict[str, JsonValue] = {
        "target": place.target,
        "namespace": place.namespace,
        "secret": place.secret,
        "kubeconfig": "" if place.secret else str(place.kubeconfig),
        "context": place.context,
        "to": number,
        "service": wanted.service,
        "past_irreversible": wanted.past_irreversible,
    }
    leaf = Leaf(
        name=PIPELINE,
        stage=PIPELINE,
        uses="rollback",
        fields=fields,
        secret_names=(place.secret,) if place.secret else (),
        timeout=kind("rollback").default_timeout,
        retry=Retry(times=5),
        closes=True,
    )
    secrets = {place.secret: place.source} if place.source else {}
    return Plan(pipeline=PIPELINE, file="", run=run, secrets=secrets, leaves=(leaf,))


# -- asking ----------------------------------------------------------------------------------------


def _place(target: str, where: Where) -> Place:
    return place_of(target, where, os.environ, Store(os.environ, Path.cwd()))


def _ask(place: Place, work: Callable[[Ledger], Awaitable[T]]) -> T:
    """Ask the cluster; what it refuses is one line for the person who called."""

    async def run() -> T:
        async with await anyio.to_thread.run_sync(cluster_at, place.kubeconfig, place.label, place.context) as cluster:
            try:
                found = await _complete(cluster, place)
                return await work(Ledger(cluster, found.namespace, found.target))
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    try:
        return anyio.run(run)
    except (StageFailed, StageErrored) as error:
        raise PipeError(str(error)) from error


async def _complete(cluster: Cluster, place: Place) -> Place:
    """The place with its namespace and target, which the Lease of the target tells."""
    if place.target and place.namespace:
        return place
    label = f"{TARGET}={place.target}" if place.target else TARGET
    leases, _ = await cluster.items(Collection("coordination.k8s.io/v1", "Lease", place.namespace, label))
    found = [(each["metadata"]["labels"][TARGET], each["metadata"]["namespace"]) for each in leases]
    if len(found) == 1:
        return replace(place, target=found[0][0], namespace=found[0][1])
    known = ", ".join(f"{target} in {namespace}" for target, namespace in found)
    if not found:
        raise PipeError(f"{cluster.server} knows no target{f' {place.target!r}' if place.target else ''} of releases")
    raise PipeError(f"which target do you mean: {known}? Name it, and its namespace by -n")


async def _itself(ledger: Ledger) -> Ledger:
    return ledger


async def _held(ledger: Ledger, heads: Mapping[int, Head], head: Head) -> list[Part]:
    """The parts that a release holds; of one that was rolled back or died those that it was about to."""
    state = head.state
    if not state:
        own = await ledger.parts([head.number])
        state = state_after(heads, head, [part.name for part in own])
    return [part for part in await ledger.parts(state.values()) if state.get(part.name) == part.number]


async def _listed(ledger: Ledger) -> list[Head]:
    heads = await ledger.heads()
    return [heads[number] for number in sorted(heads, reverse=True)]


def _known(heads: Mapping[int, Head], number: int, target: str) -> Head:
    if number not in heads:
        names = ", ".join(head.name for head in heads.values()) or "there are none"
        raise PipeError(f"{target}@{number} is not kept; releases: {names}")
    return heads[number]


# -- showing ---------------------------------------------------------------------------------------


def _outcome(head: Head) -> str:
    if head.outcome:
        undone = f", undone by @{head.undone_by}" if head.undone_by and head.outcome == "complete" else ""
        return head.outcome + undone
    return "partial: it is running, or died" if head.turn else "nothing deployed"


def _table(heads: Iterable[Head]) -> Iterator[str]:
    rows = [("RELEASE", "OUTCOME", "RUN", "COMMIT", "TIME", "BY", "WHY")]
    rows += [
        (
            head.name,
            _outcome(head),
            head.run,
            head.commit[:10] or "-",
            head.time[:16].replace("T", " "),
            head.by or "-",
            f"restores @{head.restores}: {head.why}" if head.restores else head.why,
        )
        for head in heads
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
    if len(rows) == 1:
        yield "nothing was released yet"


def _as_json(head: Head) -> dict[str, JsonValue]:
    return {"release": head.name, **head.model_dump(mode="json"), "outcome": _outcome(head)}


def _words(old: Head, new: Head) -> Iterator[str]:
    for label in ("run", "commit", "by"):
        was, now = getattr(old, label), getattr(new, label)
        if was != now:
            yield f"{label}: {was or '(none)'} → {now or '(none)'}"
