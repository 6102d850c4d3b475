"""`uses: npm`: what is installed how, what is kept between runs, and what its log means."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import CauseKind, StageErrored, StageFailed
from stages.clients.npm import KEPT, Store, install_trouble, read_package
from stages.npm import Npm
from tests.support.context import FakeContext

FAKE = """#!/bin/sh
printf '%s\\n' "npm $*" >> "$CALLS"
case "$1" in
ci|install) mkdir -p node_modules/a && echo code > node_modules/a/index.js ;;
run) cat node_modules/a/index.js 2>/dev/null; [ "$2" != fail ] || { echo "the reason"; exit 2; } ;;
esac
"""


@pytest.fixture
def npm(ctx: FakeContext) -> FakeContext:
    """A context whose npm writes down how it is called, in a package with a lock file."""
    folder = ctx.folder / "bin"
    folder.mkdir()
    for name, text in (("npm", FAKE), ("node", "#!/bin/sh\necho v20\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    ctx.env |= {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(ctx.folder / "calls")}
    package(ctx.workspace)
    return ctx


def package(folder: Path, lock: str | None = "{}", **content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {"build": "x", "fail": "y"}
    (folder / "package.json").write_text(json.dumps({"scripts": scripts} | content))
    if lock is not None:
        (folder / "package-lock.json").write_text(lock)


def calls(ctx: FakeContext) -> list[str]:
    path = ctx.folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def fresh(ctx: FakeContext) -> None:
    """The workspace of another run."""
    shutil.rmtree(ctx.workspace)
    package(ctx.workspace)


async def test_with_a_lock_file_it_follows_it_to_the_letter(npm: FakeContext) -> None:
    await Npm(target="build").run(npm)
    assert calls(npm) == ["npm ci", "npm run build"]
    env = npm.runs[-1].env
    assert (env["npm_config_fund"], env["npm_config_audit"], env["npm_config_update_notifier"]) == ("false",) * 3
    assert env["npm_config_cache"] == str(npm.cache / "packages")


async def test_without_a_lock_file_it_installs(npm: FakeContext) -> None:
    (npm.workspace / "package-lock.json").unlink()
    await Npm().run(npm)
    assert calls(npm) == ["npm install"]


@pytest.mark.parametrize(("install", "expected"), [("ci", ["npm ci"]), ("install", ["npm install"]), ("none", [])])
async def test_how_to_install_can_be_said(npm: FakeContext, install: str, expected: list[str]) -> None:
    await Npm.model_validate({"install": install}).run(npm)
    assert calls(npm) == expected


async def test_the_same_lock_file_is_installed_once(npm: FakeContext) -> None:
    await Npm(target="build").run(npm)
    calls(npm)
    fresh(npm)
    await Npm(target="build").run(npm)
    assert calls(npm) == ["npm run build"]
    assert "node_modules came from an earlier run" in npm.text
    assert npm.text.count("code\n") == 2
    await Npm(target="build").run(npm)
    assert calls(npm) == ["npm run build"]
    assert "node_modules is what the lock file says already" in npm.text


async def test_what_a_run_changes_in_its_packages_stays_its_own(npm: FakeContext) -> None:
    await Npm().run(npm)
    fresh(npm)
    await Npm().run(npm)
    (npm.workspace / "node_modules/a/index.js").write_text("changed")
    fresh(npm)
    await Npm().run(npm)
    assert (npm.workspace / "node_modules/a/index.js").read_text() == "code\n"


async def test_a_copy_that_was_cut_short_is_not_taken_for_a_whole_one(npm: FakeContext) -> None:
    await Npm().run(npm)
    fresh(npm)
    (npm.workspace / "node_modules").mkdir()
    calls(npm)
    await Npm().run(npm)
    assert calls(npm) == ["npm ci"]


@pytest.mark.parametrize("change", [{"lock": '{"other": 1}'}, {"dependencies": {"a": "2"}}])
async def test_another_installation_is_another(npm: FakeContext, change: dict[str, Any]) -> None:
    await Npm().run(npm)
    calls(npm)
    for expected in (["npm ci"], []):
        shutil.rmtree(npm.workspace)
        package(npm.workspace, **change)
        await Npm().run(npm)
        assert calls(npm) == expected


@pytest.mark.parametrize(
    "content",
    [
        {"lock": None},
        {"workspaces": ["packages/*"]},
        {"scripts": {"build": "x", "postinstall": "y"}},
        {"lock": '{"packages": {"a": {"link": true}}}'},
        {"lock": '{"packages": {"a": {"resolved": "file:../a"}}}'},
    ],
)
async def test_what_is_not_all_in_node_modules_is_installed_each_time(
    npm: FakeContext, content: dict[str, Any]
) -> None:
    for _ in range(2):
        shutil.rmtree(npm.workspace)
        package(npm.workspace, **content)
        await Npm().run(npm)
        assert len(calls(npm)) == 1


def test_only_the_last_few_installations_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(KEPT + 2):
        part = store.new(f"k{number}")
        part.mkdir()
        os.utime(part, (number, number))
        store.keep(part, f"k{number}")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [f"k{n}" for n in range(2, KEPT + 2)]


def test_an_installation_that_another_run_removes_at_the_same_time_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(KEPT + 1):
        (tmp_path / str(number)).mkdir()
    remove = Store._remove

    def late(self: Store, path: Path) -> None:
        remove(Store(tmp_path), path)  # the other run
        remove(self, path)

    monkeypatch.setattr(Store, "_remove", late)
    (tmp_path / "new.part").mkdir()
    Store(tmp_path).keep(tmp_path / "new.part", "new")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == KEPT


def test_an_installation_that_somebody_copies_is_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "old").mkdir()
    reading = store.read("old")
    os.utime(tmp_path / "old", (1, 1))
    for number in range(KEPT + 1):
        part = store.new(f"k{number}")
        part.mkdir()
        store.keep(part, f"k{number}")
    assert (tmp_path / "old").is_dir()
    reading.close()
    store.keep(store.new("again"), "again")
    assert not (tmp_path / "old").exists()


async def test_a_script_that_fails_shows_its_last_lines(npm: FakeContext) -> None:
    with pytest.raises(StageFailed, match="npm run fail ended with exit code 2") as caught:
        await Npm(target="fail").run(npm)
    assert caught.value.cause.evidence[-1] == "the reason"


async def test_a_script_that_is_not_there_is_answered_with_the_nearest(npm: FakeContext) -> None:
    with pytest.raises(StageFailed, match=r"package\.json has no script 'biuld'; did you mean 'build'\?") as caught:
        await Npm(target="biuld").run(npm)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert calls(npm) == []


async def test_without_a_package_it_says_where_it_looked(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match=r"there is no package\.json in .*: set `dir:`"):
        await Npm().run(ctx)
    (ctx.workspace / "package.json").write_text("{")
    with pytest.raises(StageFailed, match=r"package\.json is no JSON"):
        await Npm().run(ctx)


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["npm error code ECONNREFUSED", "npm error FetchError: request to http://x/vue failed, reason: refused"], StageErrored, "npm ci: the registry does not answer: FetchError: request to http://x/vue failed"),
        (["npm ERR! code E503"], StageErrored, "npm ci: the registry does not answer: E503"),
        (["npm error code EUSAGE", "npm error `npm ci` can only install"], StageFailed, "npm ci: the lock file does not fit package.json"),
        (["npm ERR! code E401"], StageFailed, "npm ci: the registry wants another login"),
        (["npm error code ENEW"], StageFailed, r"npm ci: ended with exit code 1 (ENEW)"),
        ([], StageFailed, "npm ci: ended with exit code 1"),
    ],
)  # fmt: skip
def test_what_npm_says_is_put_in_words(lines: list[str], error: type[Exception], message: str) -> None:
    trouble = install_trouble("npm ci", 1, lines)
    assert type(trouble) is error
    assert message in str(trouble)


def test_a_key_depends_on_all_that_an_installation_does(tmp_path: Path) -> None:
    package(tmp_path)
    first = read_package(tmp_path)
    keys = {first.key("v20", ""), first.key("v22", ""), first.key("v20", "http://x")}
    (tmp_path / ".npmrc").write_text("x")
    keys.add(first.key("v20", ""))
    assert len(keys) == 4


# -- the real one ----------------------------------------------------------------------------------


@pytest.mark.sandbox
@pytest.mark.timeout(300)
async def test_a_real_installation_is_at_least_twice_as_fast_the_second_time(ctx: FakeContext) -> None:
    package(ctx.workspace, None, dependencies={"vue": "3.5.13"}, scripts={"build": "node -e \"require('vue')\""})
    subprocess.run(["npm", "install", "--package-lock-only", "--no-audit"], cwd=ctx.workspace, check=True)
    lock = (ctx.workspace / "package-lock.json").read_text()
    times = []
    for _ in range(2):
        shutil.rmtree(ctx.workspace)
        package(ctx.workspace, lock, dependencies={"vue": "3.5.13"}, scripts={"build": "node -e \"require('vue')\""})
        start = time.monotonic()
        await Npm().run(ctx)
        times.append(time.monotonic() - start)
        await Npm(target="build").run(ctx)
    assert times[1] < times[0] / 2, times
