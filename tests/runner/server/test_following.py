"""A run is read once for all who follow it; who comes, goes or is slow is nothing to the others."""

import json
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from pipeline.stage import Outcome
from runner import events
from runner.events import Event, Record, encode
from runner.folder import RunFolder
from runner.server import following, serve
from runner.server.following import Follower, Followers
from runner.server.shown import Run
from runner.telling import Position

pytestmark = pytest.mark.anyio

MANY = 40


class Watched:
    """A run that the test writes, and how many looked at it at once."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir()
        self.folder = RunFolder(folder)
        self.looking = self.most_at_once = 0
        self.seq = 0
        self.state = "running"

    async def run(self) -> Run:
        self.looking += 1
        self.most_at_once = max(self.most_at_once, self.looking)
        await anyio.sleep(0.001)
        self.looking -= 1
        words = dict.fromkeys(
            (
                "id",
                "project",
                "pipeline",
                "found_by",
                "delivery",
                "ref",
                "commit",
                "file_commit",
                "approved_by",
                "note",
                "server",
                "place",
            ),
            "x",
        )
        numbers = dict.fromkeys(("number", "pid", "revived", "created", "started", "ended"), 1)
        outcome = "succeeded" if self.state == "ended" else ""
        return Run.model_validate(
            {**words, **numbers, "state": self.state, "outcome": outcome, "trigger": {}, "params": {}}
        )

    def happens(self, *several: Event) -> None:
        with self.folder.events(1).open("ab") as journal:
            for event in several:
                self.seq += 1
                journal.write(encode(Record(self.seq, 1.0, event)))

    def ends(self) -> None:
        self.happens(events.RunFinished(Outcome.SUCCEEDED))
        self.state = "ended"


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    made = Watched(tmp_path)
    made.happens(events.RunStarted(), events.StageStarted("a", 1))
    made.folder.log("a", 1).write_bytes(b"one\n")
    return made


async def stream(followers: Followers, watched: Watched, *, logs: bool = False, follow: bool = True) -> list[bytes]:
    with followers.of("x", watched.folder, watched.run) as follower:
        return [page async for page in followers.events(follower, Position(), logs=logs, follow=follow)]


def told(pages: list[bytes]) -> list[str]:
    """Numbers of records, texts of logs, and the end."""
    found = []
    for frame in b"".join(pages).decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in frame.splitlines() if not line.startswith(":"))
        if fields:
            data = json.loads(fields["data"])
            found.append(str(data.get("seq") or data.get("text") or data.get("outcome")))
    return found


async def test_of_many_followers_one_looks_at_a_time(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.02)
    followers, found = Followers(), []

    async def follow(*, logs: bool) -> None:
        found.append(told(await stream(followers, watched, logs=logs)))

    async with anyio.create_task_group() as tasks:
        for number in range(MANY):
            tasks.start_soon(partial(follow, logs=number % 2 == 0))
        for number in range(5):
            await anyio.sleep(0.05)
            watched.happens(events.StageProgressed("a", f"{number}"))
        watched.ends()
    assert watched.most_at_once == 1
    whole = [*map(str, range(1, 9)), "succeeded"]
    assert [[each for each in said if each != "one\n"] for said in found] == [whole] * MANY
    assert sorted(said.count("one\n") for said in found) == [0] * (MANY // 2) + [1] * (MANY // 2)
    assert followers._known == {}


async def test_nobody_misses_anything_when_the_one_who_looks_goes_away(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.05)
    followers, found = Followers(), []

    async def follow(scope: anyio.CancelScope) -> None:
        with scope:
            found.append(told(await stream(followers, watched)))

    scopes = [anyio.CancelScope() for _ in range(6)]
    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(follow, scope)
        for number in range(5):
            await anyio.sleep(0.03)
            watched.happens(events.StageProgressed("a", "x"))
            scopes[number].cancel()
        watched.ends()
    assert found == [[*map(str, range(1, 9)), "succeeded"]]


async def test_who_is_far_behind_reads_for_himself_and_only_the_newest_pages_are_kept(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.0)
    follower = Follower(watched.folder, watched.run)
    await follower.look()
    for _ in range(50):
        watched.happens(events.StageProgressed("a", "x"))
        await follower.look()
    assert len(follower._pages) <= 2 * following._KEPT
    late = await follower.page(Position(), logs=True)
    assert late.position == follower.newest
    assert told([late.data]) == [*map(str, range(1, 53)), "one\n"]


async def test_a_flood_is_told_in_pages_and_whole(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.0)
    text = "".join(f"line {number}\n" for number in range(200_000))
    watched.folder.log("a", 1).write_text(text)
    pages = []
    followers = Followers()

    async def grow() -> None:
        await anyio.sleep(0.05)
        with watched.folder.log("a", 1).open("a") as log:
            log.write(text)
        watched.happens(events.StageFinished("a", 1, Outcome.SUCCEEDED))
        watched.ends()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(grow)
        pages = await stream(followers, watched, logs=True)
    logged = [
        json.loads(line[6:]) for line in b"".join(pages).decode().split("\n") if line.startswith('data: {"stage"')
    ]
    assert "".join(each["text"] for each in logged) == text * 2
    assert max(map(len, pages)) < 1 << 20


async def test_a_quiet_stream_says_that_it_lives(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(following, "HEARTBEAT", 0.02)
    followers = Followers()
    with followers.of("x", watched.folder, watched.run) as follower:
        pages: AsyncIterator[bytes] = followers.events(follower, Position())
        assert told([await anext(pages)]) == ["1", "2"]
        assert await anext(pages) == b": still here\n\n"


async def test_streams_stop_without_an_end_when_the_server_ends(watched: Watched) -> None:
    followers = Followers()
    with followers.of("x", watched.folder, watched.run) as follower:
        pages: AsyncIterator[bytes] = followers.events(follower, Position())
        assert told([await anext(pages)]) == ["1", "2"]
        followers.closed = True
        assert [page async for page in pages] == []


async def test_a_spoiled_journal_ends_the_stream_and_is_told(watched: Watched) -> None:
    with watched.folder.events(1).open("ab") as journal:
        journal.write(b"}{\n")
    assert b"a journal of the run is spoiled" in (await stream(Followers(), watched))[-1]


async def test_the_log_of_an_attempt_ends_with_the_attempt(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY", 0.01)
    followers, found = Followers(), []

    async def read(offset: int, *, follow: bool = True) -> None:
        with followers.of("x", watched.folder, watched.run) as follower:
            await follower.look()
            blocks = followers.log(follower, "a", 1, offset, follow=follow)
            found.append(b"".join([block async for block in blocks]))

    await read(-2, follow=False)

    async with anyio.create_task_group() as tasks:
        for offset in (0, 2, 99):
            tasks.start_soon(read, offset)
        await anyio.sleep(0.05)
        with watched.folder.log("a", 1).open("ab") as log:
            log.write(b"two\n")
        watched.happens(events.StageFinished("a", 1, Outcome.SUCCEEDED))
    assert sorted(found) == [b"", b"e\n", b"e\ntwo\n", b"one\ntwo\n"]


@pytest.mark.network
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone cuts them")
def test_a_client_that_takes_nothing_is_cut_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "TAKES_WITHIN", 0.5)
    with serve._listening("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()) as lazy:
            taken, _ = listener.accept()
            with taken, pytest.raises(TimeoutError):
                taken.sendall(b"x" * (64 << 20))
            assert lazy.recv(1)
