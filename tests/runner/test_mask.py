"""A secret is never seen, however the bytes are cut, and nothing else changes."""

import base64
import html
import json
import os
import random
import re
import shlex
import shutil
import string
import subprocess
import urllib.parse
import uuid
from collections.abc import Callable, Iterator

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
    lambda s: s.replace("'", "'\\''"),
    lambda s: re.sub(r'["$`\\]', r"\\\g<0>", s),
    lambda s: s.encode().hex(),
    lambda s: s.encode().hex().upper(),
    lambda s: s.replace("$", "$$"),
    lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
]


ODD = [
    *SECRETS,
    "a<b>&'c\"/d",
    "it's <quoted> & more",
    "A+b/C==d",
    "back`tick$x\\y",
    "pässwort&\U0001f511 *(x)!~",
    "#a=~b:~c~d",
]

CONTROLS = [
    "first line\nsecond 'line' of it",
    "pa\rss'w\x1b[1mord",
    "tab\tbell\a\b\f\v\x01\x7f'end",
    "p\xe4ss\x85wört'\n",
]


@pytest.mark.parametrize("secret", ODD)
@pytest.mark.parametrize("encoded", ENCODINGS)
def test_a_secret_is_masked_in_every_usual_encoding(secret: str, encoded: Callable[[str], str]) -> None:
    text = encoded(secret).strip("'").encode()
    assert text not in masker(secret).mask(b"before " + text + b" after")


PROGRAMS = {
    "bash -x": ["bash", "-c", 'set -x; : "$T"'],
    "bash export -p": ["bash", "-c", "export -p"],
    "bash %q": ["bash", "-c", 'printf %q "$T"'],
    "bash @Q": ["bash", "-c", 'echo "${T@Q}"'],
    "sh -x": ["sh", "-c", 'set -x; : "$T"'],
    "sh export -p": ["sh", "-c", "export -p"],
    "env": ["env"],
    "jq": ["jq", "-n", "env.T"],
    "jq @uri": ["jq", "-n", "env.T|@uri"],
    "jq @html": ["jq", "-nr", "env.T|@html"],
    "jq @sh": ["jq", "-nr", "env.T|@sh"],
    "jq @base64": ["jq", "-n", '"user:\\(env.T)"|@base64'],
    "node JSON": ["node", "-p", "JSON.stringify(process.env.T)"],
    "node encodeURIComponent": ["node", "-p", "encodeURIComponent(process.env.T)"],
    "node encodeURI": ["node", "-p", "encodeURI(process.env.T)"],
    "node URL": ["node", "-p", "u = new URL('http://a'); u.username = 'u'; u.password = process.env.T; u.href"],
    "node form": ["node", "-p", "new URLSearchParams({a: process.env.T}).toString()"],
    "python repr": ["python3", "-c", "import os; print([os.environ['T']])"],
    "python ascii": ["python3", "-c", "import os; print(ascii(os.environ['T']))"],
    "perl URI": ["perl", "-e", '$t = $ENV{T}; $t =~ s/([^A-Za-z0-9_.~-])/sprintf("%%%02X", ord $1)/ge; print $t'],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_secret_is_masked_as_real_programs_print_it(name: str) -> None:
    argv = PROGRAMS[name]
    if not shutil.which(argv[0]):
        pytest.skip(f"needs {argv[0]}")
    for secret in [*ODD, *CONTROLS]:
        env = {**os.environ, "T": secret, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(argv, env=env, capture_output=True, check=True)
        shown = masker(secret).mask(done.stdout + done.stderr)
        assert MASK in shown, (secret, done.stdout + done.stderr)
        assert not masker(secret).holds(shown), (secret, shown)


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("A+b'c\"d<é\U0001f511", "A\\u002Bb\\u0027c\\u0022d\\u003C\\u00E9\\uD83D\\uDD11"),
        ("pässwort", "p\\u00E4sswort"),
        ("a~b*c d(é", "a%7Eb*c+d%28%C3%A9"),
        ("x/y&z@w", "x%2Fy&z%40w"),
    ],
    ids=[".NET", "Jackson", "Java's URLEncoder", "a login in a URL of Go"],
)
def test_a_secret_is_masked_as_programs_write_it_that_are_not_on_every_machine(secret: str, written: str) -> None:
    assert masker(secret).mask(f"({written})".encode()) == b"(****)"


def test_a_secret_that_is_no_text_is_masked_byte_for_byte() -> None:
    secret = b"p\xe4ssw\xf6rter".decode("utf-8", "surrogateescape")
    shown = masker(secret).mask(b"x p\xe4ssw\xf6rter " + base64.b64encode(b"p\xe4ssw\xf6rter") + b" p%E4ssw%F6rter y")
    assert shown == b"x **** ****g== **** y"


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


@pytest.mark.parametrize("secret", ODD)
def test_pieces_of_one_to_sixty_four_bytes_show_of_every_encoding_no_more_than_the_whole(secret: str) -> None:
    by = masker(secret)
    texts = [encoded(secret).strip("'").encode() for encoded in ENCODINGS]
    whole = b" | ".join(texts)
    expected = by.mask(whole)
    assert not any(text in expected for text in texts)
    for size in range(1, 65):
        shown = streamed(by, [whole[start : start + size] for start in range(0, len(whole), size)])
        assert shown == expected, size


def ordinary_logs(chance: random.Random) -> Iterator[bytes]:
    """A hundred blocks of a megabyte: what Maven, npm, docker and Kubernetes say, digests, base64, times, traces."""
    for _ in range(100):
        lines: list[str] = []
        while len(lines) < 12_200:
            digest, number = chance.randbytes(32), chance.randrange(10**6)
            lines += [
                f"[INFO] Building service-{number} 1.0-SNAPSHOT                              [{number % 40}/41]",
                f"Downloaded from central: https://repo.example/org/x{number}/maven-core-{number % 9}.jar (74 kB at 1.2 MB/s)",
                f"npm http fetch GET 200 https://registry.example/@types%2fnode {number}ms (cache hit)",
                f"{digest[:6].hex()}: Pushed  digest: sha256:{digest.hex()} size: {number}",
                f"2026-11-28T18:{number % 60:02}:11.{number:06}Z  INFO 1 --- [nio-8201-exec-{number % 9}] c.a.y.hosp.HospController : ok",
                f"\tat com.atguigu.yygh.hosp.Schedules.of(Schedules.java:{number % 400})",
                f"    uid: {uuid.UUID(bytes=digest[:16])}",
                f"{base64.b64encode(digest + digest[::-1]).decode()}",
                f'{{"level":"warn","password":"****","user":"u{number}","path":"/api/%E4%BD%A0/{number:x}","ok":true}}',
            ]
        yield "\n".join(lines).encode()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_megabytes_of_ordinary_logs_pass_unchanged() -> None:
    chance = random.Random(7)  # noqa: S311 - a seed, not a secret
    signs = string.ascii_letters + string.digits + "!$%&/()=?+#-_.:,;<>"
    kept = ["".join(chance.choices(signs, k=length)) for length in (8, 12, 24, 40) for _ in range(22)]
    kept += [chance.randbytes(20).hex() for _ in range(9)]
    kept += [
        "-----BEGIN KEY-----\n" + "\n".join(base64.b64encode(chance.randbytes(48)).decode() for _ in range(20)),
        *("correct-horse-battery-staple", "s3cr3t-pa$$word"),
    ]
    by = masker(*kept)
    stream, total = MaskedStream(by), 0
    for block in ordinary_logs(chance):
        assert stream.feed(block + b"\n") == block + b"\n"
        total += len(block)
    assert total > 100_000_000
    assert stream.feed(kept[0].encode()) + stream.end() == MASK


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
