"""`uses: checkout` from a real git host that wants a password."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from pipeline.stage import Login, SecretText, StageErrored, StageFailed
from sandbox import Sandbox
from stages.checkout import Checkout
from tests.support.context import FakeContext

pytestmark = pytest.mark.sandbox


@pytest.fixture
def repository(world: Sandbox, tmp_path: Path) -> Iterator[str]:
    """A repository of its own on the git host, with two branches and a tag; removed afterwards."""
    folder = world.state / "git" / f"test-{uuid4().hex}.git"
    if not folder.parent.is_dir():
        pytest.skip("the git host of this sandbox is somebody else's")
    script = f"""set -e
git init -q --bare -b main {folder}
git init -q -b main {tmp_path}/s && cd {tmp_path}/s
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
echo one > file && git add file && git commit -qm First && git tag v1 && git branch release
echo two > file && git commit -qam Second && git push -q {folder} main release v1
"""
    subprocess.run(["sh", "-c", script], check=True)
    yield f"{world.git_url}/{folder.name}"
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def checkout(url: str, **fields: object) -> Checkout:
    return Checkout.model_validate({"url": url, "secret": "git", **fields})


def spilled(ctx: FakeContext, password: str) -> list[Path]:
    """Files below the run's folders that hold the password."""
    paths = [path for path in ctx.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in paths if password.encode() in path.read_bytes()]


@pytest.mark.parametrize(("ref", "content"), [("", "two\n"), ("release", "one\n"), ("v1", "one\n")])
async def test_it_comes_with_a_login(
    real: FakeContext, repository: str, world: Sandbox, ref: str, content: str
) -> None:
    outputs = await checkout(repository, ref=ref).run(real)
    assert (real.workspace / "file").read_text() == content
    assert outputs.subject == ("Second" if ref == "" else "First")
    assert (outputs.branch, outputs.tag) == {"": ("main", ""), "release": ("release", ""), "v1": ("", "v1")}[ref]
    assert spilled(real, world.git_password) == []
    assert world.git_password not in real.text
    assert not any(world.git_password in word for run in real.runs for word in run.argv)


async def test_a_single_commit_comes_with_its_history_left_out(real: FakeContext, repository: str) -> None:
    head = (await checkout(repository, into="a").run(real)).commit
    old = (await checkout(repository, ref="v1", into="b").run(real)).commit
    assert (await checkout(repository, ref=old, into="c").run(real)).commit == old != head
    done = subprocess.run(["git", "rev-list", "HEAD"], cwd=real.workspace / "a", capture_output=True, check=True)
    assert done.stdout.split() == [head.encode()]


async def test_wrong_host_wrong_password_and_wrong_branch_are_three_messages(
    real: FakeContext, repository: str, world: Sandbox
) -> None:
    host = world.git_url.removeprefix("http://")
    real.secrets = {**real.secrets, "wrong": Login(world.git_user, "not-it-8472"), "token": SecretText("not-it-8472")}
    start = time.monotonic()
    cases = [
        (checkout("http://no-such-host.invalid/a.git"), StageErrored, "git ls-remote no-such-host.invalid: no host has the name"),
        (checkout(f"http://{host.partition(':')[0]}:1/a.git"), StageErrored, ":1: it does not answer: Failed to connect"),
        (checkout(f"{world.git_url}/nothing.git"), StageFailed, f"git ls-remote {host}: there is no repository 'nothing.git'"),
        (checkout(repository, secret="wrong"), StageFailed, f"git ls-remote {host}: the login of the secret 'wrong' was refused"),
        (checkout(repository, secret="token"), StageFailed, f"git ls-remote {host}: the login of the secret 'token' was refused"),
        (checkout(repository, secret=""), StageFailed, f"git ls-remote {host}: it wants a login: declare one"),
        (checkout(repository, ref="relaese"), StageFailed, f"git ls-remote {host}: there is no branch or tag 'relaese'; near: release"),
    ]  # fmt: skip
    for stage, error, message in cases:
        with pytest.raises(error) as caught:
            await stage.run(real)
        assert message in str(caught.value)
        shown = f"{caught.value} {vars(caught.value)['cause'].evidence} {real.text}"
        assert "not-it-8472" not in shown
        assert world.git_password not in shown
    assert time.monotonic() - start < 15
    assert spilled(real, "not-it-8472") == []


async def test_two_checkouts_at_once_do_not_disturb_each_other(real: FakeContext, repository: str) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(checkout(repository, into=f"c{number}").run, real)
    assert len({(real.workspace / f"c{number}" / "file").read_text() for number in range(4)}) == 1
