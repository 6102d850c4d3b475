"""The stages of a run as a picture: an SVG that needs neither a style nor a script to be read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.graph import order, reduced
from pipeline.plan import Leaf
from pipeline.stage import Outcome
from runner.sinks.tree import Row, rows
from runner.sinks.view import RunView

__all__ = ["COLOURS", "stages_drawn"]

WIDTH, HEIGHT = 150, 46
"""A box."""
ACROSS, DOWN = 40, 16
"""What lies between boxes."""
MARGIN = 6
LONGEST = 16
"""Characters that fit into a box."""

COLOURS: Mapping[Outcome | None, str] = {
    Outcome.SUCCEEDED: "#2e8b57",
    Outcome.FAILED: "#d1344b",
    Outcome.ERRORED: "#9b59b6",
    Outcome.TIMED_OUT: "#c77c11",
    Outcome.CANCELLED: "#c77c11",
    Outcome.SKIPPED: "#8a8f98",
    None: "#8a8f98",
}
"""Seen well on a light ground and on a dark one."""
_FONT = 'font-weight="600" font-family="sans-serif"'
_SOFT = 'fill="currentColor" fill-opacity=".75"'


@dataclass(frozen=True, slots=True)
class _Box:
    row: Row
    x: int
    y: int


def stages_drawn(view: RunView, now: float, text: Callable[[str], str]) -> str:
    """An `<svg>` with a box for each stage and a line for each need; `text` makes words fit for it."""
    needs = _needs(view.plan.leaves)
    columns = _columns(needs)
    if view.plan.finally_:
        columns.append(list(dict.fromkeys(leaf.stage for leaf in view.plan.finally_)))
    by_stage = {_stage(row): row for row in rows(view, now) if row.depth == 1}
    boxes = {
        name: _Box(by_stage[name], MARGIN + index * (WIDTH + ACROSS), MARGIN + place * (HEIGHT + DOWN))
        for index, column in enumerate(columns)
        for place, name in enumerate(column)
    }
    width = 2 * MARGIN + len(columns) * (WIDTH + ACROSS) - ACROSS
    height = 2 * MARGIN + max(map(len, columns), default=0) * (HEIGHT + DOWN) - DOWN
    lines = [_line(boxes[other], boxes[name]) for name, others in needs.items() for other in others]
    drawn = [_box(name, box, text) for name, box in boxes.items()]
    title = f"<title>{text(f'The stages of {view.name}')}</title>"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{title}{"".join(lines)}{"".join(drawn)}</svg>'


def _needs(leaves: Sequence[Leaf]) -> dict[str, tuple[str, ...]]:
    """Stage → the stages that it needs, without those that it needs through others anyway."""
    owner = {leaf.name: leaf.stage for leaf in leaves}
    found = {
        stage: list(dict.fromkeys(owner[name] for leaf in group for need in leaf.needs for name in need.leaves))
        for stage, group in groupby(leaves, key=lambda leaf: leaf.stage)
    }
    return reduced(found)


def _columns(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Stages by the number of stages before them, each as near as can be to those that it needs."""
    depth: dict[str, int] = {}
    for name in order(needs):
        depth[name] = max((depth[other] + 1 for other in needs[name]), default=0)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in needs:
        columns[depth[name]].append(name)
    place: dict[str, float] = {}
    for column in columns:
        before = {name: [place[other] for other in needs[name]] for name in column}
        column.sort(key=lambda name, before=before: sum(before[name]) / len(before[name]) if before[name] else 0.0)  # type: ignore[misc]
        place |= {name: float(index) for index, name in enumerate(column)}
    return columns


def _stage(row: Row) -> str:
    return (row.leaf or row.name).split("  ")[0]


def _line(left: _Box, right: _Box) -> str:
    x1, y1 = left.x + WIDTH, left.y + HEIGHT // 2
    x2, y2 = right.x, right.y + HEIGHT // 2
    bend = max(ACROSS // 2, (x2 - x1) // 2)
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".35" stroke-width="1.5"/>'


def _box(name: str, box: _Box, text: Callable[[str], str]) -> str:
    row, colour = box.row, COLOURS[box.row.outcome]
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    counted = row.name.partition("  ")[2] if not row.leaf else ""
    below = " · ".join(part for part in (counted, row.time, _word(row)) if part)
    rect = f'width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{colour}" fill-opacity=".1" stroke="{colour}"'
    parts = (
        f'<g transform="translate({box.x} {box.y})"><title>{text(f"{name}: {row.outcome or row.note}")}</title>',
        f'<rect {rect} stroke-width="1.5"/>',
        f'<text x="10" y="20" font-size="14" {_FONT} fill="{colour}">{row.mark}</text>',
        f'<text x="28" y="20" font-size="13" {_FONT} fill="currentColor">{text(short)}</text>',
        f'<text x="28" y="36" font-size="11" font-family="sans-serif" {_SOFT}>{text(below)}</text></g>',
    )
    return "".join(parts)


def _word(row: Row) -> str:
    """The outcome, but for a green one, whose mark says enough."""
    return row.outcome.value if row.outcome and row.outcome is not Outcome.SUCCEEDED else ""
