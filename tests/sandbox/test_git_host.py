"""Repositories over HTTP, as the real git sees them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from sandbox import git_host, publish
from sandbox.layout import Layout

pytestmark = pytest.mark.network


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(publish, "HERE", Layout(tmp_path))
    (tmp_path / ".sandbox" / "git").mkdir(parents=True)
    with git_host.serve("127.0.0.1", 0, tmp_path / ".sandbox" / "git", "secret") as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / ".gitignore").write_text("target/\n")
    (folder / "target").mkdir()
    (folder / "target" / "out").write_text("made")
    return folder


def _git(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "HOME": str(at), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=t", "-c", "user.email=t@pipe.invalid"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=50
    )


def test_a_snapshot_keeps_its_commit_until_its_content_changes(host: str, source: Path) -> None:
    first = publish.publish(source)
    assert publish.publish(source) == first
    (source / "a.txt").write_text("two")
    second = publish.publish(source)
    assert second != first
    log = _git("log", "--format=%an %H", "master", at=publish.repository("shop")).stdout.splitlines()
    assert log == [f"pipe sandbox {second}", f"pipe sandbox {first}"]


def test_clone_needs_the_password_and_ignored_files_are_left_out(host: str, source: Path, tmp_path: Path) -> None:
    publish.publish(source, "other")
    for login in ("", "pipe:wrong@"):
        assert _git("clone", f"http://{login}{host}/other.git", "no", at=tmp_path).returncode
    done = _git("clone", f"http://pipe:secret@{host}/other.git", "yes", at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "yes").iterdir()) == [".git", ".gitignore", "a.txt"]


@pytest.mark.parametrize("buffer", ["524288000", "1024"], ids=["whole", "chunked"])
def test_a_large_push_arrives_whether_its_body_is_chunked_or_not(
    host: str, source: Path, tmp_path: Path, buffer: str
) -> None:
    publish.publish(source)
    _git("clone", f"http://pipe:secret@{host}/shop.git", "clone", at=tmp_path)
    clone = tmp_path / "clone"
    (clone / "big").write_bytes(bytes(range(256)) * 20000)
    _git("add", "big", at=clone)
    _git("commit", "-m", "big", at=clone)
    done = _git("-c", f"http.postBuffer={buffer}", "push", "origin", "HEAD:refs/heads/feature", at=clone)
    assert done.returncode == 0, done.stderr
    ours = _git("rev-parse", "HEAD", at=clone).stdout
    assert _git("rev-parse", "feature", at=publish.repository("shop")).stdout == ours


def test_a_repository_that_is_not_there_is_not_found(host: str, tmp_path: Path) -> None:
    assert "not found" in _git("clone", f"http://pipe:secret@{host}/none.git", at=tmp_path).stderr
    assert _git("clone", f"http://pipe:secret@{host}/../../etc.git", at=tmp_path).returncode
