"""A secret is never seen, however the bytes are cut, and nothing else changes."""

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.mask import MASK, MaskedStream, Masker

SECRETS = ["s3cr3t/pa$s", "s3cr3t/pa$s-longer", "aabaabaab", "密码密码", 'quo"te\\d']


def masker(*secrets: str) -> Masker:
    made = Masker()
    for secret in secrets:
        made.add(secret)
    return made


def streamed(by: Masker, chunks: list[bytes]) -> bytes:
    stream = MaskedStream(by)
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.end()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "encoded",
    [
        lambda s: s,
        lambda s: urllib.parse.quote(s, safe=""),
        urllib.parse.quote_plus,
        json.dumps,
        lambda s: s.encode().hex(),
        lambda s: s.replace("$", "$$"),
    ],
)
def test_a_secret_is_masked_in_every_usual_encoding(secret: str, encoded: object) -> None:
    assert callable(encoded)
    text = encoded(secret)
    assert text.strip('"').encode() not in masker(secret).mask(f"before {text} after".encode())


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
def test_a_secret_is_masked_inside_base64_at_any_offset(before: str) -> None:
    encoded = base64.b64encode(f"{before}correct-horse-battery".encode())
    shown = masker("correct-horse-battery").mask(encoded)
    assert MASK in shown
    assert base64.b64encode(b"correct-horse")[4:-4] not in shown


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
