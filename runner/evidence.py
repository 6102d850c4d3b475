"""What an attempt leaves behind for people: its artifacts, what its tests say, and what compilers complained of."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from pipeline.globs import is_plain
from pipeline.plan import Leaf
from pipeline.stage import CauseKind, StageFailed
from runner import junit, problems
from runner.collect import Copies, Opened, Seen, Take, Walk
from runner.context import Context
from runner.events import FilesKept, ProblemsFound, ReportsRead, RunWarned
from runner.journal import EpochLost, Journal
from runner.mask import Masker

__all__ = ["collected", "note_problems"]

AT_ONCE = 200
"""Files that one event tells of."""
MOST_CASES = 50
LONGEST_WORDS = 500
REPORT_BYTES = 256 << 20
MARGIN = 3.0
"""Seconds that the clock of a file system may be behind ours."""
AFTER_FAILURE, AFTER_CANCEL = 60.0, 2.0
"""Seconds that collecting may take when the attempt has ended otherwise than well."""


@asynccontextmanager
async def collected(ctx: Context, leaf: Leaf) -> AsyncIterator[None]:
    """Collect at the end of an attempt, however it ends, what its stage says that it leaves.

    Raises:
        StageFailed: it ended well, and nothing is there of its artifacts, or too much.
        OSError: it ended well, and files cannot be read or written.
    """
    work = _Collecting(ctx, leaf)
    try:
        yield
    except Exception:
        await work.save(AFTER_FAILURE, shield=False)
        raise
    except BaseException:  # cancelled, or out of time
        await work.save(AFTER_CANCEL, shield=True)
        raise
    await work.do()


@dataclass
class _Collecting:
    ctx: Context
    leaf: Leaf
    began: float = field(default_factory=time.time)

    async def save(self, within: float, *, shield: bool) -> None:
        """Collect what there is; the attempt has its end already, and nothing that happens here changes it."""
        with anyio.move_on_after(within, shield=shield) as scope:
            try:
                await self.do(green=False)
            except (StageFailed, OSError) as error:
                self._warn(f"not everything that it left is kept: {error}")
            except EpochLost:
                return
        if scope.cancelled_caught:
            self._warn("not everything that it left is kept: no time was left for it")

    async def do(self, *, green: bool = True) -> None:
        if patterns := self._report_patterns():
            await self._reports(patterns, green=green)
        if self.leaf.artifacts:
            await self._artifacts(green=green)

    def _warn(self, message: str) -> None:
        """Not in its log: what the stage said itself comes last there."""
        self.ctx.journal.append(RunWarned(message, self.ctx.run.stage))

    # -- artifacts ---------------------------------------------------------------------------------

    async def _artifacts(self, *, green: bool) -> None:
        ctx, patterns = self.ctx, self.leaf.artifacts
        target = ctx.journal.folder.artifacts(ctx.run.stage, ctx.run.attempt)
        copies = Copies(target, patterns, ctx.stage_log.masker)
        seen = await ctx.call(self._walk(patterns, copies.take, within=copies.whole()))
        for start in range(0, len(copies.files), AT_ONCE):
            files = [asdict(file) for file in copies.files[start : start + AT_ONCE]]
            ctx.journal.append(FilesKept(ctx.run.stage, ctx.run.attempt, files))
        if seen.special:
            self._warn(f"artifacts: {seen.special} link(s) or other special file(s) are not kept, only plain files are")
        self._warn_of_closed("artifacts", seen)
        if green and not seen.paths:
            hint = await ctx.call(self._hint)
            raise StageFailed(f"artifacts: there is no file that matches {', '.join(patterns)}{hint}")
        if green and seen.unmatched:
            self._warn(f"artifacts: there is no file that matches {', '.join(seen.unmatched)}")

    def _warn_of_closed(self, what: str, seen: Seen) -> None:
        if seen.closed:
            first, more = seen.closed[0], f" and {len(seen.closed) - 1} more" if seen.closed[1:] else ""
            self._warn(f"{what}: {first}{more} cannot be read: whoever wrote it, maybe a container as root, let nobody")

    def _hint(self) -> str:
        plain = filter(is_plain, self.leaf.artifacts)
        folder = next((glob.rstrip("/") for glob in plain if (self.ctx.workspace / glob).is_dir()), "")
        return f"; {folder} is a folder: write {folder}/**" if folder else ""

    def _walk(
        self, patterns: Sequence[str], take: Take, *, within: AbstractContextManager[None], since: float = 0.0
    ) -> Walk:
        return Walk(self.ctx.root, PurePosixPath(self.leaf.dir), patterns, take, since, within)

    # -- reports -----------------------------------------------------------------------------------

    def _report_patterns(self) -> tuple[str, ...]:
        published = (pattern for what, pattern in self.ctx.published if what == "junit")
        return tuple(dict.fromkeys((*self.leaf.junit, *published)))

    async def _reports(self, patterns: Sequence[str], *, green: bool) -> None:
        ctx = self.ctx
        tests = _Tests(ctx.run.stage, ctx.stage_log.masker)
        written = tests.into(ctx.journal.folder.reports(ctx.run.stage, ctx.run.attempt))
        seen = await ctx.call(self._walk(patterns, tests.take, within=written, since=self.began - MARGIN))
        self._warn_of_closed("reports", seen)
        if seen.old:
            self._warn(f"reports: {seen.old} file(s) are older than this attempt and tell nothing of it")
        if unmatched := [pattern for pattern in seen.unmatched if pattern in self.leaf.junit and not seen.old]:
            self._warn(f"reports: there is no file that matches {', '.join(unmatched)}")
        if seen.paths:
            told = tests.reported(ctx.run.attempt)
            ctx.journal.append(told)
            if green and told.failed:
                self._warn(f"{told.failed} of {told.total} tests failed, and it ended as if they had not")


@dataclass
class _Tests:
    """Reads reports one after the other: counts, and writes them again, masked, as one report of the attempt."""

    leaf: str
    masker: Masker
    _counts: Counter[str] = field(default_factory=Counter)
    _flaky: int = 0
    _seconds: float = 0.0
    _cases: list[dict[str, str]] = field(default_factory=list)
    _suites: int = 0
    _read: int = 0
    _writer: junit.Writer | None = None

    @contextmanager
    def into(self, path: Path) -> Iterator[None]:
        """Write to this file; it is there, whole, when there was something to write."""
        part = path.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8", errors="replace") as file:
                self._writer = junit.Writer(file.write, self.masker.mask_text)
                yield
                self._writer.close()
            if self._suites:
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def take(self, file: Opened) -> None:
        """Read one report."""
        self._read += file.about.st_size
        if self._read > REPORT_BYTES:
            raise StageFailed(f"reports: more than {REPORT_BYTES >> 20} MiB of them", kind=CauseKind.CONFIG)
        try:
            for (suite, stamp), cases in groupby(junit.read(file), lambda case: (case.suite, case.timestamp)):
                self._write(suite or file.path, stamp, map(self._count, cases))
        except junit.Unreadable as error:
            self._refuse(file.path, str(error))

    def _refuse(self, path: str, why: str) -> None:
        """A report that nobody can read is no good news."""
        broken = junit.Case(path, "", self.leaf, path, result="errored", message=f"the report cannot be read: {why}")
        self._write(path, "", [self._count(broken)])

    def _write(self, suite: str, stamp: str, cases: Iterable[junit.Case]) -> None:
        self._suites += 1
        if self._writer:
            self._writer.suite(f"{self.leaf}: {suite}", f"{self.leaf}.{self._suites}", stamp, cases)

    def _count(self, case: junit.Case) -> junit.Case:
        self._counts[case.result] += 1
        self._flaky += case.flaky
        self._seconds += case.seconds
        if (case.bad or case.flaky) and len(self._cases) < MOST_CASES:
            self._cases.append(_told(case, self.masker.mask_text))
        return case

    def reported(self, attempt: int) -> ReportsRead:
        """What all of them say."""
        counts = self._counts
        bad, seconds = counts["failed"] + counts["errored"], round(self._seconds, 3)
        return ReportsRead(
            self.leaf, attempt, counts.total(), bad, counts["skipped"], self._flaky, seconds, self._cases
        )


def _told(case: junit.Case, mask: Callable[[str], str]) -> dict[str, str]:
    """Masked before it is cut: of a secret that is cut nobody could find the beginning."""
    words = {"classname": case.classname, "name": case.name, "message": case.why(), "line": case.line()}
    cut = {key: mask(text)[:LONGEST_WORDS] for key, text in words.items()}
    return {"outcome": "flaky" if case.flaky else "failed", **cut}


# -- compilers -------------------------------------------------------------------------------------


async def note_problems(journal: Journal, leaf: str, attempt: int, root: Path) -> None:
    """Note what compilers complain of in the log of an attempt that failed. It never changes an outcome."""
    log = journal.folder.log(leaf, attempt)
    try:
        found = await anyio.to_thread.run_sync(_problems, log, f"{root}/", abandon_on_cancel=True)
    except OSError:
        return
    if found:
        told = [problems.as_json(problem) for problem in found[: problems.MOST]]
        journal.append(ProblemsFound(leaf, attempt, len(found), told))


def _problems(log: Path, root: str) -> list[problems.Problem]:
    found = list(problems.find(problems.lines_of(log), root))
    return sorted(found, key=lambda problem: problem.level != "error")  # errors first, each in their order
