"""`pipe cache`: what outlives runs on this machine, with sizes and last use; and clearing it."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from pipeline.errors import PipeError
from pipeline.locks import NoLocksError
from runner.caches import ABOUT, STAGES
from runner.eviction import Item, bounds, items, remove
from runner.settings import cache_folder
from runner.sinks.view import plain_text
from runner.sizes import size
from runner.store import Store

__all__ = ["clear_caches", "list_caches"]


def list_caches(*, as_json: bool) -> int:
    """Print everything in the folder of caches, the most recently used first, and its size in all."""
    cache = _folder()
    found = items(cache)
    if as_json:
        for each in found:
            known = {"name": each.name, "holds": _holds(each), "bytes": each.size, "used": each.used, "busy": each.busy}
            click.echo(json.dumps(known, ensure_ascii=False))
        return 0
    for line in _table(found):
        click.echo(line)
    within = bounds(os.environ)
    age = f", {within.age / 86400:g} days without use" if within.age else ""
    total = size(sum(each.size for each in found))
    click.echo(f"{total} in {plain_text(str(cache))}; at most {size(within.size)}{age}")
    return 0


def clear_caches(names: Sequence[str]) -> int:
    """Remove caches by the beginnings of their names, or all; those in use stay, and make it 1.

    Raises:
        PipeError: no cache has such a name; or nobody can know whether one is in use.
    """
    cache = _folder()
    found = items(cache)
    chosen = [each for each in found if not names or any(_named(each, name) for name in names)]
    unknown = [name for name in names if not any(_named(each, name) for each in found)]
    if unknown:
        raise PipeError(f"no cache is named {', '.join(unknown)}: `pipe cache list` has their names")
    try:
        gone = [each for each in chosen if remove(each.path)]
    except NoLocksError as error:
        raise PipeError(str(error)) from error
    for each in chosen:
        if each not in gone:
            click.echo(f"{each.name}: in use, or not ours to remove", err=True)
    click.echo(f"removed {len(gone)} cache{'s' if len(gone) != 1 else ''}, {size(sum(each.size for each in gone))}")
    return int(len(gone) != len(chosen))


def _folder() -> Path:
    return cache_folder(os.environ, Store(os.environ, Path.cwd()).path)


def _named(item: Item, name: str) -> bool:
    return item.name == name or item.name.startswith(f"{name.rstrip('/')}/")


def _table(found: Sequence[Item]) -> Iterator[str]:
    names = max((len(each.name) for each in found), default=0)
    for each in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used))
        busy = "  in use" if each.busy else ""
        yield f"{each.name:{names}}  {size(each.size):>10}  {used}{busy}  {plain_text(_holds(each))}".rstrip()


def _holds(item: Item) -> str:
    """What a cache of a stage is, in the words of its file."""
    if STAGES not in Path(item.name).parts:
        return ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((item.path.parent / ABOUT).read_bytes())
        return " ".join(filter(None, [f"{said['pipeline']}:", *said["paths"], said["name"]]))
    return ""
