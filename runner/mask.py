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
    raw = _bytes(value)
    texts = {value, value.strip(), value.strip().strip('"'), value.replace("$", "$$"), raw.hex(), raw.hex().upper()}
    texts |= {*_shell(value), *_literal(value), *_url(raw), *_json(value), *_xml(value)}
    texts |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE and "-----" not in line}
    return {_bytes(text) for text in texts} | {*_base64(raw), *_wrapped(raw)}


def _bytes(text: str) -> bytes:
    """What stood in a variable or a file, which need not have been UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _shell(value: str) -> Iterator[str]:
    """In single quotes as dash and as bash write them (`set -x`), in double ones (`export -p`), in none (`%q`)."""
    yield shlex.quote(value).strip("'")
    yield value.replace("'", "'\\''")
    yield re.sub(r'["$`\\]', r"\\\g<0>", value)
    yield re.sub(r"[ \t\"'\\|&;()<>!{}*\[?\]^$`,]|(?:^|(?<=[=:]))~|^#", r"\\\g<0>", value)


_ANSI_C = {"\a": "\\a", "\b": "\\b", "\x1b": "\\E", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ANSI_C |= {"\\": "\\\\", "'": "\\'"}


def _literal(value: str) -> Iterator[str]:
    """As Python shows it in a traceback, and as bash writes what no quotes can hold, in either kind of locale."""
    yield from (repr(value)[1:-1], ascii(value)[1:-1])
    for shown in (str.isprintable, _is_plain):
        yield "".join(_ANSI_C.get(each) or (each if shown(each) else _octal(each)) for each in value)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _octal(text: str) -> str:
    return "".join(f"\\{each:03o}" for each in _bytes(text))


_BARE_IN_URLS = (
    "",
    "/",
    "!'()*",  # encodeURIComponent
    ";/?:@&=+$,#!'()*",  # encodeURI
    "$&+,;=",  # a login in a URL of Go
    "$&+:=@",  # a part of a path of Go
    "!$%&'()*+,~",  # a login in a URL of a browser or Node.js
)
"""What the libraries of languages leave as it is in URLs, letters, digits and `-._` apart."""


def _url(value: bytes) -> Iterator[str]:
    quoted = {urllib.parse.quote(value, safe=safe) for safe in _BARE_IN_URLS}
    form = urllib.parse.quote_plus(value)
    quoted |= {form, urllib.parse.quote_plus(value, safe="*").replace("~", "%7E")}
    for text in quoted:
        yield text
        yield re.sub("%..", lambda match: match[0].lower(), text)


def _json(value: str) -> Iterator[str]:
    plain = json.dumps(value, ensure_ascii=False)
    for text in (plain, json.dumps(value)):
        yield text[1:-1]
        yield text[1:-1].replace("/", "\\/")
        yield json.dumps(text)[3:-3]
        yield from (_escaped(text[1:-1], *way) for way in (("<>&", "04x"), ("<>&", "04X"), ("<>&'=", "04x")))
    yield _escaped(plain[1:-1], "\x7f-\U0010ffff", "04X")
    yield _escaped(plain[1:-1].replace('\\"', '"'), "\"'&<>+`\x7f-\U0010ffff", "04X")


def _escaped(text: str, characters: str, digits: str) -> str:
    """As Go, Gson, Jackson and .NET write JSON, so that it can stand in HTML or is ASCII."""
    return re.sub(f"[{characters}]", lambda match: "".join(f"\\u{unit:{digits}}" for unit in _utf_16(match[0])), text)


def _utf_16(text: str) -> Iterator[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))


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
        from ahocorasick_rs import BytesAhoCorasick, MatchKind

        self._heads: dict[bytes, list[bytes]] = {}
        for needle in forms:
            self._heads.setdefault(needle[:MINIMUM], []).append(needle)
        everything = [needle for needles in self._heads.values() for needle in needles]
        self._whole = BytesAhoCorasick(everything)
        # this kind alone skips what holds none, many times as fast as the other one looks at it
        self._some = BytesAhoCorasick(everything, matchkind=MatchKind.LeftmostFirst)
        self._beginnings = BytesAhoCorasick(list(self._heads))
        self._first_bytes = {head[:length] for head in self._heads for length in range(1, MINIMUM)}
        self.longest = max(map(len, everything))
        """Bytes of the longest form."""

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where they stand, by their beginning; they may overlap."""
        if not self.any(data):
            return []
        return sorted((start, end) for _, start, end in self._whole.find_matches_as_indexes(data, overlapping=True))

    def any(self, data: bytes) -> bool:
        """Whether one stands in it."""
        return bool(self._some.find_matches_as_indexes(data))

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
            return text if text.isascii() else _bytes(text).decode("utf-8", "replace")
        return self.mask(_bytes(text)).decode("utf-8", "replace")

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
