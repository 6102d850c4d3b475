"""Complaints of compilers are found in logs, with their places, each once."""

from pathlib import Path

import pytest

from runner import problems
from runner.problems import find, lines_of

LINES = {
    "[ERROR] /w/hosp/src/A.java:[12,8] cannot find symbol": "javac hosp/src/A.java:12:8: error: cannot find symbol",
    "\x1b[1;31m[ERROR]\x1b[m /w/A.java:[4] bad": "javac A.java:4: error: bad",
    "[\x1b[1;31mERROR\x1b[m] /w/A.java:[3] bad": "javac A.java:3: error: bad",
    "[WARNING] /w/A.java:[3,1] deprecated": "javac A.java:3:1: warning: deprecated",
    "src/a.ts(3,5): error TS2322: Type 'x'": "tsc src/a.ts:3:5: error: Type 'x' (TS2322)",
    "src/b.ts:3:5 - error TS2322: Type 'y'": "tsc src/b.ts:3:5: error: Type 'y' (TS2322)",
    "A.java:7: error: ';' expected": "compiler A.java:7: error: ';' expected",
    "main.c:3:5: fatal error: foo.h: No such file": "compiler main.c:3:5: error: foo.h: No such file",
    "./x.go:3:5: undefined: foo": "go ./x.go:3:5: error: undefined: foo",
    "[ERROR] Failed to execute goal": "",
    "12:30:45: error: no place": "",
    "http://a.example:80: warning: no place": "",
    "[ERROR] a line without a place: [1,2]": "",
}


@pytest.mark.parametrize(("line", "expected"), LINES.items(), ids=list(LINES.values()))
def test_a_complaint_is_told_from_other_lines(line: str, expected: str) -> None:
    found = [f"{problem.tool} {problem}" for problem in find([line], "/w/")]
    assert found == ([expected] if expected else [])


def test_eslint_names_the_file_once_for_what_follows() -> None:
    lines = [
        "/w/src/app.js",
        "  1:10  error  'x' is not used  no-unused-vars",
        "  2:1  warning  Unexpected console",
        "",
    ]
    assert [str(problem) for problem in find(lines, "/w/")] == [
        "src/app.js:1:10: error: 'x' is not used (no-unused-vars)",
        "src/app.js:2:1: warning: Unexpected console",
    ]


def test_what_maven_says_as_it_happens_and_again_at_the_end_is_told_once() -> None:
    line = "[ERROR] /w/A.java:[1,2] bad"
    assert len(list(find([line, "x", line]))) == 1


PYTHON = """Traceback (most recent call last):
  File "/w/src/a.py", line 3, in <module>
    json.loads("x")
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError("Expecting value", s, err.value) from None
json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
Traceback (most recent call last):
  File "/w/src/b.py", line 1, in <module>
KeyError: 'late'"""
JAVA = """12:00 INFO Error handling is on
Exception in thread "main" java.lang.NullPointerException: no hospital
\tat java.base/java.util.Objects.requireNonNull(Objects.java:259)
\tat com.x.Foo.bar(Foo.java:12)
\tat com.x.Main.main(Main.java:3)
Caused by: java.lang.IllegalStateException: inner"""
NODE = """/w/a.js:1
function f() { throw new TypeError("no such thing") }
               ^

TypeError: no such thing
    at node:internal/x:1:2
    at f (/w/a.js:1:22)
    at Object.<anonymous> (/w/a.js:2:1)"""
OUTSIDE = """Traceback (most recent call last):
  File "/opt/tool/run.py", line 3, in <module>
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
  File "<frozen posixpath>", line 1, in join
TypeError: x"""
LOGBACK = """java.lang.IllegalStateException: no hospital
\tat java.base/java.util.Optional.orElseThrow(Optional.java:403) ~[na:na]
\tat com.x.Foo.bar(Foo.java:12) ~[classes!/:1.0]"""
THROWN = {
    PYTHON: "python src/a.py:3: error: json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    OUTSIDE: "python /opt/tool/run.py:3: error: TypeError: x",
    LOGBACK: "java Foo.java:12: error: java.lang.IllegalStateException: no hospital",
    JAVA: "java Foo.java:12: error: java.lang.NullPointerException: no hospital",
    NODE: "node a.js:1:22: error: TypeError: no such thing",
    "Error: at the door\n  at (nowhere)": "",
    "TypeError: x\nsomething\n    at f (/w/a.js:1:22)": "",
    "Traceback (most recent call last):\nValueError: no frame": "",
}


WAYS = ["python", "outside", "logback", "java", "node", "none", "apart", "bare"]


@pytest.mark.parametrize(("text", "expected"), THROWN.items(), ids=WAYS)
def test_the_first_exception_is_found_with_its_place(text: str, expected: str) -> None:
    found = [f"{problem.tool} {problem}" for problem in find(text.splitlines(), "/w/")]
    assert found == ([expected] if expected else [])


def test_lines_of_any_length_take_little_time_and_memory(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"a." * (4 << 20) + b"\nA.java:7: error: x\n" + b"[ERROR] " + b"/" * (2 << 20))
    assert [str(problem) for problem in find(lines_of(log))] == ["A.java:7: error: x"]


def test_of_a_long_log_its_end_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "FARTHEST", 100)
    log = tmp_path / "x.log"
    log.write_bytes(b"A.java:1: error: early\n" + b"x\n" * 100 + b"A.java:2: error: late\n")
    assert [problem.line for problem in find(lines_of(log))] == [2]


def test_a_log_that_was_never_written_has_no_complaints(tmp_path: Path) -> None:
    assert list(lines_of(tmp_path / "none.log")) == []
