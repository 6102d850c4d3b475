"""Names and addresses that differ from checkout to checkout."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from sandbox import network
from sandbox.layout import ADDRESSES, Layout, SandboxError, locked, write_atomically

ONE, OTHER = Layout(Path("/home/a/pipe")), Layout(Path("/home/b/pipe"))


def test_two_checkouts_share_no_name() -> None:
    assert ONE.mark != OTHER.mark
    assert ONE.sockets != OTHER.sockets
    assert network.choose(ONE, []) != network.choose(OTHER, [])


def test_names_are_short_enough_for_the_kernel() -> None:
    deep = Layout(Path("/" + "very-long-folder-name/" * 20))
    assert len(deep.mark) <= 15
    assert len(str(deep.sockets / "docker.sock")) < 108


def test_a_taken_network_is_passed_by() -> None:
    first = network.choose(ONE, [])
    second = network.choose(ONE, [first])
    assert first.overlaps(ADDRESSES)
    assert second.overlaps(ADDRESSES)
    assert not first.overlaps(second)


def test_no_network_left_is_said() -> None:
    with pytest.raises(SandboxError, match="no free network"):
        network.choose(ONE, [IPv4Network("10.0.0.0/8")])


def test_a_lock_that_another_holds_is_waited_for_only_so_long(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(SandboxError, match="another sandbox command"),
        locked(tmp_path / "lock", 0.1),
    ):
        pass


def test_an_atomic_write_has_the_mode_asked_for_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "env", "A=1\n", 0o600)
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["env"]
