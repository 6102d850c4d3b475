"""Reports of tests are read as strangers write them, and written so that Jenkins reads them."""

import io
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.junit import HALF, Case, Clipped, Unreadable, Writer, clipped, read

REPORT = b"""<?xml version="1.0"?>
<testsuites><testsuite name="outer"><testsuite name="com.x.FooTest" time="1,002.5" timestamp="2026-01-02T03:04:05">
<properties><property name="password" value="nothing of this is read"/></properties>
<testcase classname="com.x.FooTest" name="works" time="0.5"/>
<testcase classname="com.x.FooTest" name="adds" time="-3"><failure message="expected 4" type="E"><![CDATA[E: expected 4
\tat org.junit.Assert.fail(Assert.java:3)
\tat com.x.FooTest.adds(FooTest.java:12)]]></failure><system-out>said</system-out></testcase>
<testcase name="shaky" time="NaN"><flakyFailure message="late" type="T"><stackTrace>at com.x.FooTest.shaky(FooTest.java:7)</stackTrace>
<system-out>noise</system-out></flakyFailure></testcase>
<testcase classname="com.x.FooTest" name="later"><skipped message="not yet"/></testcase>
<testcase classname="com.x.FooTest" name="broke" time="1e9"><error>boom
at x</error><rerunError message="boom"/></testcase>
</testsuite><testsuite name="com.x.Unloadable"><error message="no such class">trace</error></testsuite></testsuite></testsuites>
"""


def cases(data: bytes) -> list[Case]:
    return list(read(io.BytesIO(data)))


def test_a_report_is_read_with_all_that_surefire_writes() -> None:
    works, adds, shaky, later, broke, init = cases(REPORT)
    assert (works.suite, works.timestamp, works.seconds, works.result) == (
        "com.x.FooTest",
        "2026-01-02T03:04:05",
        0.5,
        "passed",
    )
    assert (adds.result, adds.why(), adds.line()) == (
        "failed",
        "expected 4",
        "at com.x.FooTest.adds(FooTest.java:12)",
    )
    assert (adds.seconds, adds.out) == (0.0, "said")
    assert (shaky.flaky, shaky.why(), shaky.line()) == (True, "late", "at com.x.FooTest.shaky(FooTest.java:7)")
    assert (shaky.classname, shaky.seconds) == ("com.x.FooTest", 0.0)
    assert (later.result, later.message) == ("skipped", "not yet")
    assert (broke.result, broke.why(), broke.flaky) == ("errored", "boom", False)
    assert broke.seconds == 365 * 24 * 3600
    assert (init.name, init.suite, init.result) == ("<init>", "com.x.Unloadable", "errored")


BOMB = b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><testsuite name="&z;"/>'
OUTSIDE = (
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite><testcase name="a">&x;</testcase></testsuite>'
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"<html/>", "its root is <html>"),
        (b"<testsuite><testcase>", "it is no XML"),
        (b"\x00\xff\xfe", "it is no XML"),
        (BOMB, "a document type"),
        (OUTSIDE, "a document type"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><testsuite/>', "a document type"),
        (b"<testsuite>" * 100, "lie within each other"),
        (b"<testsuite name='" + b"x" * (9 << 20) + b"'/>", "is longer than 4 MiB"),
        (b"<?xml version='1.0' encoding='klingon'?><testsuite/>", "encoding"),
    ],
)
def test_what_is_no_report_or_one_that_attacks_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        cases(data)


def test_memory_does_not_grow_with_a_report() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"<testsuite name='a'><testcase name='b'><system-out>"
        for _ in range(500):
            yield b"0123456789abcdef" * 4096
        yield b"</system-out></testcase></testsuite>"

    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = blocks()

        def read(self, _size: int = -1) -> bytes:
            return next(self.rest, b"")

    tracemalloc.start()
    (case,) = read(Endless())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert f"… {500 * 65536 - 2 * HALF} characters are left out …" in clipped(case.out)


@given(st.lists(st.text(max_size=40_000), max_size=12))
def test_a_clipped_text_keeps_both_ends_and_counts_what_is_between(parts: list[str]) -> None:
    made, whole = Clipped(), "".join(parts)
    for part in parts:
        made.add(part)
    text = str(made)
    if len(whole) <= 2 * HALF:
        assert text == whole
    else:
        assert text.startswith(whole[:HALF])
        assert text.endswith(whole[-HALF:])


def written(*all_cases: Case, secret: str = "") -> str:
    parts: list[str] = []
    writer = Writer(parts.append, lambda text: text.replace(secret, "****") if secret else text, "a")
    writer.suite("leaf: s", "leaf.1", "2026-01-02T03:04:05", all_cases)
    writer.close()
    return "".join(parts)


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_the_report_is_one_that_a_parser_takes(name: str, message: str, text: str) -> None:
    case = Case("s", "", name, name, 1.0, "failed", message, "t", text, [("flakyFailure", message, name, text)], text)
    root = ET.fromstring(written(case))  # noqa: S314
    assert [each.tag for each in root.iter("testcase")] == ["testcase"]
    assert len(root.findall("testsuite/testcase/failure")) == 1


def test_a_report_is_read_again_as_it_was_written() -> None:
    before = cases(REPORT)
    after = cases(written(*before).encode())
    assert [(c.name, c.classname, c.result, c.message, c.text, c.retried, c.out) for c in after] == [
        (c.name, c.classname, c.result, c.message, c.text, c.retried, c.out) for c in before
    ]


def test_secrets_are_masked_in_texts_and_never_break_the_markup() -> None:
    case = Case("s", "", "testcase", "a testcase", 1.0, "failed", "testcase", "", "testcase \x1b[31m")
    text = written(case, secret="testcase")
    root = ET.fromstring(text)  # noqa: S314
    found = root.find("testsuite/testcase")
    assert found is not None
    assert (found.get("classname"), found.get("name")) == ("****", "a ****")
    assert "\x1b" not in text


def test_what_green_tests_printed_is_cut_as_jenkins_does() -> None:
    case = Case("s", "", "a", "b", out="x" * 5000)
    (again,) = cases(written(case).encode())
    assert len(again.out) < 1100


def test_the_suites_of_one_report_are_copied_into_another_whatever_their_texts_are() -> None:
    inner = written(Case("s", "", "a", "b", 1.0, "failed", "m", "", "\n</testsuites>\n<testsuites>\n<?xml"))
    parts: list[str] = []
    writer = Writer(parts.append, str, "all")
    writer.copy(io.StringIO(inner))
    writer.close()
    (case,) = cases("".join(parts).encode())
    assert case.text == "\n</testsuites>\n<testsuites>\n<?xml"


def test_a_report_that_breaks_off_leaves_whole_suites_and_says_so() -> None:
    cases = "".join(f'<testcase classname="c" name="n{number}"/>' for number in range(3000))
    out: list[str] = []
    writer = Writer(out.append, str)
    with pytest.raises(Unreadable):
        writer.suite("s", "1", "", read(io.BytesIO(f"<testsuite>{cases}<testcase".encode())))
    writer.suite("t", "2", "", [])
    writer.close()
    suites = ET.fromstring("".join(out))  # noqa: S314 - ours
    assert [suite.get("name") for suite in suites] == ["s", "t"]
    assert len(suites[0]) > 1000


@pytest.mark.parametrize("before", [HALF - 5, 0])
def test_a_secret_at_a_cut_is_masked_while_it_is_whole(before: int) -> None:
    secret = "S3cretPassword"
    text = "x" * before + secret + "y" * (4 * HALF) + secret + "z" * (HALF - 5)
    (case,) = read(
        io.BytesIO(f'<testsuite><testcase name="n"><failure>{text}</failure></testcase></testsuite>'.encode())
    )
    out: list[str] = []
    Writer(out.append, lambda text: text.replace(secret, "****")).suite("s", "1", "", [case])
    assert not any(secret[:6] in piece or secret[-6:] in piece for piece in out)
