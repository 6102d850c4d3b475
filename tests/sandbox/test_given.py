"""What the user brings, and what the machine lacks."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from sandbox import needs
from sandbox.blueprint import Blueprint
from sandbox.cli import main
from sandbox.given import Given
from sandbox.layout import Layout, SandboxError
from sandbox.parts import waves

OWN = {"DOCKER_HOST": "unix:///d", "PIPE_REGISTRY": "r:1", "PIPE_REGISTRY_USER": "u", "PIPE_REGISTRY_PASSWORD": "p"}
EVERYTHING = Given("unix:///d", "/k", "r:1", "u", "p")


def _names(own: dict[str, bool]) -> list[str]:
    plan = Blueprint("0", "/run/pipe", "10.200.0.2", "10.200.0.1", 8080, 2525, (), **own)
    return [part.name for wave in waves(plan) for part in wave]


def test_a_registry_without_its_login_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="PIPE_REGISTRY_USER and PIPE_REGISTRY_PASSWORD"):
        Given.read({"PIPE_REGISTRY": "r:1"}, Layout(tmp_path))


def test_a_kubeconfig_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="is no file"):
        Given.read({"PIPE_KUBECONFIG": str(tmp_path / "none")}, Layout(tmp_path))


def test_kubeconfig_of_the_user_is_never_looked_at(tmp_path: Path) -> None:
    assert Given.read({"KUBECONFIG": "/somewhere"}, Layout(tmp_path)) == Given()


def test_variables_that_the_sandbox_set_itself_bring_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert Given.read({**OWN, "PIPE_SANDBOX": str(layout.state)}, layout) == Given()
    assert Given.read(OWN, layout).engine == "unix:///d"


@pytest.mark.parametrize(
    ("own", "absent"),
    [
        ({"engine": False}, {"dockerd"}),
        ({"registry": False}, {"registry"}),
        ({"cluster": False}, {"etcd", "kube-apiserver", "kubelet", "coredns"}),
        ({"cluster": False, "engine": False}, {"containerd"}),
    ],
)
def test_what_the_user_brings_is_not_started(own: dict[str, bool], absent: set[str]) -> None:
    assert absent.isdisjoint(_names(own))
    assert {"git-host", "mail-sink"} <= set(_names(own))
    assert absent <= set(_names({}))


def test_with_everything_brought_the_machine_may_be_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    needs.check(Layout(tmp_path), EVERYTHING)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert needs.missing_packages(EVERYTHING) == ["git"]


def test_all_that_is_lacking_is_said_at_once_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(needs.Lacking) as lacking:
        needs.check(Layout(tmp_path), Given())
    words = str(lacking.value)
    assert all(word in words for word in ("root", "apt-get, to install", "docker.io", "PIPE_KUBECONFIG", "DOCKER_HOST"))


def test_another_system_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(needs.Lacking, match="Linux \\(this is Darwin\\)"):
        needs.check(Layout(tmp_path), Given())


def test_packages_start_no_service_and_the_ban_ends_with_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(needs, "POLICY", policy)
    seen: list[tuple[str, bool]] = []

    def apt(verb: str, *packages: str) -> int:
        seen.append((verb, policy.exists()))
        return 0

    monkeypatch.setattr(needs, "_apt", apt)
    monkeypatch.setattr(needs, "say", lambda line: None)
    needs.install(["containerd"])
    assert seen == [("install", True)]
    assert not policy.exists()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with apt alone, whose user is root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(needs, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(needs, "POSTGRESQL", tmp_path / "postgresql")
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.usefixtures("bare")
def test_what_tests_start_themselves_is_installed_and_what_is_there_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def apt(*words: str) -> int:
        asked.append(words)
        return 0

    monkeypatch.setattr(needs, "_apt", apt)
    assert main(["tools"]) == 0
    assert asked == [("install", "chromium"), ("install", "postgresql")]
    (tmp_path / "postgresql/15/bin").mkdir(parents=True)
    (tmp_path / "postgresql/15/bin/initdb").touch()
    assert main(["tools"]) == 0
    assert asked[2:] == [("install", "chromium")]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("user", [0, 1000])
def test_what_cannot_be_installed_is_told_and_keeps_no_other_test_from_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(needs, "CACHE", tmp_path)
    (tmp_path / "apt.log").write_text("E: no such package\n")
    monkeypatch.setattr(needs, "_apt", lambda *_: 100)
    assert main(["tools"]) == 0
    told = capsys.readouterr().err
    assert "tests that need chromium are skipped: " in told
    assert "tests that need postgresql are skipped: " in told
    assert ("only root" in told, "E: no such package" in told) == (user != 0, user == 0)


def test_the_package_lists_are_fetched_only_when_they_are_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(needs, "POLICY", tmp_path / "policy-rc.d")
    calls: list[str] = []

    def apt(verb: str, *packages: str) -> int:
        calls.append(verb)
        return int(calls.count("install") < 2)

    monkeypatch.setattr(needs, "_apt", apt)
    monkeypatch.setattr(needs, "say", lambda line: None)
    needs.install(["containerd"])
    assert calls == ["install", "update", "install"]


def test_a_login_without_its_registry_is_not_taken_for_the_sandboxes_own(tmp_path: Path) -> None:
    given = Given.read({"PIPE_REGISTRY_USER": "u", "PIPE_REGISTRY_PASSWORD": "p"}, Layout(tmp_path))
    assert given == Given()
