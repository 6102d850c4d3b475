"""Disks that are full, places that cannot be written, a user without a home: the exact path, and the verdict stored."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.folder import RunFolder
from runner.state import RunState, fold
from tests.support.program import PIPE, host, pipe

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this host lets us mount no small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def write(folder: Path, text: str) -> None:
    (folder / "pipeline.yaml").write_text(text)


def state(store: Path) -> RunState:
    return fold(RunFolder(store / "demo" / "1").records())


def test_a_log_that_fills_the_disk_ends_its_stage_by_name_and_the_verdict_is_stored(
    tmp_path: Path, small: Path
) -> None:
    write(tmp_path, "name: demo\nstages:\n  s: {run: head -c 900000 /dev/zero | base64}\n  t: {run: sleep 1}\n")
    done = pipe(tmp_path, "run", "pipeline.yaml", env=host(PIPE_STORE=str(small / "store")))
    assert done.returncode == 1
    ended = state(small / "store")
    cause = ended.leaves["s"].cause
    assert cause is not None
    assert (str(ended.outcome), str(ended.leaves["s"].outcome), str(cause.kind)) == ("errored", "errored", "infra")
    assert cause.message == f"{small}/store/demo/1/logs/s.1.log: No space left on device"
    assert str(ended.leaves["t"].outcome) == "succeeded"


def test_a_disk_that_others_filled_does_not_lose_the_end_of_a_run(tmp_path: Path, small: Path) -> None:
    fill = f"cat /dev/zero > {small}/full 2> /dev/null || true"
    write(tmp_path, f"name: demo\nstages:\n  s: {{run: '{fill}'}}\n  t: {{needs: s, run: 'true'}}\n")
    pipe(tmp_path, "run", "pipeline.yaml", env=host(PIPE_STORE=str(small / "store")))
    ended = state(small / "store")
    assert ended.outcome is not None
    assert str(ended.leaves["s"].outcome) == "succeeded"


def test_a_store_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nstages: {s: {run: 'true'}}\n")
    (tmp_path / "file").touch()
    done = pipe(tmp_path, "run", "pipeline.yaml", env=host(PIPE_STORE=str(tmp_path / "file" / "store")))
    assert done.returncode == 2
    assert f"cannot write {tmp_path}/file/store: Not a directory; set PIPE_STORE" in done.stderr


def test_without_a_home_a_run_works(tmp_path: Path) -> None:
    write(tmp_path, "name: demo\nstages: {s: {run: 'true'}}\n")
    env = {name: value for name, value in host().items() if name != "HOME"}
    assert pipe(tmp_path, "run", "pipeline.yaml", env=env).returncode == 0


ELSEWHERE = """
mount -t tmpfs tmpfs "$PLACE" || exit 77
cp "$FILES"/pipeline.yaml "$FILES"/secret "$PLACE" && chown -R 54321 "$PLACE" && cd "$PLACE"
for place in / /dev/shm; do mount -o remount,ro,bind "$place"; done
! touch /tmp/x /dev/shm/x 2> /dev/null || exit 77
unset HOME
setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search \\
  "$PIPE" run pipeline.yaml -o plain
"""


def test_a_user_without_a_name_on_a_root_that_cannot_be_written_runs_in_his_folder_alone(tmp_path: Path) -> None:
    text = "name: demo\nstages:\n  s: {run: id -u; echo x > $PIPE_OUTPUT/said, outputs: said, secrets: {T: t}}\n"
    write(tmp_path, f"{text}secrets: {{t: {{kind: file}}}}\n")
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_text("s3cret-of-mine")
    env = host(PLACE=str(place), FILES=str(tmp_path), PIPE=str(PIPE))
    env["PIPE_SECRET_T_FILE"] = str(place / "secret")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", ELSEWHERE], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("this host lets us make no such place")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "[s] 54321\n" in done.stdout
