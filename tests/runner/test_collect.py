"""Files are collected out of a workspace that somebody hostile writes to at the same time."""

import hashlib
import os
from pathlib import Path, PurePosixPath

import pytest

from pipeline.stage import StageFailed
from runner import collect
from runner.collect import Copies, Seen, Walk
from runner.mask import Masker


def copied(work: Path, target: Path, *patterns: str, below: str = "", masker: Masker | None = None) -> Copies:
    copies = Copies(target, patterns, masker or Masker())
    Walk(work, PurePosixPath(below), patterns, copies.take)()
    return copies


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in ("target/a.jar", "target/deep/b.jar", "target/deep/c.txt", ".pipe/x/1/d.jar", "e.jar"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "work"


def test_globs_take_plain_files_at_their_own_paths_with_size_and_digest(work: Path, tmp_path: Path) -> None:
    copies = copied(work, tmp_path / "out", "**/*.jar", "!target/deep/**")
    assert [file.path for file in copies.files] == ["e.jar", "target/a.jar"]
    first = copies.files[1]
    assert (first.size, first.sha256) == (12, hashlib.sha256(b"target/a.jar").hexdigest())
    assert (tmp_path / "out/target/a.jar").read_text() == "target/a.jar"


def test_globs_count_from_the_folder_of_the_stage(work: Path, tmp_path: Path) -> None:
    copies = copied(work, tmp_path / "out", "deep/*", below="target")
    assert [file.path for file in copies.files] == ["deep/b.jar", "deep/c.txt"]


def test_no_link_is_followed_whatever_it_leads_to(work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    (work / "target/file").symlink_to(outside / "secret")
    (work / "target/folder").symlink_to(outside)
    (work / "target/own").symlink_to(work / "e.jar")
    os.mkfifo(work / "target/pipe")
    copies = Copies(tmp_path / "out", ("target/**",), Masker())
    seen = Walk(work, PurePosixPath(), ("target/**",), copies.take)()
    assert [file.path for file in copies.files] == ["target/a.jar", "target/deep/b.jar", "target/deep/c.txt"]
    assert seen.special == 4


def test_a_folder_of_the_stage_that_is_a_link_by_now_gives_nothing(work: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.jar").write_text("x")
    (work / "app").symlink_to(tmp_path / "outside")
    assert not copied(work, tmp_path / "out", "*.jar", below="app").files


def test_what_becomes_a_link_after_it_was_listed_leads_nowhere(work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.jar").write_text("stolen")

    class Raced(Walk):
        """Somebody is as quick as can be: between the look into a folder and its opening, and that of a file."""

        def _leads_on(self, folder: str) -> bool:
            if folder == "target/deep/":
                (work / "target/deep").rename(work / "target/was")
                (work / "target/deep").symlink_to(outside)
            return super()._leads_on(folder)

        def _open(self, path: str, name: str, parent: int, seen: Seen) -> None:
            if path == "target/a.jar":
                (work / path).unlink()
                (work / path).symlink_to(outside / "b.jar")
            super()._open(path, name, parent, seen)

    copies = Copies(tmp_path / "out", ("target/**",), Masker())
    seen = Raced(work, PurePosixPath(), ("target/**",), copies.take)()
    assert (copies.files, seen.special) == ([], 1)


@pytest.mark.parametrize(("bound", "value"), [("MOST_FILES", 2), ("MOST_BYTES", 20)])
def test_too_much_is_refused_and_says_so(
    work: Path, tmp_path: Path, bound: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, bound, value)
    with pytest.raises(StageFailed, match="would be more than"):
        copied(work, tmp_path / "out", "target/**")


def test_a_name_that_holds_a_secret_is_not_kept_and_not_told(work: Path, tmp_path: Path) -> None:
    masker = Masker()
    masker.add("correct-horse")
    (work / "correct-horse.jar").write_text("x")
    with pytest.raises(StageFailed) as error:
        copied(work, tmp_path / "out", "*.jar", masker=masker)
    assert "correct-horse" not in str(error.value)


def test_names_that_are_no_text_are_kept_as_they_are(work: Path, tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(work) + b"/\xff.jar"))).write_text("x")
    copied(work, tmp_path / "out", "*.jar")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").glob("*\udcff*")] == [b"\xff.jar"]


def test_folders_within_each_other_without_end_are_an_error_and_no_crash(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    here = os.open(work, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(StageFailed, match="more than 128 folders"):
        copied(work, tmp_path / "out", "**")
