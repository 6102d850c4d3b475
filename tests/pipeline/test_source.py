"""YAML as a tree with places: what each text becomes, and that no bytes make the loader crash or dawdle."""

import string
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidPipeline, PipeError
from pipeline.model import read
from pipeline.source import List, Map, Text, load, plain
from tests.pipeline.fakes import KINDS, plan, worded


def values(text: str) -> object:
    source = load(text, "f.yaml")
    assert not source.problems, [worded(problem) for problem in source.problems]
    assert source.root is not None
    return plain(source.root)


def said(text: str | bytes) -> list[str]:
    return [worded(problem) for problem in load(text, "f.yaml").problems]


@pytest.mark.parametrize("scalar", ["1.10", "08", "no", "on", "0x1f", "1_000", "12:30:45", "2024-01-01", ".5", "True"])
def test_a_plain_scalar_is_its_source_text(scalar: str) -> None:
    assert values(f"a: {scalar}\n{scalar}: b") == {"a": scalar, scalar: "b"}


def test_an_alias_stands_for_the_whole_value() -> None:
    assert values("x-a: &a [b, {c: d}]\ny: *a") == {"x-a": ["b", {"c": "d"}], "y": ["b", {"c": "d"}]}


def test_every_key_and_value_knows_its_place() -> None:
    root = load("a:\n  - {b: cde}\n", "f.yaml").root
    assert isinstance(root, Map)
    assert str(root.entries["a"].key.place) == "f.yaml:1:1"
    sequence = root.get("a")
    assert isinstance(sequence, List)
    value = sequence.items[0].get("b") if isinstance(sequence.items[0], Map) else None
    assert isinstance(value, Text)
    assert (str(value.place), value.place.width, value.place.text) == ("f.yaml:2:9", 3, "  - {b: cde}")


def test_windows_line_ends_and_a_byte_order_mark_do_not_move_a_place() -> None:
    source = load("\ufeffa: b\r\nc: d\r\n".encode(), "f.yaml")
    assert source.root is not None
    assert [str(entry.place) for entry in source.root.entries.values()] == ["f.yaml:1:4", "f.yaml:2:4"]


PROBLEMS: list[tuple[str | bytes, list[str]]] = [
    ("", ["1:1 the file is empty"]),
    ("# nothing\n", ["1:1 the file is empty"]),
    ("- a\n", ["1:1 a pipeline file is a map with `name:` and `stages:`"]),
    ("just text", ["1:1 a pipeline file is a map with `name:` and `stages:`"]),
    (b"\xff\xfea", ["1:1 this is not a UTF-8 text: byte 0xff"]),
    (b"name: caf\xe9\n", ["1:10 this is not a UTF-8 text: byte 0xe9"]),
    (b"a: b\n\x7fELF\x00", ["2:1 the control character U+007F cannot be in a pipeline file"]),
    ("a: b\x00", ["1:5 the control character U+0000 cannot be in a pipeline file"]),
    ("a: b\n\tc: d", ["2:1 a tab cannot indent in YAML (use spaces)"]),
    ("a:\n\t- b", ["2:1 a tab cannot indent in YAML (use spaces)"]),
    ("a: b\na: c\na: d", [f"{n}:1 the key 'a' stands here twice, first in line 1" for n in (2, 3)]),
    (
        "a:\nb: ~\nc: [null]",
        [
            '1:1 `a:` has no value (leave the key out, or write "" for an empty text)',
            '2:1 `b:` has no value (leave the key out, or write "" for an empty text)',
            '3:5 a value is missing here (null is no value; write "" for an empty text)',
        ],
    ),
    (
        "x: &a {b: c}\ny: {<<: *a}",
        ["2:5 merge keys `<<` are not supported (use an alias for the whole value, or `defaults:`)"],
    ),
    (
        "a: !!python/object/apply:os.system [ls]",
        ["1:4 tags are not supported (put it in quotes if the `!` belongs to the text)"],
    ),
    (
        "a: !x b\nc: ! d",
        [
            "1:4 tags are not supported (put it in quotes if the `!` belongs to the text)",
            '2:4 a `!` in front of a value would be dropped by YAML (put it in quotes: "!d")',
        ],
    ),
    ('a: "x\\0y"', ["1:4 no text can hold the character U+0000"]),
    ("a: *b", ["1:4 '*b' names no anchor above it (put it in quotes if it is not meant to be an alias)"]),
    ("a: &nam b\nc: *name", ["2:4 '*name' names no anchor above it (did you mean 'nam'?)"]),
    ("a: &b [*b]", ["1:8 '*b' stands inside of what it names"]),
    ("? [a]\n: b", ["1:3 a key must be a text (put it in quotes)"]),
    ("a: b\n---\nc: d", ["2:1 a pipeline file is one document: a second one begins here"]),
    (
        "a: [b\nc: d",
        ["2:2 not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that begins in line 1"],
    ),
    ("[" * 5000, ["1:51 nested more than 50 levels deep"]),
    ("{a: " * 5000, ["1:201 nested more than 50 levels deep"]),
    ("- " * 5000, ["1:101 nested more than 50 levels deep"]),
    ("? " * 5000, ["1:101 nested more than 50 levels deep"]),
    ("x" * (2 << 20) + "x", ["1:1 the file is larger than 2 MiB"]),
    (
        "a: b\n" * 60_000,
        [
            *(f"{n}:1 the key 'a' stands here twice, first in line 1" for n in range(2, 102)),
            "101:1 stopped after 100 problems",
        ],
    ),
    ("a: [" + "x, " * 60_000 + "]", ["1:150002 a file of this size is too large: more than 50000 values"]),
]


@pytest.mark.parametrize(("text", "expected"), PROBLEMS, ids=[str(item[0])[:30] for item in PROBLEMS])
def test_what_cannot_be_read_is_said_with_its_place(text: str | bytes, expected: list[str]) -> None:
    assert said(text) == expected


def test_aliases_count_as_if_they_were_written_out() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert said("\n".join(lines)) == ["5:30 a file with its aliases written out is too large: more than 50000 values"]


def test_an_alias_cannot_hide_depth() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [[[[[*a{n - 1}]]]]]" for n in range(1, 20))]
    assert said("\n".join(lines)) == ["11:16 nested more than 50 levels deep"]


HOSTILE = [
    *(text for text, _ in PROBLEMS),
    "a: '" + "\\n" * 900_000,
    "[" + "{a: b}, " * 200_000,
    "x: " + "&a " * 1000,
    "a:" * 500_000,
    "# " * 1_000_000,
    "\n" * 2_000_000,
    "é" * 1_000_000,
    "a: |\n" + "  x\n" * 500_000,
    "name: a\nstages:\n" + "".join(f"  s{n}: {{rum: x}}\n" for n in range(9000)),
    "name: a\nstages:\n" + "".join(f"  s{n}: {{run: x, needs: t{n}}}\n" for n in range(9000)),
    "name: a\nstages:\n" + "".join(f"  s{n}: {{run: x, needs: s{n + 1}}}\n" for n in range(5000)),
    "name: a\n" + "".join(f"key{n}: x\n" for n in range(20_000)),
    "name: a\nstages: {s: {run: x, each: {a: &a [" + ",".join(map(str, range(500))) + "], b: *a, c: *a}}}",
]


HONEST = "name: a\nstages:\n" + "".join(f"  s{n}: {{run: x}}\n" for n in range(3000))


@pytest.fixture(scope="module")
def honest() -> float:
    """Seconds of this machine, now, for a sound file of 3,000 stages: a third of one on a quiet one."""
    seconds("name: a\nstages: {s: {run: x}}")  # imports do not count
    return seconds(HONEST)


def seconds(text: str | bytes) -> float:
    """Of processor time for reading a file, sound or not."""
    start = time.process_time()
    with suppress(InvalidPipeline):
        read(load(text, "f.yaml"), KINDS)
    return time.process_time() - start


def costs_at_most(times: float, text: str | bytes, honest: float) -> bool:
    """Beside an honest file. A busy machine slows down either of them: then both are measured anew, in turn."""
    return seconds(text) < times * honest or any(seconds(text) < times * seconds(HONEST) for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_cost_no_more_than_an_honest_one_with_some_thousand_stages(
    text: str | bytes, honest: float
) -> None:
    with pytest.raises(InvalidPipeline) as error:
        read(load(text, "f.yaml"), KINDS)
    assert all(problem.place for problem in error.value.problems[:-1])
    assert len(str(error.value)) < 100_000
    assert costs_at_most(4, text, honest)


def test_a_file_of_two_thousand_lines_costs_less_than_one_with_three_thousand_plain_stages(honest: float) -> None:
    lines = [
        f"  s{n}:\n    needs: s{n - 1}\n    run: echo {n}\n    env: {{A: '${{params.p}}-{n}'}}" for n in range(1, 500)
    ]
    text = "name: a\nparams: {p: {default: x}}\nstages:\n  s0: {run: x}\n" + "\n".join(lines)
    read(load(text, "f.yaml"), KINDS)  # it is sound
    assert costs_at_most(1, text, honest)


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="No such file"):
        load(tmp_path / "none.yaml", "none.yaml")


def test_a_valid_file_without_conditions_loads_neither_networkx_nor_cel() -> None:
    code = (
        "import sys\nfrom tests.pipeline.fakes import plan\n"
        "plan('name: a\\nstages: {t: {run: x}, s: {run: x, needs: t}}')\n"
        "print([name for name in ('networkx', 'cel_expr_python', 'asyncio') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# -- fuzz ------------------------------------------------------------------------------------------

WORDS = ["name", "stages", "uses", "run", "needs", "each", "when", "with", "env", "params", "vars", "finally", "a", "b"]
SIGNS = [
    ": ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "'",
    '"',
    "*a",
    "&a ",
    "!",
    "|",
    ">",
    "#",
    "${",
    "}",
    "${params.a}",
]


def readable(content: bytes | str) -> None:
    """It is read and resolved, or refused; anything else that happens is a bug."""
    with suppress(InvalidPipeline):
        for name in read(load(content, "f.yaml"), KINDS).pipelines:
            plan(content, pipeline=name, unset="placeholder")


@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_problems(content: bytes) -> None:
    readable(content)


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.sampled_from(WORDS + SIGNS), max_size=40).map("".join))
def test_any_yaml_like_text_is_a_file_or_problems(content: str) -> None:
    readable(content)


TREES = st.recursive(
    st.sampled_from([*WORDS, "${params.a}", "${stages.a.outcome}", "true", "1", "5m", "ok", "$$", "checkout", "shell"])
    | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


def flow(tree: object) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(flow, tree)) + "]"
    return "'" + str(tree).replace("'", "''").replace("\x0b", "").replace("\x0c", "").replace("\r", "") + "'"


@settings(max_examples=300, deadline=2000)
@given(
    st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6),
    st.dictionaries(st.sampled_from("ab"), TREES, max_size=2),
)
def test_any_tree_in_the_words_of_the_language_is_a_file_or_problems(
    top: dict[str, object], nodes: dict[str, object]
) -> None:
    readable(flow({"name": "x", **top, "stages": {**nodes, "s": {"run": "x", **top}}}))
