"""A checkout from a real git host that flaps: what is asked again, how often, and what is said in the end."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed
from sandbox.git_host import USER, serve
from stages.checkout import Checkout
from stages.clients.git import remote
from tests.support.context import FakeContext
from tests.support.proxy import Fault, flapping

PASSWORD = "s3cret-p4ss"
LOGIN = Login(USER, PASSWORD)
LOOKED_UP = ["", "", ""]
"""The connections of a look-up: without the login, with it, and for the branches. A fetch has as many, the last for the pack."""

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A real git host with a login, and a repository `shop.git` of 2 MiB that does not shrink."""
    source, hosted = tmp_path / "source", tmp_path / "hosted"
    source.mkdir()
    who = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    (source / "large").write_bytes(os.urandom(2 << 20))
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "First"]):
        subprocess.run(["git", *words], cwd=source, env={**os.environ, **who}, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", source, hosted / "shop.git"], check=True)
    server = serve("127.0.0.1", 0, hosted, PASSWORD)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote, "LOOKUP_LIMIT", 3.0)


async def check_out(ctx: FakeContext, port: int, secret: Login = LOGIN) -> None:
    ctx.secrets = {"git": secret}
    await Checkout(url=f"http://127.0.0.1:{port}/shop.git", ref="main", secret="git").run(ctx)


@pytest.mark.parametrize(
    "faults",
    [
        ["reset"],
        ["503 Busy"],
        ["429 Too Many Requests"],
        ["502 Bad Gateway", "reset", "503 Busy"],
        ["silence"],
        ["", "reset"],
        ["", "401 Unauthorized"],
        ["", 0],
        ["", "", "503 Busy"],
        ["", "", "", "reset"],
        [*LOOKED_UP, "", "401 Unauthorized"],
        [*LOOKED_UP, "", "", "reset"],
        [*LOOKED_UP, "", "", 100_000],
        [*LOOKED_UP, "", "", 1_000_000, "", "", 1_500_000],
    ],
    ids=str,
)
async def test_a_host_that_flaps_is_asked_again(ctx: FakeContext, port: int, faults: list[Fault]) -> None:
    with flapping(port, faults) as (door, seen):
        with anyio.fail_after(50):
            await check_out(ctx, door)
        assert seen() > len(faults)
    assert (ctx.workspace / "large").stat().st_size == 2 << 20
    assert "trying again" in ctx.text
    assert PASSWORD not in ctx.text


@pytest.mark.parametrize("before", [[""], [*LOOKED_UP, ""]], ids=["look-up", "fetch"])
@pytest.mark.parametrize("cut", [0, 20, 150, 300])
async def test_an_answer_that_is_cut_is_no_proof_that_something_is_not_there(
    ctx: FakeContext, port: int, before: list[Fault], cut: int
) -> None:
    with flapping(port, [*before, cut]) as (door, _), anyio.fail_after(50):
        await check_out(ctx, door)


@pytest.mark.parametrize(
    ("faults", "message", "tries"),
    [
        ([], "ls-remote {host}: it does not answer: .*reset.* \\(while negotiating, 4 tries\\)", 4),
        (["503 Busy"] * 9, "ls-remote {host}: .* returned error: 503 \\(while negotiating, 4 tries\\)", 4),
        (
            ["silence"] * 9,
            "ls-remote {host}: .* nothing heard for 3 s \\(while connecting or negotiating, 2 tries\\)",
            2,
        ),
    ],
    ids=["reset", "503", "silence"],
)
async def test_a_host_that_stays_away_is_given_up_with_its_name_and_how_far_it_came(
    ctx: FakeContext, port: int, faults: list[Fault], message: str, tries: int
) -> None:
    with flapping(port, faults or ["reset"] * 9) as (door, seen):
        with anyio.fail_after(50), pytest.raises(StageErrored, match=message.format(host=f"127.0.0.1:{door}")):
            await check_out(ctx, door)
        assert seen() == tries


async def test_one_that_breaks_off_each_time_it_sends_was_receiving(ctx: FakeContext, port: int) -> None:
    fetch: list[Fault] = ["", "", 100_000]
    with (
        flapping(port, [*LOOKED_UP, *fetch * 9]) as (door, _),
        anyio.fail_after(50),
        pytest.raises(StageErrored) as caught,
    ):
        await check_out(ctx, door)
    assert str(caught.value).startswith(f"git fetch 127.0.0.1:{door}: it does not answer: ")
    assert str(caught.value).endswith("(while receiving, 4 tries)")


async def test_a_login_that_is_refused_is_tried_once_more_and_no_further(ctx: FakeContext, port: int) -> None:
    with flapping(port, []) as (door, seen):
        with (
            anyio.fail_after(50),
            pytest.raises(StageFailed, match="the login of the secret 'git' was refused") as caught,
        ):
            await check_out(ctx, door, Login(USER, "wrong"))
        assert seen() == 4  # each without the login, and with it
    assert caught.value.cause.kind is CauseKind.USER


async def test_a_host_at_whose_port_nobody_is_is_told_at_once(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match=r"git ls-remote 127\.0\.0\.1:1: .*\(while connecting\)"):
        await check_out(ctx, 1)
    assert "trying again" not in ctx.text


async def test_a_name_that_nobody_has_is_told_at_once(ctx: FakeContext) -> None:
    ctx.secrets = {"git": LOGIN}
    with pytest.raises(StageErrored, match=r"no host has the name 'nobody\.invalid'.*\(while resolving\)"):
        await Checkout(url="http://nobody.invalid/shop.git", secret="git").run(ctx)
    assert "trying again" not in ctx.text
