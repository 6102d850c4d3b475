"""`cache:` of a stage, in the real engine with real processes."""

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from pydantic import JsonValue

from runner.caches import STAGES
from tests.support.program import PIPE, host
from tests.support.runs import Run, run, shell
from tests.support.wait import until

pytestmark = pytest.mark.anyio

MAKE = "[ -e kept/made ] && echo was there || { mkdir -p kept && echo x$TEXT > kept/made; }"


def cache(*paths: str, **more: JsonValue) -> dict[str, JsonValue]:
    return {"paths": list(paths or ("kept",)), **more}


async def once(place: Path, script: str = MAKE, *caches: dict[str, JsonValue], **options: object) -> Run:
    """One run in a workspace that nobody worked in before; what `place/begin` holds is in it."""
    workspace = place / "workspace"
    if workspace.exists():
        workspace.rename(place / f"workspace.{os.urandom(4).hex()}")
    workspace.mkdir()
    for path in (place / "begin").glob("*"):
        (workspace / path.name).write_bytes(path.read_bytes())
    return await run(place, shell("s", script, cache=caches or (cache(),)), **options)


def told(done: Run) -> list[str]:
    return [line.partition(": ")[2] for line in done.log("s").splitlines() if "cache kept" in line]


def archives(place: Path) -> list[Path]:
    return [
        path.with_suffix("") for path in (place / "cache" / STAGES).glob("*/*.lock") if path.with_suffix("").exists()
    ]


def begin(place: Path, **files: str) -> None:
    (place / "begin").mkdir(exist_ok=True)
    for name, text in files.items():
        (place / "begin" / name).write_text(text)


# -- keeping and restoring -------------------------------------------------------------------------


async def test_what_a_green_run_left_is_there_in_the_next(tmp_path: Path) -> None:
    first = await once(tmp_path)
    assert told(first)[0].startswith("nothing is kept as ")
    assert told(first)[1].startswith("kept, ")
    second = await once(tmp_path)
    assert "was there" in second.log("s")
    assert told(second)[0].startswith("restored ")
    assert told(second)[1] == "unchanged"


async def test_a_red_run_keeps_nothing(tmp_path: Path) -> None:
    await once(tmp_path, f"{MAKE}; exit 1")
    assert archives(tmp_path) == []


async def test_the_files_of_the_key_say_what_fits(tmp_path: Path) -> None:
    exact = cache(key=["lock"], fallback=False)
    for text, found in (("1", False), ("2", False), ("1", True), ("2", True), ("3", False)):
        begin(tmp_path, lock=text)
        done = await once(tmp_path, MAKE, exact)
        assert ("was there" in done.log("s")) == found, text
    assert len(archives(tmp_path)) == 3


async def test_without_one_that_fits_the_newest_is_the_beginning_and_what_comes_of_it_is_kept(tmp_path: Path) -> None:
    keyed = cache(key=["lock"])
    begin(tmp_path, lock="1")
    await once(tmp_path, "mkdir kept; echo 1 > kept/first", keyed)
    begin(tmp_path, lock="2")
    done = await once(tmp_path, "cat kept/first; echo 2 > kept/second", keyed)
    assert "the newest of other content" in told(done)[0]
    assert told(done)[1].startswith("kept, ")
    done = await once(tmp_path, "cat kept/first kept/second", keyed)
    assert told(done)[1] == "kept already"


async def test_globs_of_a_key_look_everywhere_but_into_what_is_cached(tmp_path: Path) -> None:
    keyed = cache(key=["**/pom*", "pom*"], fallback=False)
    begin(tmp_path, pom1="a")
    await once(tmp_path, "mkdir kept; echo 1 > kept/pom9", keyed)
    done = await once(tmp_path, "cat kept/pom9", keyed)
    assert done.outcomes() == {"s": "succeeded"}
    begin(tmp_path, pom2="a")
    done = await once(tmp_path, "[ ! -e kept ]", keyed)
    assert done.outcomes() == {"s": "succeeded"}


async def test_a_key_without_a_file_is_a_warning_and_no_cache(tmp_path: Path) -> None:
    done = await once(tmp_path, MAKE, cache(key=["lock"]))
    assert done.outcomes() == {"s": "succeeded"}
    assert "neither restored nor kept, for there is no file lock" in done.log("s")
    assert archives(tmp_path) == []


async def test_what_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    await once(tmp_path)
    (tmp_path / "workspace" / "kept" / "made").write_text("mine")
    done = await run(tmp_path, shell("s", "cat kept/made", cache=(cache(),)))
    assert "mine" in done.log("s")
    assert told(done)[0] == "left as it is, for it is there already"


async def test_permissions_links_times_and_names_of_any_bytes_come_back(tmp_path: Path) -> None:
    script = r"""
        mkdir -p kept/deep && cd kept && echo x > deep/tool && chmod 755 deep/tool && ln -s /etc/hostname out && ln deep/tool same
        touch -d 2020-01-02T03:04:05Z deep/old; echo n > "$(printf 'a\nb\033[31m')"; echo b > "$(printf '\377')"; chmod 555 deep
    """
    await once(tmp_path, script)
    done = await once(tmp_path, "true")
    kept = tmp_path / "workspace" / "kept"
    assert told(done)[0].startswith("restored ")
    assert oct((kept / "deep" / "tool").stat().st_mode)[-3:] == "755"
    assert oct((kept / "deep").stat().st_mode)[-3:] == "555"
    assert (kept / "out").readlink() == Path("/etc/hostname")
    assert (kept / "same").samefile(kept / "deep" / "tool")
    assert (kept / "deep" / "old").stat().st_mtime == 1577934245
    assert (kept / "a\nb\x1b[31m").read_text() == "n\n"
    assert (kept / os.fsdecode(b"\xff")).read_text() == "b\n"
    (kept / "deep").chmod(0o755)


async def test_a_name_tells_caches_of_the_same_paths_apart(tmp_path: Path) -> None:
    done = await run(
        tmp_path,
        *(shell(f"s[{name}]", "mkdir -p kept; echo x > kept/f; sleep 0.2", cache=(cache(name=name),)) for name in "ab"),
    )
    assert set(done.outcomes().values()) == {"succeeded"}
    assert len(archives(tmp_path)) == 2


# -- what may go wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 300, 700, -40, -1])
async def test_a_damaged_one_is_a_miss_with_a_warning(tmp_path: Path, at: int) -> None:
    await once(tmp_path, "mkdir kept; seq 1 500 > kept/made")
    [archive] = archives(tmp_path)
    data = bytearray(archive.read_bytes())
    data[at] ^= 0x55
    archive.write_bytes(data)
    done = await once(tmp_path, "[ ! -e kept ]; mkdir kept; seq 1 500 > kept/made")
    assert done.outcomes() == {"s": "succeeded"}
    assert "is damaged and was removed" in done.log("s")
    assert not list((tmp_path / "workspace").glob(".pipe-cache-*"))
    done = await once(tmp_path, "[ -e kept/made ]")
    assert done.outcomes() == {"s": "succeeded"}


@pytest.mark.parametrize("size", [0, 1, 64, 65, 1000, 10240])
async def test_one_that_was_cut_is_a_miss_with_a_warning(tmp_path: Path, size: int) -> None:
    await once(tmp_path, "mkdir kept; seq 1 5000 > kept/made")
    [archive] = archives(tmp_path)
    os.truncate(archive, size)
    done = await once(tmp_path, "[ ! -e kept ]")
    assert done.outcomes() == {"s": "succeeded"}
    assert "is damaged and was removed" in done.log("s")


async def test_a_link_on_the_way_to_a_path_is_not_followed_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "way").symlink_to(outside)
    done = await run(tmp_path, shell("s", "true", cache=(cache("way/kept"),)))
    cause = done["s"].cause
    assert cause is not None
    assert cause.message == "cache: way/kept leads out of the workspace"


async def test_a_path_that_became_a_link_is_not_kept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    done = await once(tmp_path, f"ln -s {outside} kept")
    assert told(done)[1].startswith("not kept: there is nothing")
    assert archives(tmp_path) == []


async def test_what_strangers_keep_is_for_strangers_alone(tmp_path: Path) -> None:
    stranger = {"trigger": {"kind": "pull_request", "fork": True}}
    await once(tmp_path, "mkdir kept; echo evil > kept/made", **stranger)
    done = await once(tmp_path, "[ ! -e kept ]")
    assert done.outcomes() == {"s": "succeeded"}
    done = await once(tmp_path, "cat kept/made", **stranger)
    assert "evil" in done.log("s")


async def test_what_is_larger_than_all_caches_may_be_is_not_kept(tmp_path: Path) -> None:
    large = "mkdir kept; head -c 1100000 /dev/zero > kept/made"
    done = await once(tmp_path, large, environ={"PIPE_CACHE_SIZE": "1Mi"})
    assert told(done)[1] == "not kept: its 1.0 MiB are more than PIPE_CACHE_SIZE, 1.0 MiB"
    assert archives(tmp_path) == []


async def test_a_folder_of_caches_that_cannot_be_written_changes_no_outcome(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    done = await once(tmp_path)
    assert done.outcomes() == {"s": "succeeded"}
    assert "not kept: " in done.log("s")


# -- many at once ----------------------------------------------------------------------------------

FILE = """name: many
stages:
  s:
    run: |
      if [ -e kept ]; then ls kept | wc -l >> found; fi
      mkdir -p kept; i=1; while [ $i -lt 300 ]; do echo "$$ $i" > kept/$i; i=$((i+1)); done
      head -c 40000000 /dev/urandom > kept/large
    cache: kept
"""


def _writing_or_over(cache: Path, run: "subprocess.Popen[bytes]") -> bool:
    return run.poll() is not None or any(cache.rglob("*.part"))


@pytest.mark.slow
def test_many_runs_at_once_see_whole_ones_alone_though_some_are_killed(tmp_path: Path) -> None:
    env = host(PIPE_CACHE=str(tmp_path / "cache"), PIPE_STORE=str(tmp_path / "store"))
    (tmp_path / "pipe.yaml").write_text(FILE)
    found, killed = set(), 0
    for number in range(3):
        places = [tmp_path / f"{number}.{each}" for each in range(3)]
        for place in places:
            place.mkdir()
        runs = [
            subprocess.Popen([PIPE, "run", "../pipe.yaml"], cwd=place, env=env, stdout=-3, stderr=-3)
            for place in places
        ]
        try:
            until(partial(_writing_or_over, tmp_path / "cache", runs[0]))
            runs[0].kill()
            ended = [one.wait(60) for one in runs]
        finally:
            for one in runs:
                one.kill()
                one.wait()
        assert ended[1:] == [0, 0]
        killed += ended[0] == -9
        found |= {path.read_text().strip() for path in tmp_path.glob(f"{number}.*/found")}
    assert (found, killed > 0) == ({"300"}, True)
    assert len(archives(tmp_path)) == 1
