"""What runs leave is listed and handed out whole, to those who may see the run, and as nothing but bytes."""

import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from runner.folder import RunFolder
from runner.server import artifacts
from runner.server.artifacts import attachment, left_of, opened
from tests.runner.server.conftest import Repository, Server
from tests.runner.server.test_fleet import ask
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.timeout(120)]

NAMES = "<img src=x onerror=alert(1)>.html"
TEXT = f"""name: demo
triggers: {{push: {{}}}}
stages:
  s:
    each: [a]
    artifacts: ["out/**"]
    run: |
      mkdir -p out; echo '<script>alert(1)</script>' > 'out/{NAMES}'; echo é > out/é.txt
      tr '\\0' '\\n' < /proc/$PPID/environ | grep PIPE_KEEP_ARTIFACTS > out/policy
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run in its store, with an artifact and a report."""
    made = RunFolder(tmp_path / "runs/demo/1")
    for path, text in (("artifacts/s.1/a/b.txt", "kept"), ("junit.xml", "<a/>"), ("plan.json", "{}"), ("work/w", "")):
        (made.path / path).parent.mkdir(parents=True, exist_ok=True)
        (made.path / path).write_text(text)
    return made


def read(folder: RunFolder, path: str) -> bytes:
    file, size = opened(folder, path)
    with file:
        found: bytes = file.read()
    assert len(found) == size
    return found


def test_reports_and_artifacts_are_listed_with_their_sizes_and_nothing_else(folder: RunFolder) -> None:
    (folder.path / "artifacts/s.1" / os.fsdecode(b"\xff")).write_text("a name that is no text")
    left = left_of(folder, 10)
    assert (left.files, left.more) == ([("junit.xml", 4), ("artifacts/s.1/a/b.txt", 4)], False)
    assert [read(folder, path) for path, _ in left.files] == [b"<a/>", b"kept"]
    assert left_of(RunFolder(folder.path.with_name("2")), 10).files == []


def test_a_list_has_an_end(folder: RunFolder) -> None:
    for number in range(9):
        (folder.path / f"artifacts/s.1/{number}").touch()
    assert not left_of(folder, 10).more
    left = left_of(folder, 9)
    assert (len(left.files), left.more) == (1 + 9, True)


def test_a_tree_too_deep_to_walk_hides_nothing_else(folder: RunFolder) -> None:
    (folder.path / "artifacts" / "/".join("d" * 140)).mkdir(parents=True)
    left = left_of(folder, 10)
    assert (left.files[0], left.more) == (("junit.xml", 4), True)


def test_a_look_takes_no_longer_than_it_may(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "WALK_WITHIN", 0.001)
    for number in range(5000):
        (folder.path / f"artifacts/s.1/{number}").symlink_to("nowhere")
    assert left_of(folder, 5000).more


@pytest.mark.parametrize(
    "path",
    [
        *("plan.json", "work/w", "owner.1", "", "artifacts", "artifacts/", "artifacts/s.1", "artifacts/s.1/a"),
        *("artifacts/../plan.json", "artifacts/s.1/../../plan.json", "artifacts//s.1/a/b.txt", "/etc/passwd"),
        *("artifacts/./s.1/a/b.txt", "artifacts/s.1/a/b.txt/", "artifacts/s.1/a\0b", "junit.xml/", "JUNIT.xml"),
    ],
)
def test_nothing_else_of_a_run_is_handed_out(folder: RunFolder, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        opened(folder, path)


@pytest.mark.parametrize("linked", ["artifacts/s.1/a/b.txt", "artifacts/s.1/a", "artifacts", "junit.xml", ""])
def test_a_link_leads_nowhere(folder: RunFolder, tmp_path: Path, linked: str) -> None:
    """A run may put one in place of everything that is its own."""
    place, aside = folder.path / linked, tmp_path / "aside"
    place.rename(aside)
    place.symlink_to(aside)
    gone = "artifacts/s.1/a/b.txt" if linked.startswith("artifacts") or not linked else linked
    assert gone not in [path for path, _ in left_of(folder, 10).files]
    with pytest.raises(FileNotFoundError):
        opened(folder, gone)


def test_nobody_waits_for_a_pipe(folder: RunFolder) -> None:
    os.mkfifo(folder.path / "artifacts/s.1/pipe")
    assert [path for path, _ in left_of(folder, 10).files] == ["junit.xml", "artifacts/s.1/a/b.txt"]
    with pytest.raises(FileNotFoundError):
        opened(folder, "artifacts/s.1/pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reaches files as other users")
def test_what_the_user_of_the_project_may_not_read_is_not_handed_out(folder: RunFolder, tmp_path: Path) -> None:
    kept = folder.path / "artifacts/s.1/a/b.txt"
    kept.chmod(0o600)
    os.chown(folder.path.parent.parent, 65534, 65534)
    tmp_path.chmod(0o755)
    with pytest.raises(FileNotFoundError):
        opened(folder, "artifacts/s.1/a/b.txt")
    assert "artifacts/s.1/a/b.txt" not in [path for path, _ in left_of(folder, 10).files]


def test_a_file_is_kept_under_its_own_name_whatever_that_is() -> None:
    said = attachment('artifacts/s.1/é"; x=\r\ny: z', 1)["Content-Disposition"]
    assert said == "attachment; filename*=UTF-8''%C3%A9%22%3B%20x%3D%0D%0Ay%3A%20z"


@pytest.mark.slow
def test_what_a_run_left_is_on_its_page_and_comes_whole_and_inert(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", pipeline_yaml=TEXT))
    (run,) = server.settled(1)
    until(lambda: len(server.get(f"/api/v1/runs/{run['id']}/artifacts")) == 5)
    files = {each["path"]: each["size"] for each in server.get(f"/api/v1/runs/{run['id']}/artifacts")}
    evil, policy, plain = (f"artifacts/s[a].1/out/{name}" for name in (NAMES, "policy", "é.txt"))
    assert list(files) == ["junit.xml", "summary.html", evil, policy, plain]
    for path, size in files.items():
        status, text, headers = ask(server, f"/runs/{run['id']}/artifacts/{quote(path)}")
        assert (status, len(text.encode()), int(headers["content-length"])) == (200, size, size), path
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment; ")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert ask(server, f"/runs/{run['id']}/artifacts/{quote(plain)}")[1] == "é\n"
    kept = ask(server, f"/runs/{run['id']}/artifacts/{quote(policy)}")[1]
    assert kept == "PIPE_KEEP_ARTIFACTS=0\n", "its engine removes none of earlier runs, the server does"
    page = shown(server, f"/runs/{run['id']}")
    assert "onerror=alert(1)&gt;.html" in page
    assert "<img" not in page
    assert f'href="/api/v1/runs/{run["id"]}/artifacts/{quote(plain)}"' in page
    assert f"{files['junit.xml']} B, every stage" in page


def shown(server: Server, path: str) -> str:
    argv = ["curl", "-sf", "-H", f"Authorization: Bearer {server.token}", f"http://127.0.0.1:{server.port}{path}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
