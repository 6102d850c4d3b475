"""Programs end with all that came of them, and their output arrives whole."""

import os
import time
from pathlib import Path

import anyio
import pytest

from runner.process import MARK, NoProgramError, execute

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Output:
    def __init__(self) -> None:
        self.data = bytearray()

    def __call__(self, data: bytes) -> None:
        self.data.extend(data)


def environment(mark: str = "test") -> dict[str, str]:
    return {"PATH": os.environ["PATH"], MARK: mark}


def living(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_output_and_exit_code_arrive(tmp_path: Path) -> None:
    out = Output()
    ended = await execute(
        ["sh", "-c", "echo one; echo two >&2; exit 7"], cwd=tmp_path, env=environment(), stdin=b"", stdout=out
    )
    assert (ended.exit_code, bytes(out.data)) == (7, b"one\ntwo\n")


async def test_a_signal_is_an_exit_code_above_128(tmp_path: Path) -> None:
    ended = await execute(["sh", "-c", "kill -9 $$"], cwd=tmp_path, env=environment(), stdin=b"", stdout=Output())
    assert ended.exit_code == 137


async def test_ten_megabytes_arrive_byte_for_byte(tmp_path: Path) -> None:
    out = Output()
    await execute(["head", "-c", "10000000", "/dev/zero"], cwd=tmp_path, env=environment(), stdin=b"", stdout=out)
    assert len(out.data) == 10_000_000


async def test_stdin_is_given_and_closed(tmp_path: Path) -> None:
    out = Output()
    await execute(["cat"], cwd=tmp_path, env=environment(), stdin=b"x" * 300_000, stdout=out)
    assert len(out.data) == 300_000


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["no-such-program"], ".", "there is no program 'no-such-program'"),
        (["true"], "missing", "the folder .*missing does not exist"),
        (["./plain"], ".", "cannot start ./plain: Permission denied"),
    ],
)
async def test_what_cannot_be_started_says_why(tmp_path: Path, argv: list[str], cwd: str, message: str) -> None:
    (tmp_path / "plain").write_text("no program")
    with pytest.raises(NoProgramError, match=message):
        await execute(argv, cwd=tmp_path / cwd, env=environment(), stdin=b"", stdout=Output())


TREES = {
    "plain": "sleep 60",
    "background": "sleep 60 & sleep 60 & wait",
    "new session": "setsid sleep 60 & sleep 60",
    "double fork": "(setsid sh -c 'sleep 60 & sleep 60' &) ; sleep 60",
    "ignores TERM": "trap '' TERM; sleep 60 & while :; do sleep 1; done",
}


@pytest.mark.parametrize("script", TREES.values(), ids=TREES.keys())
async def test_a_cancel_leaves_no_process_within_five_seconds(tmp_path: Path, script: str) -> None:
    mark = f"cancel-{os.getpid()}-{time.monotonic_ns()}"
    with anyio.move_on_after(0.5):
        await execute(["sh", "-c", script], cwd=tmp_path, env=environment(mark), stdin=b"", stdout=Output())
    assert living(mark) == []


async def test_a_background_child_that_keeps_the_pipe_open_does_not_hang_the_stage(tmp_path: Path) -> None:
    mark = f"leak-{os.getpid()}-{time.monotonic_ns()}"
    out = Output()
    with anyio.fail_after(10):
        ended = await execute(
            ["sh", "-c", "echo done; sleep 30 &"], cwd=tmp_path, env=environment(mark), stdin=b"", stdout=out
        )
    assert (ended.exit_code, ended.left_behind, bytes(out.data)) == (0, True, b"done\n")
    for pid in living(mark):
        os.kill(pid, 9)
