"""Taking secrets out of streams of bytes, whatever way the bytes are cut."""

import base64
import json
import re
import shlex
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["MASK", "MINIMUM", "MaskedStream", "Masker"]

MASK: Final = b"****"
MINIMUM: Final = 4
"""Shorter secrets would take half the log with them; they are warned about and not masked."""
LINE: Final = 8
"""Characters of the shortest line of a secret that is masked by itself."""
WIDTHS: Final = (64, 76)
"""Where programs wrap base64: RFC 7468 and RFC 2045."""


# -- what a secret looks like ----------------------------------------------------------------------


def _forms(value: str) -> set[bytes]:
    """A secret as programs print it: for shells, JSON, XML, URLs and Makefiles, as base64 and hex, line by line."""
    raw = value.encode()
    texts = {value, value.strip(), value.strip().strip('"'), shlex.quote(value).strip("'"), value.replace("$", "$$")}
    texts |= {*_url(value), *_json(value), *_xml(value), raw.hex(), raw.hex().upper()}
    texts |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE and "-----" not in line}
    return {text.encode() for text in texts} | {*_base64(raw), *_wrapped(raw)}


def _url(value: str) -> Iterator[str]:
    for quoted in (urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)):
        yield quoted
        yield re.sub("%..", lambda match: match[0].lower(), quoted)


def _json(value: str) -> Iterator[str]:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        yield text[1:-1]
        yield text[1:-1].replace("/", "\\/")
        yield json.dumps(text)[3:-3]
        yield from (_for_html(text[1:-1], *way) for way in (("<>&", "04x"), ("<>&", "04X"), ("<>&'=", "04x")))


def _for_html(text: str, characters: str, digits: str) -> str:
    """As Go, .NET and Gson write JSON, so that it can stand in HTML."""
    return re.sub(f"[{characters}]", lambda match: f"\\u{ord(match[0]):{digits}}", text)


def _xml(value: str) -> Iterator[str]:
    import html

    escaped = html.escape(value, quote=False)
    quoted = escaped.replace('"', "&quot;")
    yield from (escaped, quoted)
    yield from (quoted.replace("'", mark) for mark in ("&#39;", "&#x27;", "&apos;"))
    yield escaped.replace('"', "&#34;").replace("'", "&#39;")


def _base64(value: bytes) -> Iterator[bytes]:
    """The part of a base64 text that is the same at each of the three offsets a secret can have in it."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            text = encode(b"\0" * offset + value)
            first = -(-offset * 8 // 6)
            usable = (offset + len(value)) * 8 // 6
            yield text[first:usable]


def _wrapped(value: bytes) -> Iterator[bytes]:
    """The lines of a base64 text that is the secret alone."""
    text = base64.b64encode(value)
    for width in WIDTHS:
        if len(text) > width:
            lines = (text[start : start + width] for start in range(0, len(text), width))
            yield from (line for line in lines if len(line) >= 2 * LINE)


# -- finding them ----------------------------------------------------------------------------------


class _Needles:
    """All forms of all secrets, searched for at once."""

    def __init__(self, forms: Iterable[bytes]) -> None:
        from ahocorasick_rs import BytesAhoCorasick

        self._heads: dict[bytes, list[bytes]] = {}
        for needle in forms:
            self._heads.setdefault(needle[:MINIMUM], []).append(needle)
        everything = [needle for needles in self._heads.values() for needle in needles]
        self._whole = BytesAhoCorasick(everything)
        self._beginnings = BytesAhoCorasick(list(self._heads))
        self._first_bytes = {head[:length] for head in self._heads for length in range(1, MINIMUM)}
        self.longest = max(map(len, everything))
        """Bytes of the longest form."""

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where they stand, by their beginning; they may overlap."""
        return sorted((start, end) for _, start, end in self._whole.find_matches_as_indexes(data, overlapping=True))

    def any(self, data: bytes) -> bool:
        """Whether one stands in it."""
        return bool(self._whole.find_matches_as_indexes(data))

    def settled(self, data: bytes) -> int:
        """The length of the data in which none can begin that is not whole yet."""
        first = max(0, len(data) - self.longest + 1)
        tail = data[first:]
        for _, start, end in self._beginnings.find_matches_as_indexes(tail, overlapping=True):
            if any(needle.startswith(tail[start:]) for needle in self._heads[tail[start:end]]):
                return first + start
        for start in range(max(0, len(data) - MINIMUM + 1), len(data)):
            if data[start:] in self._first_bytes:
                return start
        return len(data)


class Masker:
    """All secrets of a run; streams ask it, so a secret read late is masked everywhere from then on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: frozenset[bytes] = frozenset()
        self._needles: _Needles | None = None

    def add(self, value: str) -> bool:
        """Mask this value and its usual encodings; False when it is too short to be masked."""
        if len(value) < MINIMUM:
            return False
        with self._lock:
            self._forms |= {form for form in _forms(value) if len(form) >= MINIMUM}
            self._needles = None
        return True

    def mask(self, data: bytes) -> bytes:
        """The data without secrets; overlapping ones are covered as one."""
        if not self._forms:
            return data
        stream = MaskedStream(self)
        return stream.feed(data) + stream.end()

    def mask_text(self, text: str) -> str:
        """The same for text."""
        if not self._forms:
            return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def holds(self, data: bytes) -> bool:
        """Whether a secret stands in the data, in whatever form."""
        return self.found_in([data])

    def found_in(self, blocks: Iterable[bytes]) -> bool:
        """The same for a stream, which is read no further than to the first one."""
        needles, carry = self.needles(), b""
        for block in blocks if needles else ():
            data = carry + block
            if needles and needles.any(data):
                return True
            carry = data[-(needles.longest - 1) :] if needles else b""
        return False

    def apart_from(self, known: bytes) -> "Masker":
        """A masker for those forms that no digest or time holds by chance, nor what everybody knows anyway."""
        other = Masker()
        other._forms = frozenset(form for form in self._forms if len(form) >= LINE and form not in known)
        return other

    def needles(self) -> _Needles | None:
        """What to look for; None when there is nothing. Made when it is asked for, not for each secret anew."""
        if self._needles is None and self._forms:
            with self._lock:
                self._needles = _Needles(self._forms)
        return self._needles


class MaskedStream:
    """One stream: what could be the beginning of a secret waits for the next bytes."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._carry = b""
        self._covered = 0
        """How much of the carry a mask that was already shown stands for."""

    def feed(self, data: bytes) -> bytes:
        """Masked bytes that can be shown now."""
        needles = self._masker.needles()
        if needles is None:
            return data
        data = self._carry + data
        return self._show(needles, data, needles.settled(data))

    def end(self) -> bytes:
        """What was held back."""
        needles = self._masker.needles()
        return self._show(needles, self._carry, len(self._carry)) if needles else b""

    def _show(self, needles: _Needles, data: bytes, settled: int) -> bytes:
        out: list[bytes] = []
        shown = self._covered
        for start, end in needles.spans(data):
            if start < shown:
                shown = max(shown, end)
            elif start < settled:
                out += [data[shown:start], MASK]
                shown = end
        if shown < settled:
            out.append(data[shown:settled])
        self._carry, self._covered = data[settled:], max(0, shown - settled)
        return b"".join(out)
