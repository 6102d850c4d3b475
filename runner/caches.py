"""`cache:` of a stage: what an earlier run kept is laid into the workspace first, and kept again after a green attempt.

An entry is one archive below `<caches>/_stages/<series>/<key>`: a series is what the same pipeline of the same source
keeps under the same words, a key the content of the files that say what fits. Both are hashes: no name that somebody
chose is a path here. An entry appears by a rename and is never changed, so any number of runs may read and keep it.
"""

import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final, Generic, TypeVar

import anyio

from pipeline.errors import PipeError
from pipeline.globs import is_plain, takes
from pipeline.locks import hold, lock_of
from pipeline.plan import Cache, Leaf, Plan
from pipeline.stage import CauseKind, StageFailed
from runner.context import Context
from runner.eviction import bounds, mark_due
from runner.packing import BLOCK, DamagedError, Step, look, pack, packed_signature, unpack
from runner.sizes import size

__all__ = ["ABOUT", "STAGES", "cached"]

T = TypeVar("T")

STAGES: Final = "_stages"
"""The folder of stages' caches beside those of kinds."""
ABOUT: Final = "about.json"
"""In a series: what it is, for people."""
SAVE_LIMIT: Final = 600.0
SPARE: Final = 2.0
"""Seconds before the limit of an attempt when keeping gives up: a green stage does not fail by it."""
_UNREAD: Final = frozenset({".git", ".pipe"})


@asynccontextmanager
async def cached(ctx: Context, leaf: Leaf, plan: Plan, place: Path) -> AsyncIterator[None]:
    """Lay a leaf's caches into its folder, and keep them when the body ends well. `place` is the folder of caches.

    What goes wrong with a cache is told and changes no outcome.

    Raises:
        StageFailed: (config) a path leads out of the workspace.
    """
    series = [await ctx.call(_Series.of, ctx, each, plan, place) for each in leaf.cache]
    for each in series:
        await each.restore()
    yield
    for each in series:
        await each.save()


@dataclass
class _Series:
    ctx: Context
    label: str
    folder: Path
    paths: tuple[Path, ...]
    key: str
    """The name of the entry that fits; empty if that cannot be told."""
    why_no_key: str
    keyed: bool
    fallback: bool
    about: str
    _restored: str = field(default="", init=False)

    @classmethod
    def of(cls, ctx: Context, cache: Cache, plan: Plan, place: Path) -> "_Series":
        """What a cache means in this attempt: its paths are looked at, its key is read."""
        folder = os.path.relpath(ctx.workspace.resolve(), ctx.root.resolve())
        source = plan.trigger.repo or os.path.realpath(ctx.env.get("PIPE_SOURCE", ""))
        said = {"pipeline": plan.pipeline, "paths": cache.paths, "key": cache.key, "name": cache.name}
        # what strangers keep is for strangers, wherever their caches lie
        told = [source, plan.trigger.trusted, platform.machine(), folder, said]
        paths = tuple(_inside(ctx.root, ctx.workspace, path) for path in cache.paths)
        try:
            key, why = _key(ctx.workspace, cache), ""
        except OSError as error:
            key, why = "", f"{error.filename or 'its key'}: {error.strerror or error}"
        if cache.key and not key:
            why = why or f"there is no file {' '.join(cache.key)}"
        label = f"cache {' '.join(filter(None, (*cache.paths, cache.name)))}"
        series = place / STAGES / _digest(json.dumps(told))
        return cls(ctx, label, series, paths, key, why, bool(cache.key), cache.fallback, json.dumps(said))

    # -- before ------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Lay the newest entry that fits into the workspace, and say so, or why not."""
        if not self.key:
            self.ctx.warn(f"{self.label}: neither restored nor kept, for {self.why_no_key}")
            return
        try:
            said = await self._in_thread(self._restore)
        except OSError as error:
            self.ctx.warn(f"{self.label}: not restored: {_told(error)}")
        else:
            self._say(said)

    def _restore(self, step: Step) -> str:
        wanted = [number for number, path in enumerate(self.paths) if _absent(path)]
        if not wanted:
            return "left as it is, for it is there already"
        for name in self._candidates():
            with _opened(self.folder / name) as file:
                if file is None:
                    continue
                kept = os.fstat(file.fileno()).st_mtime
                try:
                    count = self._lay(file, wanted, step)
                except DamagedError as error:
                    (self.folder / name).unlink(missing_ok=True)
                    self.ctx.warn(f"{self.label}: what was kept as {name} is damaged and was removed: {error}")
                    continue
            self._restored = name
            fits = "" if name == self.key else f", the newest of other content: none is kept as {self.key}"
            return f"restored {size(count)}, kept {_ago(kept)}{fits}"
        return f"nothing is kept as {self.key}" + (", nor anything else" if self.fallback and self.keyed else "")

    def _candidates(self) -> Iterator[str]:
        yield self.key
        if self.fallback:
            others = [path for path in self._entries() if path.name != self.key]
            yield from (path.name for path in sorted(others, key=_kept_at, reverse=True))

    def _entries(self) -> Iterator[Path]:
        for lock in self.folder.glob("*.lock") if self.folder.is_dir() else ():
            if (entry := lock.with_suffix("")).is_file():
                yield entry

    def _lay(self, file: IO[bytes], wanted: Sequence[int], step: Step) -> int:
        part = Path(tempfile.mkdtemp(prefix=".pipe-cache-", dir=self.ctx.root))
        try:
            count = unpack(file, part, wanted, step)
            for number in wanted:
                path = self.paths[number]
                if os.path.lexists(part / str(number)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    (part / str(number)).rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return count

    # -- after -------------------------------------------------------------------------------------

    async def save(self) -> None:
        """Keep what is there now, unless it is kept already, and say so, or why not."""
        if not self.key:
            return
        left = anyio.current_effective_deadline() - anyio.current_time() - SPARE
        try:
            with anyio.move_on_after(min(SAVE_LIMIT, max(left, 0.0) if left < math.inf else SAVE_LIMIT)) as scope:
                said = await self._in_thread(self._save)
        except (OSError, PipeError) as error:
            self.ctx.warn(f"{self.label}: not kept: {_told(error)}")
        else:
            self._say("not kept: no time was left" if scope.cancelled_caught else said)

    def _save(self, step: Step) -> str:
        entry = self.folder / self.key
        if self.keyed and entry.is_file():
            return "kept already" if self._restored == self.key else f"kept already as {self.key}"
        tree = look(self.paths, step)
        if not tree.size:
            return f"not kept: there is nothing in {' '.join(str(path.name) for path in self.paths)}"
        limit = bounds(self.ctx.env).size
        if tree.size > limit:
            return f"not kept: its {size(tree.size)} are more than PIPE_CACHE_SIZE, {size(limit)}"
        with _opened(entry) as kept:
            if kept and packed_signature(kept) == tree.signature:
                return "unchanged"
        self.folder.mkdir(parents=True, exist_ok=True)
        part = entry.with_name(f"{self.key}.{os.getpid()}.{os.urandom(4).hex()}.part")
        try:
            with part.open("xb") as file:
                if pack(file, self.paths, step) != tree or look(self.paths, step) != tree:
                    return "not kept: it changed while it was read"
            _write(self.folder / ABOUT, self.about)
            with hold(lock_of(entry)) as lock:
                os.utime(lock.fileno())
                part.rename(entry)
        finally:
            part.unlink(missing_ok=True)
        mark_due(self.folder.parent.parent)
        return f"kept, {size(tree.size)}" + (f" as {self.key}" if self.keyed else "")

    async def _in_thread(self, work: Callable[[Step], T]) -> T:
        return await self.ctx.call(_Stoppable(work))

    def _say(self, text: str) -> None:
        self.ctx.stage_log.line(f"{self.label}: {text}")


class _Stoppable(Generic[T]):
    """A blocking work that a cancel can end between two of its steps."""

    def __init__(self, work: Callable[[Step], T]) -> None:
        self._work = work
        self._stopped = False

    def __call__(self) -> T:
        return self._work(self._step)

    def stop(self) -> None:
        self._stopped = True

    def _step(self) -> None:
        if self._stopped:
            raise TimeoutError("it was stopped")


# -- keys ------------------------------------------------------------------------------------------


def _key(folder: Path, cache: Cache) -> str:
    """The name of the entry that fits, by names and contents of the key's files; empty if there are none."""
    total = hashlib.sha256()
    if not cache.key:
        return _digest("")
    count = 0
    for path in _files(folder, cache):
        count += 1
        with (folder / path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(json.dumps([path, content]).encode() + b"\n")
    return total.hexdigest()[:24] if count else ""


def _files(folder: Path, cache: Cache) -> list[str]:
    """The plain files that the key's globs take; links are none, and what is cached tells nothing."""
    if all(map(is_plain, cache.key)):
        return [path for path in sorted(set(cache.key)) if _plain(folder / path)]
    found = []
    kept = {str(PurePosixPath(path)) for path in cache.paths}
    for place, folders, files in os.walk(folder):
        within = "" if Path(place) == folder else f"{os.path.relpath(place, folder)}/"
        folders[:] = [name for name in folders if name not in _UNREAD and f"{within}{name}" not in kept]
        found += [f"{within}{name}" for name in files if takes(cache.key, f"{within}{name}")]
    return sorted(path for path in found if _plain(folder / path))


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


# -- paths -----------------------------------------------------------------------------------------


def _inside(root: Path, folder: Path, path: str) -> Path:
    """The path of a cache; StageFailed (config) if a link on the way to it leads out of the workspace."""
    full = folder / PurePosixPath(path)
    if not full.parent.resolve().is_relative_to(root.resolve()):
        raise StageFailed(f"cache: {path} leads out of the workspace", kind=CauseKind.CONFIG)
    return full.parent.resolve() / full.name


def _absent(path: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    if not os.path.lexists(path):
        return True
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


@contextmanager
def _opened(entry: Path) -> Iterator[IO[bytes] | None]:
    """An entry that nobody removes meanwhile, marked as used; None if there is none."""
    if not entry.is_file():
        yield None
        return
    with hold(lock_of(entry)) as lock:
        os.utime(lock.fileno())
        try:
            file = entry.open("rb", buffering=BLOCK)
        except FileNotFoundError:
            yield None
            return
        with file:
            yield file


def _kept_at(entry: Path) -> float:
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    part.write_text(text)
    part.rename(path)


# -- words -----------------------------------------------------------------------------------------


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for length, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {word}{'s' if count != 1 else ''} ago"
    return "just now"


def _told(error: OSError | PipeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
