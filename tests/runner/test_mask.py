"""A secret is never seen, however the bytes are cut, and nothing else changes."""

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.mask import MASK, MINIMUM, MaskedStream, Masker, _forms

SECRETS = ["s3cr3t/pa$s", "s3cr3t/pa$s-longer", "aabaabaab", "密码密码", 'quo"te\\d']


def masker(*secrets: str) -> Masker:
    made = Masker()
    for secret in secrets:
        made.add(secret)
    return made


def streamed(by: Masker, chunks: list[bytes]) -> bytes:
    stream = MaskedStream(by)
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.end()


ENCODINGS: list[Callable[[str], str]] = [
    lambda s: s,
    lambda s: urllib.parse.quote(s, safe=""),
    lambda s: re.sub("%..", lambda match: match[0].lower(), urllib.parse.quote(s, safe="")),
    urllib.parse.quote,
    urllib.parse.quote_plus,
    lambda s: json.dumps(s)[1:-1],
    lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    lambda s: json.dumps(json.dumps(s))[3:-3],
    lambda s: json.dumps(s)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    html.escape,
    lambda s: html.escape(s).replace("&#x27;", "&apos;"),
    lambda s: html.escape(s).replace("&#x27;", "&#39;"),
    shlex.quote,
    lambda s: s.encode().hex(),
    lambda s: s.encode().hex().upper(),
    lambda s: s.replace("$", "$$"),
    lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
]


@pytest.mark.parametrize("secret", [*SECRETS, "a<b>&'c\"/d", "it's <quoted> & more"])
@pytest.mark.parametrize("encoded", ENCODINGS)
def test_a_secret_is_masked_in_every_usual_encoding(secret: str, encoded: Callable[[str], str]) -> None:
    text = encoded(secret).strip("'").encode()
    assert text not in masker(secret).mask(b"before " + text + b" after")


@pytest.mark.parametrize("width", [64, 76])
def test_a_secret_is_masked_in_base64_of_several_lines(width: int) -> None:
    encoded = base64.b64encode(bytes(range(97, 123)) * 10)
    lines = [encoded[start : start + width] for start in range(0, len(encoded), width)]
    shown = masker("".join(map(chr, range(97, 123))) * 10).mask(b"\n".join(lines))
    assert not any(line in shown for line in lines)


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
def test_a_secret_is_masked_inside_base64_at_any_offset(before: str) -> None:
    encoded = base64.b64encode(f"{before}correct-horse-battery".encode())
    shown = masker("correct-horse-battery").mask(encoded)
    assert MASK in shown
    assert base64.b64encode(b"correct-horse")[4:-4] not in shown


def naively(secrets: list[str], data: bytes) -> bytes:
    """What masking means, without any cleverness: every byte of every form is covered, what overlaps by one mask."""
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= MINIMUM}
    found = sorted(
        (start, start + len(form)) for form in forms for start in range(len(data)) if data.startswith(form, start)
    )
    shown, end = b"", 0
    for first, last in found:
        if first >= end:
            shown += data[end:first] + MASK
        end = max(end, last)
    return shown + data[end:]


@given(st.data())
def test_masking_is_what_a_naive_search_for_every_form_gives(data: st.DataObject) -> None:
    texts = st.text('ab$/\n"<', min_size=4, max_size=9)
    secrets = data.draw(st.lists(texts, min_size=1, max_size=4))
    near = st.one_of(st.sampled_from(secrets), st.text('ab$/\n"<&\\', max_size=5))
    encodings = st.sampled_from(ENCODINGS)
    parts = data.draw(st.lists(st.builds(lambda text, encode: encode(text), near, encodings), max_size=8))
    whole = "".join(parts).encode()
    size = data.draw(st.integers(1, 64))
    shown = streamed(masker(*secrets), [whole[start : start + size] for start in range(0, len(whole), size)])
    assert shown == naively(secrets, whole)


@given(st.data())
def test_any_cutting_gives_the_same_result_as_the_whole(data: st.DataObject) -> None:
    by = masker(*SECRETS)
    parts = data.draw(st.lists(st.sampled_from([*SECRETS, "aab", "s3c", " ", "plain text", "\n", "aaba"]), max_size=12))
    whole = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    chunks = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    shown = streamed(by, chunks)
    assert shown == by.mask(whole)
    assert not any(secret.encode() in shown for secret in SECRETS)


def test_other_bytes_pass_unchanged() -> None:
    data = bytes(range(256)) * 40
    assert streamed(masker("correct-horse"), [data[i : i + 7] for i in range(0, len(data), 7)]) == data


def test_a_secret_that_begins_another_does_not_leave_its_tail() -> None:
    assert masker("token", "token-and-more").mask(b"x token-and-more y") == b"x " + MASK + b" y"


def test_a_secret_of_three_characters_is_refused_not_masked() -> None:
    by = Masker()
    assert by.add("abc") is False
    assert by.mask(b"abcabc") == b"abcabc"


def test_each_line_of_a_secret_of_several_lines_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nAAAAB3NzaC1yc2EAAAA\n-----END KEY-----"
    assert b"MIIEvQIBADANBgkqhkiG" not in masker(key).mask(b"[x] MIIEvQIBADANBgkqhkiG\n")
