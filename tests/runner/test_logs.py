"""A log holds every byte that may be seen, in order, whoever writes meanwhile."""

from pathlib import Path

import pytest

from runner.logs import StageLog, tail
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
