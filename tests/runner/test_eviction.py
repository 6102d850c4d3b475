"""What outlives runs is bounded, and what somebody uses stays."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import PipeError
from runner.eviction import Bounds, bounds, due, evict, items, mark_due
from tests.support.program import host, pipe

MEBIBYTE = 1 << 20


def item(cache: Path, name: str, *, days: float = 0.0, size: int = MEBIBYTE) -> Path:
    """A folder with one file, and the lock beside it; used so many days ago."""
    path = cache / name
    path.mkdir(parents=True)
    (path / "file").write_bytes(bytes(size))
    lock = path.with_name(f"{path.name}.lock")
    lock.touch()
    moment = time.time() - days * 86400
    for each in (path / "file", path, lock):
        os.utime(each, (moment, moment))
    return path


def names(cache: Path) -> list[str]:
    return [each.name for each in items(cache)]


def test_the_least_recently_used_goes_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    for days, name in enumerate(["maven/repositories/0", "npm/modules/a", "_stages/s/k", "npm/packages"]):
        item(tmp_path, name, days=days)
    gone = evict(tmp_path, Bounds(2 * MEBIBYTE + 65536, 0))
    assert gone == [tmp_path / "npm/packages", tmp_path / "_stages/s/k"]
    assert names(tmp_path) == ["maven/repositories/0", "npm/modules/a"]


def test_what_was_not_used_for_long_goes_however_small_it_is(tmp_path: Path) -> None:
    item(tmp_path, "a/new", days=29, size=1)
    item(tmp_path, "a/old", days=31, size=1)
    evict(tmp_path, bounds({}))
    assert names(tmp_path) == ["a/new"]


def test_where_sizes_take_too_long_to_learn_what_is_too_old_goes_and_the_rest_stays(tmp_path: Path) -> None:
    item(tmp_path, "a/new", days=29)
    item(tmp_path, "a/old", days=31)
    with pytest.raises(TimeoutError):
        evict(tmp_path, Bounds(0, 30 * 86400), 0)
    assert names(tmp_path) == ["a/new"]


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_what_somebody_uses_stays(tmp_path: Path, how: int) -> None:
    item(tmp_path, "a/used", days=99)
    with (tmp_path / "a" / "used.lock").open("ab") as lock:
        fcntl.flock(lock, how)
        assert evict(tmp_path, Bounds(0, 1)) == []
        assert [each.busy for each in items(tmp_path)] == [True]
    assert evict(tmp_path, Bounds(0, 1)) == [tmp_path / "a/used"]


def test_what_several_share_by_hard_links_counts_once(tmp_path: Path) -> None:
    first, second = item(tmp_path, "a/0"), item(tmp_path, "a/1", days=1, size=0)
    (second / "same").hardlink_to(first / "file")
    os.utime(second, (0, 0))
    sizes = {each.name: each.size for each in items(tmp_path)}
    assert sizes["a/0"] >= MEBIBYTE
    assert sizes["a/1"] < 65536


def test_a_link_is_neither_an_item_nor_followed(tmp_path: Path) -> None:
    outside, cache = item(tmp_path, "outside/x"), tmp_path / "cache"
    inner = item(cache, "a/0", size=1)
    (inner / "out").symlink_to(outside)
    (cache / "way").symlink_to(tmp_path / "outside")
    (cache / "a" / "l").symlink_to(outside)
    (cache / "a" / "l.lock").touch()
    evict(cache, Bounds(0, 0))
    assert names(cache) == []
    assert (outside / "file").exists()


def test_what_died_on_its_way_goes_a_day_later(tmp_path: Path) -> None:
    for name, days in (("a/k.1.part", 0.5), ("a/k.2.part", 2)):
        item(tmp_path, name, days=days)
    evict(tmp_path, Bounds(1 << 40, 0))
    assert [path.name for path in (tmp_path / "a").glob("*.part")] == ["k.1.part"]


def test_a_lock_file_with_something_in_it_is_somebody_elses_and_stays(tmp_path: Path) -> None:
    item(tmp_path, "a/old", days=99)
    for name in ("Cargo.lock", "app/poetry.lock"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("[[package]]\n")
        os.utime(path, (0, 0))
    (tmp_path / "Cargo").write_text("theirs")
    os.utime(tmp_path / "Cargo", (0, 0))
    assert [path.name for path in evict(tmp_path, bounds({}))] == ["old"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["Cargo", "Cargo.lock", "poetry.lock"]


def test_nothing_is_left_of_what_went_and_no_lock_of_what_never_came(tmp_path: Path) -> None:
    item(tmp_path, "a/old", days=99)
    for name, days in (("a/never.lock", 2.0), ("a/perhaps.lock", 0.5), ("a/held.lock", 2.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    with (tmp_path / "a/held.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        evict(tmp_path, bounds({}))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["held.lock", "perhaps.lock"]


def test_everything_is_looked_at_once_an_hour_or_when_something_was_added(tmp_path: Path) -> None:
    assert due(tmp_path)
    assert not due(tmp_path)
    mark_due(tmp_path)
    assert due(tmp_path)
    old = time.time() - 3700
    os.utime(tmp_path / ".looked", (old, old))
    assert due(tmp_path)
    assert not due(tmp_path / "none")


def test_bounds_that_cannot_be_read_stop_a_run_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match=r"PIPE_CACHE_SIZE=much is no size(?s:.*)PIPE_CACHE_DAYS=-1"):
        bounds({"PIPE_CACHE_SIZE": "much", "PIPE_CACHE_DAYS": "-1"})
    (tmp_path / "pipe.yaml").write_text("name: a\nstages: {s: {run: touch ran}}\n")
    done = pipe(tmp_path, "run", "pipe.yaml", env=host(PIPE_CACHE_SIZE="much"))
    assert (done.returncode, (tmp_path / "ran").exists()) == (2, False)


def test_the_end_of_a_run_keeps_caches_within_their_bounds(tmp_path: Path) -> None:
    item(tmp_path / "cache", "maven/repositories/0", days=1, size=2 * MEBIBYTE)
    (tmp_path / "pipe.yaml").write_text("name: a\nstages: {s: {run: mkdir k; echo x > k/f, cache: k}}\n")
    done = pipe(tmp_path, "run", "pipe.yaml", env=host(PIPE_CACHE=str(tmp_path / "cache"), PIPE_CACHE_SIZE="1Mi"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name.partition("/")[0] for name in names(tmp_path / "cache")] == ["_stages"]


def test_caches_are_listed_and_cleared_by_name(tmp_path: Path) -> None:
    cache, env = tmp_path / "cache", host(PIPE_CACHE=str(tmp_path / "cache"))
    for name in ("maven/repositories/0", "npm/modules/a", "npm/packages"):
        item(cache, name, days=1)
    (tmp_path / "pipe.yaml").write_text("name: shop\nstages: {s: {run: mkdir k; echo x > k/f, cache: k}}\n")
    assert pipe(tmp_path, "run", "pipe.yaml", env=env).returncode == 0
    shown = pipe(tmp_path, "cache", "list", env=env).stdout.splitlines()
    assert shown[0].startswith("_stages/")
    assert shown[0].endswith("shop: k")
    assert shown[-1].startswith("3.0 MiB in ")
    with (cache / "npm" / "packages.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        done = pipe(tmp_path, "cache", "clear", "npm", env=env)
        assert (done.returncode, done.stdout) == (1, "removed 1 cache, 1.0 MiB\n")
        assert done.stderr == "npm/packages: in use, or not ours to remove\n"
    assert pipe(tmp_path, "cache", "clear", "maven/repositories/9", env=env).returncode == 2
    assert pipe(tmp_path, "cache", "clear", env=env).returncode == 0
    assert names(cache) == []
