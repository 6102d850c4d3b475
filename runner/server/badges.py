"""Badges: how the newest run of a pipeline is, as a small picture for a README."""

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from sqlalchemy import Connection, and_, select

from runner.server.database import runs
from runner.server.messages import GREEN, RED

__all__ = ["Badge", "badge_of", "picture", "word_of"]

# white text on each has a contrast of at least 4.5 (WCAG 2.2, 1.4.3)
_COLOURS: Mapping[str, str] = {
    "passing": "#1a7f37",
    "failing": "#cf222e",
    "running": "#0969da",
    "cancelled": "#57606a",
    "unknown": "#57606a",
}
_LONGEST_LABEL = 60
_HEIGHT, _PAD, _NARROW, _WIDE = 20, 6, 6.6, 12.0


@dataclass(frozen=True, slots=True)
class Badge:
    """A picture and its name for caches."""

    svg: bytes
    tag: str


def badge_of(connection: Connection, project: str, pipeline: str, ref: str) -> Badge:
    """The badge of a pipeline on a ref; without a ref: on any branch."""
    svg = picture(pipeline, word_of(connection, project, pipeline, ref)).encode()
    return Badge(svg, f'"{hashlib.sha256(svg).hexdigest()[:32]}"')


def word_of(connection: Connection, project: str, pipeline: str, ref: str) -> str:
    """How the newest run is: passing, failing, running, cancelled, or unknown when there is none."""
    mine = and_(runs.c.project == project, runs.c.pipeline == pipeline)
    place = runs.c.ref == ref if ref else runs.c.ref.startswith("refs/heads/", autoescape=True)
    newest = select(runs.c.state, runs.c.outcome).where(mine, place).order_by(runs.c.number.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is None:
        return "unknown"
    if row.state != "ended":
        return "running"
    return "passing" if row.outcome in GREEN else "failing" if row.outcome in RED else "cancelled"


def picture(label: str, word: str) -> str:
    """An SVG of a label and a word, which screen readers read too. The label is anybody's text."""
    label = "".join(sign if sign.isprintable() else " " for sign in label)[:_LONGEST_LABEL]
    left, right = _width(label), _width(word)
    said = escape(f"{label}: {word}")
    size = f'width="{left + right}" height="{_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{said}">'
        f"<title>{said}</title>"
        f'<rect width="{left}" height="{_HEIGHT}" fill="#24292f"/>'
        f'<rect x="{left}" width="{right}" height="{_HEIGHT}" fill="{_COLOURS[word]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f"{_text(label, left / 2, left)}{_text(word, left + right / 2, right)}</g></svg>"
    )


def _text(text: str, middle: float, width: int) -> str:
    """Text that is as wide as was reckoned, whatever font the reader has."""
    length = width - 2 * _PAD
    return f'<text x="{middle:g}" y="14" textLength="{length}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'


def _width(text: str) -> int:
    return round(sum(_WIDE if unicodedata.east_asian_width(sign) in "WF" else _NARROW for sign in text)) + 2 * _PAD
