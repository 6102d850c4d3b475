"""A log holds every byte that may be seen, in order, whoever writes meanwhile."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.logs import StageLog, join_ends, tail
from runner.mask import Masker


def test_a_log_whose_index_cannot_be_made_names_the_place_each_time(tmp_path: Path) -> None:
    (tmp_path / "x.idx").mkdir()
    made = StageLog(tmp_path / "x.log", Masker())
    for _ in range(2):
        with pytest.raises(IsADirectoryError, match=r"x\.idx"):
            made.write(b"hello\n")


def log(path: Path, *secrets: str) -> StageLog:
    masker = Masker()
    for secret in secrets:
        masker.add(secret)
    return StageLog(path, masker)


def test_a_line_of_ours_in_the_middle_of_a_secret_does_not_show_its_beginning(tmp_path: Path) -> None:
    made = log(tmp_path / "x.log", "correct-horse-battery")
    process = made.stream()
    process(b"x correct-hor")
    made.line("warning: y")
    process(b"se-battery\n")
    made.close()
    assert (tmp_path / "x.log").read_bytes() == b"x \nwarning: y\n****\n"


def test_two_processes_that_write_at_once_do_not_join_their_halves(tmp_path: Path) -> None:
    made = log(tmp_path / "x.log", "correct-horse-battery")
    one, two = made.stream(), made.stream()
    one(b"correct-horse-")
    two(b"other\n")
    one(b"battery\n")
    made.close()
    assert b"battery" not in (tmp_path / "x.log").read_bytes()


def test_the_tail_of_a_large_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {n}\n" for n in range(200_000)))
    assert tail(path, 2) == ["line 199998", "line 199999"]


def times_of(path: Path) -> list[tuple[int, float]]:
    lines = path.with_suffix(".idx").read_text().splitlines()
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def test_a_log_beyond_its_limit_keeps_its_beginning_and_its_end_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    made = StageLog(path, Masker(), limit=1 << 20)
    lines = [b"line %06d of many\n" % number for number in range(500_000)]
    for start in range(0, len(lines), 1000):
        made.write(b"".join(lines[start : start + 1000]))
    made.close()
    kept = path.read_bytes().splitlines(keepends=True)
    ours = [index for index, line in enumerate(kept) if line.startswith("… pipe: ".encode())]
    assert ours[1] == ours[0] + 1
    head, tail_ = kept[: ours[0]], kept[ours[1] + 1 :]
    assert head == lines[: len(head)]
    assert tail_ == lines[-len(tail_) :]
    assert len(b"".join(head)) > 500_000
    assert len(b"".join(tail_)) > 250_000
    missing = len(lines) - len(head) - len(tail_)
    assert f"… pipe: {missing * len(lines[0])} bytes were dropped here" in kept[ours[1]].decode()
    assert path.stat().st_size < 1.2 * (1 << 20)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.idx", "x.log"]


def test_a_log_that_stays_within_its_limit_or_goes_little_beyond_it_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    made = StageLog(path, Masker(), limit=1 << 20)
    lines = [b"line %06d\n" % number for number in range(80_000)]
    for line in lines:
        made.write(line)
    made.close()
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith("… pipe: ".encode())]
    assert kept == lines


def test_the_index_of_a_log_tells_times_in_order_also_behind_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    made = StageLog(path, Masker(), limit=1 << 20)
    for _ in range(30):
        made.write(b"x" * 99_999 + b"\n")
    made.close()
    places, times = zip(*times_of(path), strict=True)
    assert places[0] == 0
    assert list(places) == sorted(places)
    assert list(times) == sorted(times)
    assert places[-1] < path.stat().st_size
    assert any(place > 600_000 for place in places)


def test_what_a_dead_engine_had_kept_of_the_end_of_a_log_is_put_behind_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    made = StageLog(path, Masker(), limit=1 << 20)
    for number in range(100):
        made.write(b"%05d" % number * 10_000 + b"\n")
    join_ends(path)
    assert path.read_bytes().splitlines()[-1] == b"00099" * 10_000
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.idx", "x.log"]


def test_a_line_without_an_end_costs_no_memory_and_no_character(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    made = log(path, "correct-horse-battery")
    made._half = 1 << 20
    tracemalloc.start()
    for _ in range(600):
        made.write("é".encode() * 32_768)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    made.close()
    assert peak < 4 << 20
    assert "\ufffd" not in path.read_bytes().decode("utf-8", "replace").splitlines()[0]


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=40), st.integers(64, 20_000))
@settings(max_examples=60)
def test_whatever_comes_in_whatever_pieces_a_log_holds_its_beginning_and_its_end(
    pieces: list[bytes], limit: int
) -> None:
    whole = b"".join(pieces)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.log"
        made = StageLog(path, Masker(), limit=limit)
        for piece in pieces:
            made.write(piece)
        made.close()
        kept = path.read_bytes() if path.exists() else b""
        assert {each.name for each in Path(folder).iterdir()} <= {"x.log", "x.idx"}
    if len(whole) <= limit // 2:
        assert kept == whole
        return
    begin, _, end = kept.partition("… pipe: this log has".encode())
    assert whole.startswith(begin.removesuffix(b"\n"))
    end = end.partition(b"\n")[2]
    if end.startswith("… pipe: ".encode()):
        said, _, end = end.partition(b"\n")
        dropped = int(said.split()[2])
        own_newline = not whole.startswith(begin)
        assert len(begin) - own_newline + dropped + len(end) == len(whole)
    assert whole.endswith(end)
