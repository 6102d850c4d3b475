"""Locks on what outlives runs: held by many or by one, never on a file that is gone, and said where there are none."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from pipeline.locks import hold, lock_of, take, withdraw
from tests.support import lockless
from tests.support.wait import until

ROOT = Path(__file__).parent.parent.parent


def test_many_hold_a_lock_or_one_has_it_alone(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with hold(lock), hold(lock):
        assert take(lock) is None
    with take(lock) as alone:  # type: ignore[union-attr]
        assert take(lock) is None
        assert alone
    with hold(lock):
        pass


def test_a_lock_is_one_that_nfs_gives(tmp_path: Path) -> None:
    """There a shared one is refused (EBADF) on a file that is open for writing alone, and the other way round."""
    for made in (hold(tmp_path / "a"), take(tmp_path / "b")):
        assert made
        with made:
            assert (made.readable(), made.writable()) == (True, True)


def test_an_item_that_is_used_stays_and_one_that_goes_leaves_no_lock(tmp_path: Path) -> None:
    item = tmp_path / "a"
    item.mkdir()
    with hold(lock_of(item)):
        assert withdraw(item) is None
    aside = withdraw(item)
    assert aside
    assert [path.name for path in tmp_path.iterdir()] == [aside.name]
    with pytest.raises(FileNotFoundError):
        withdraw(item)


def test_who_waited_for_the_lock_of_an_item_that_went_holds_the_one_of_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    held: list[IO[bytes]] = []
    first = take(lock)
    assert first
    waiting = threading.Thread(target=lambda: held.append(hold(lock)))
    waiting.start()
    until(lambda: waits(waiting))
    lock.unlink()
    first.close()
    waiting.join(10)
    (second,) = held
    with second:
        assert take(lock) is None
        assert os.path.samestat(os.fstat(second.fileno()), lock.stat())


def waits(thread: threading.Thread) -> bool:
    """Whether a thread stands in flock(2)."""
    call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text()
    return call.split()[0] == str(lockless.FLOCK[platform.machine()])


WITHOUT = """
from pathlib import Path
from pipeline.locks import NoLocksError, hold, take, withdraw
Path("a").mkdir()
with hold(Path("a.lock")):
    print("goes on")
for ask in (lambda: take(Path("a.lock")), lambda: withdraw(Path("a"))):
    try:
        ask()
    except NoLocksError as error:
        print(error)
"""


@pytest.mark.parametrize("answer", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_without_locks_what_is_shared_goes_on_and_what_has_to_be_alone_says_so(tmp_path: Path, answer: str) -> None:
    argv = [sys.executable, lockless.__file__, answer, sys.executable, "-c", WITHOUT]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this host lets us filter no system calls")
    told = "a.lock: this file system has no locks: let PIPE_CACHE name a folder of its own on a disk that has them"
    assert (done.stdout.splitlines(), done.stderr) == (["goes on", told, told], "")
    assert (tmp_path / "a").is_dir()


def test_no_other_module_locks_what_outlives_runs() -> None:
    places = [*(ROOT / "stages").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "runner").rglob("*.py")]
    others = [path for path in places if "server" not in path.parts and "flock(" in path.read_text()]
    assert others == [ROOT / "pipeline/locks.py"]
