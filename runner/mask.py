"""Taking secrets out of streams of bytes, whatever way the bytes are cut."""

import base64
import json
import re
import shlex
import threading
import urllib.parse
from collections.abc import Iterator

__all__ = ["MASK", "MINIMUM", "MaskedStream", "Masker"]

MASK = b"****"
MINIMUM = 4
"""Shorter secrets would take half the log with them; they are warned about and not masked."""


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """The part of a base64 text that is the same at each of the three offsets a secret can have in it."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            text = encode(b"\0" * offset + value)
            first = -(-offset * 8 // 6)
            usable = (offset + len(value)) * 8 // 6
            yield text[first:usable]


def _forms(value: str) -> set[bytes]:
    import html

    raw = value.encode()
    quoted = urllib.parse.quote(value, safe="")
    texts = {
        value,
        value.strip(),
        quoted,
        re.sub("%..", lambda match: match[0].lower(), quoted),
        urllib.parse.quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        shlex.quote(value).strip("'"),
        value.replace("$", "$$"),
        html.escape(value, quote=False),
        html.escape(value),
        json.dumps(json.dumps(value))[3:-3],
        raw.hex(),
        raw.hex().upper(),
    }
    texts.update(line.strip() for line in value.splitlines() if len(line.strip()) >= 8 and "-----" not in line)
    return {text.encode() for text in texts} | set(_base64_forms(raw))


class Masker:
    """All secrets of a run; streams ask it, so a secret read late is masked everywhere from then on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needles: frozenset[bytes] = frozenset()
        self._pattern: re.Pattern[bytes] | None = None
        self._heads: dict[bytes, list[bytes]] = {}
        self._head: re.Pattern[bytes] | None = None
        self._hold = 0

    def add(self, value: str) -> bool:
        """Mask this value and its usual encodings; False when it is too short to be masked."""
        if len(value) < MINIMUM:
            return False
        with self._lock:
            self._needles |= {form for form in _forms(value) if len(form) >= MINIMUM}
            longest_first = sorted(self._needles, key=len, reverse=True)
            self._pattern = re.compile(b"|".join(map(re.escape, longest_first)))
            self._hold = len(longest_first[0]) - 1
            self._heads = {}
            for needle in self._needles:
                self._heads.setdefault(needle[:MINIMUM], []).append(needle)
            self._head = re.compile(b"(?=(" + b"|".join(map(re.escape, self._heads)) + b"))")
        return True

    def mask(self, data: bytes) -> bytes:
        """The data without secrets; overlapping ones are covered as one."""
        stream = MaskedStream(self)
        return stream.feed(data) + stream.end()

    def mask_text(self, text: str) -> str:
        """The same for text."""
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where secrets stand, in order; they may overlap."""
        position = 0
        while self._pattern and (match := self._pattern.search(data, position)):
            yield match.span()
            position = match.start() + 1

    def settled(self, data: bytes) -> int:
        """The length of the data in which no secret can begin that is not whole yet."""
        if self._head is None:
            return len(data)
        for match in self._head.finditer(data, max(0, len(data) - self._hold)):
            tail = data[match.start() :]
            if any(needle.startswith(tail) for needle in self._heads[match[1]]):
                return match.start()
        for start in range(max(0, len(data) - MINIMUM + 1), len(data)):
            if any(head.startswith(data[start:]) for head in self._heads):
                return start
        return len(data)


class MaskedStream:
    """One stream: what could be the beginning of a secret waits for the next bytes."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._carry = b""
        self._covered = 0
        """How much of the carry a mask that was already shown stands for."""

    def feed(self, data: bytes) -> bytes:
        """Masked bytes that can be shown now."""
        data = self._carry + data
        return self._show(data, self._masker.settled(data))

    def end(self) -> bytes:
        """What was held back."""
        return self._show(self._carry, len(self._carry))

    def _show(self, data: bytes, settled: int) -> bytes:
        out: list[bytes] = []
        shown = self._covered
        for start, end in self._masker.spans(data):
            if start < shown:
                shown = max(shown, end)
            elif start < settled:
                out += [data[shown:start], MASK]
                shown = end
        if shown < settled:
            out.append(data[shown:settled])
        self._carry, self._covered = data[settled:], max(0, shown - settled)
        return b"".join(out)
