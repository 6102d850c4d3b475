"""`summary.html`: runs on one page that is a file of its own, without a script, for people who have nothing but it.

Where a style may not work either (Jenkins serves published pages so unless told otherwise) it is plainer and says the
same: the picture brings its own colours, and every mark stands beside a word.
"""

import html
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import IO

from pydantic import JsonValue

from pipeline import __version__
from runner.reports.picture import COLOURS, stages_drawn
from runner.sinks.closing import MOST_PROBLEMS, count, failed, problems_of, tested, useful_lines
from runner.sinks.tree import MARKS, RUNNING, Row, clock, rows
from runner.sinks.view import RunView, plain_text
from runner.sizes import size
from runner.state import LeafState

__all__ = ["write_summary"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
LAST_LINES = 30
LONGEST_LINE = 1000
MOST_LOGS = 300
MOST_FILES = 200
BAR = 130


def write_summary(file: IO[str], views: Sequence[RunView], mask: Callable[[str], str]) -> None:
    """Write one page on some runs."""
    page = _Page(mask)
    names = ", ".join(view.name for view in views)
    style = files("runner.reports").joinpath("summary.css").read_text(encoding="utf-8")
    file.write(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{page.text(names)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    )
    for view in views:
        for piece in page.run(view):
            file.write(f"{piece}\n")
    file.write(f"<footer>pipe {__version__}</footer>\n</body>\n</html>\n")


class _Page:
    """Pieces of the page; nothing gets onto it but through `text`."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._mask = mask

    def text(self, words: str) -> str:
        """Words from wherever: without secrets, without control characters, and no markup."""
        return html.escape(plain_text(self._mask(words)))

    def run(self, view: RunView) -> Iterator[str]:
        """Everything on one run."""
        now = view.state.finished or view.state.latest
        listed = list(rows(view, now))
        yield "<article>"
        yield from self._head(view, listed[0])
        yield from self._leaks(view)
        yield f'<h2>Stages</h2>\n<div class="wide">{stages_drawn(view, now, self.text)}</div>'
        yield from self._failures(view)
        yield from self._tests(view)
        yield from self._warnings(view)
        yield from self._times(view, listed[1:], now)
        yield from self._artifacts(view)
        yield from self._logs(view)
        yield "</article>"

    # -- what comes first --------------------------------------------------------------------------

    def _head(self, view: RunView, row: Row) -> Iterator[str]:
        state, trigger = view.state, view.plan.trigger
        outcome = state.outcome or "no end yet"
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(state.started)) if state.started else ""
        facts = [
            f"began {began}" if began else "never began",
            f"took {row.time}",
            f"{trigger.kind} {trigger.slug or trigger.branch}".strip(),
            f"on {state.begun.host}" if state.begun.host else "",
            f"run {view.plan.run.id}",
        ]
        yield f'<header class="{self.text(outcome)}"><h1>{self.text(view.name)}</h1>'
        yield f'<p class="is"><b>{row.mark} {self.text(outcome)}</b></p>'
        if state.cause:
            yield f"<p>{self.text(state.cause.message)}</p>"
        yield f'<p class="facts">{self.text(" · ".join(filter(None, facts)))}</p>'
        for name, value in view.plan.params.items():
            yield f'<p class="facts"><code>{self.text(name)} = {self.text(str(value))}</code></p>'
        yield "</header>"

    def _leaks(self, view: RunView) -> Iterator[str]:
        for leak in view.state.leaks:
            yield f'<p class="bad"><b>A secret can be read</b> in {self.text(leak)}.'
            yield "Change it, and remove what shows it.</p>"

    def _warnings(self, view: RunView) -> Iterator[str]:
        if view.state.warnings:
            items = "".join(f"<li>{self.text(warning)}</li>" for warning in view.state.warnings)
            yield f'<h2>Warnings</h2>\n<ul class="warn">{items}</ul>'

    def _failures(self, view: RunView) -> Iterator[str]:
        bad = sorted((leaf for leaf in view.state.leaves.values() if failed(leaf)), key=lambda leaf: leaf.allowed)
        if bad:
            yield "<h2>What went wrong</h2>"
        for leaf in bad:
            word = f"✖ {leaf.outcome}{' (allowed)' if leaf.allowed else ''}"
            yield f'<h3 class="{leaf.outcome}"><span class="is">{word}</span> {self.text(leaf.name)}</h3>'
            if leaf.cause:
                yield f"<p>{self.text(leaf.cause.message)} <small>({leaf.cause.kind})</small></p>"
            yield self._pre(useful_lines(view, leaf))
            yield from self._problems(leaf)

    def _problems(self, leaf: LeafState) -> Iterator[str]:
        found = problems_of(leaf)[MOST_PROBLEMS:]  # those before stand among the lines above
        if found:
            total = leaf.problems.total if leaf.problems else 0
            said = f"{len(found)} more of {total} problems"
            yield f"<details><summary>{said}</summary>{self._pre(map(str, found))}</details>"

    # -- tests, stages, what is left ---------------------------------------------------------------

    def _tests(self, view: RunView) -> Iterator[str]:
        leaves = list(tested(view.state))
        if leaves:
            yield "<h2>Tests</h2>"
        for leaf in leaves:
            yield f"<p><b>{self.text(leaf.name)}</b>: {self.text(count(leaf))}</p>"
            if leaf.cases():
                yield from self._wide(("Result", "Test", "What it says"), map(self._test, leaf.cases()))

    def _test(self, case: Mapping[str, str]) -> str:
        kind, mark = ("failed", "✖ failed") if case["outcome"] == "failed" else ("cancelled", "≈ flaky")
        name = f"{self.text(case['classname'])}.<b>{self.text(case['name'])}</b>"
        line = f"<br><code>{self.text(case['line'])}</code>" if case["line"] else ""
        said = f'<td class="why">{self.text(case["message"])}{line}</td>'
        return f'<tr class="{kind}"><td class="is">{mark}</td><td>{name}</td>{said}</tr>'

    def _times(self, view: RunView, listed: Iterable[Row], now: float) -> Iterator[str]:
        yield "<h2>Times</h2>"
        heads = ("Outcome", "Stage", "Time", "When", "Why")
        yield from self._wide(heads, (self._row(view, row, now) for row in listed))

    def _row(self, view: RunView, row: Row, now: float) -> str:
        word = row.outcome.value if row.outcome else "running" if row.running else "waiting"
        name, _, title = row.name.partition("  ")
        said = f" <small>{self.text(title)}</small>" if title else ""
        inner = " inner" if row.depth > 1 else ""
        cells = (
            f'<td class="is">{row.mark} {word}</td>',
            f'<td class="name{inner}">{self.text(name)}{said}</td>',
            f'<td class="time">{row.time}</td>',
            f'<td class="bar">{self._bar(view, row, now) if row.leaf else ""}</td>',
            f'<td class="why">{self.text(row.note)}</td>',
        )
        return f'<tr class="{word}">{"".join(cells)}</tr>'

    def _bar(self, view: RunView, row: Row, now: float) -> str:
        """When a leaf ran, within the time of the run."""
        state, began = view.state.leaf(row.leaf), view.state.started
        if not state.started or state.started < began:
            return ""
        whole = max(now - began, 0.001)
        x = BAR * (state.started - began) / whole
        width = min(max(2.0, BAR * state.seconds(now) / whole), BAR - x)
        rect = f'x="{x:.1f}" y="2" width="{width:.1f}" height="8" rx="2" fill="{COLOURS[row.outcome]}"'
        ground = f'<rect y="5" width="{BAR}" height="2" fill="currentColor" fill-opacity=".15"/>'
        return f'<svg width="{BAR}" height="12" role="presentation">{ground}<rect {rect}/></svg>'

    def _artifacts(self, view: RunView) -> Iterator[str]:
        kept = [(leaf.name, file) for leaf in view.state.leaves.values() for file in leaf.kept]
        if not kept:
            return
        total = size(sum(int(str(file["size"])) for _, file in kept))
        more = f", the first {MOST_FILES} of them" if len(kept) > MOST_FILES else ""
        yield f"<h2>Artifacts</h2>\n<details><summary>{len(kept)} file(s), {total}{more}</summary>"
        heads = ("Stage", "File", "Size", "SHA-256")
        yield from self._wide(heads, (self._file(leaf, file) for leaf, file in kept[:MOST_FILES]))
        yield "</details>"

    def _file(self, leaf: str, file: Mapping[str, JsonValue]) -> str:
        path, digest = self.text(str(file["path"])), self.text(str(file["sha256"]))
        cells = f"<td>{self.text(leaf)}</td><td><code>{path}</code></td>"
        return f'<tr>{cells}<td class="time">{size(int(str(file["size"])))}</td><td><code>{digest}</code></td></tr>'

    def _logs(self, view: RunView) -> Iterator[str]:
        ran = [leaf for leaf in view.state.leaves.values() if leaf.attempt]
        more = f", of {MOST_LOGS} stages" if len(ran) > MOST_LOGS else ""
        if ran:
            yield f"<h2>Ends of the logs{more}</h2>"
        for leaf in ran[:MOST_LOGS]:
            if lines := view.last_lines(leaf.name, LAST_LINES):
                mark = MARKS[leaf.outcome] if leaf.outcome else RUNNING
                said = f"{mark} {self.text(leaf.name)} <small>{clock(leaf.seconds(view.state.latest))}</small>"
                yield f"<details><summary>{said}</summary>{self._pre(lines)}</details>"

    def _wide(self, heads: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
        """A table that may be wider than the screen."""
        classes = {"Time": "time", "Size": "time", "When": "bar"}
        cells = "".join(f'<th class="{classes.get(head, "")}">{head}</th>' for head in heads)
        yield f'<div class="wide"><table border="1" cellpadding="4"><tr>{cells}</tr>'
        yield from lines
        yield "</table></div>"

    def _pre(self, lines: Iterable[str]) -> str:
        shown = "\n".join(self.text(line[:LONGEST_LINE]) for line in lines)
        return f"<pre>{shown}</pre>" if shown else ""
