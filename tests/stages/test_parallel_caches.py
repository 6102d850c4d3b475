"""Several real builds at once on caches that are cold, one of them killed: nothing that is left is half."""

import os
import random
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from tests.stages.test_maven import POM
from tests.support.program import PIPE, host

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(600)]

TOGETHER = 3
SEED = 7


def home(place: Path) -> Path:
    """A home with the user's settings of Maven and npm, and nothing that they downloaded."""
    (place / "home" / ".m2").mkdir(parents=True)
    for name in (".m2/settings.xml", ".npmrc"):
        if (Path.home() / name).exists():
            shutil.copy(Path.home() / name, place / "home" / name)
    return place / "home"


def at_once(place: Path, env: dict[str, str], seconds: float | None = None) -> list[int]:
    """Runs side by side, one in each folder; the first is killed after so many seconds. Their exit codes."""
    runs = [_begun(folder, env) for folder in sorted(place.glob("run?"))]
    if seconds is not None:
        time.sleep(seconds)
        runs[0].kill()
    return [run.wait(300) for run in runs]


def _begun(folder: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    with (folder / "said").open("ab") as said:
        return subprocess.Popen([PIPE, "run", "pipe.yaml"], cwd=folder, env=env, stdout=said, stderr=said)


def prepare(place: Path, pipeline: str, **files: str) -> dict[str, str]:
    for number in range(TOGETHER):
        folder = place / f"run{number}"
        for name, text in {"pipe.yaml": pipeline, **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    kept = {name: value for name, value in os.environ.items() if name.lower().startswith(("npm_config", "maven_"))}
    return host(**{**kept, "HOME": str(home(place)), "PIPE_CACHE": str(place / "cache")})


def said(place: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(place.glob("run*/said")))


def test_maven_runs_at_once_leave_whole_repositories_though_one_is_killed(tmp_path: Path) -> None:
    pipeline = "name: build\nstages: {compile: {uses: maven, with: {goals: clean package}}}\n"
    env = prepare(tmp_path, pipeline, **{"pom.xml": POM, "src/main/java/A.java": "class A { }\n"})
    draw = random.Random(SEED)  # noqa: S311 - when it is killed can be repeated
    for _ in range(2):
        assert at_once(tmp_path, env, draw.uniform(2, 8))[1:] == [0] * (TOGETHER - 1), said(tmp_path)
    assert at_once(tmp_path, env) == [0] * TOGETHER, said(tmp_path)
    jars = list((tmp_path / "cache" / "maven").rglob("*.jar"))
    assert jars
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            assert archive.testzip() is None, jar


def test_npm_runs_at_once_leave_whole_installations_though_one_is_killed(tmp_path: Path) -> None:
    pipeline = "name: page\nstages: {install: {uses: npm, with: {target: check}}}\n"
    script = r'{"name": "page", "version": "1.0.0", "dependencies": {"vue": "3.5.13"}, "scripts": {"check": "node -e \"require(\\\"vue\\\")\""}}'
    making = tmp_path / "making"
    making.mkdir()
    (making / "package.json").write_text(script)
    subprocess.run(["npm", "install", "--package-lock-only", "--no-audit"], cwd=making, check=True)
    lock = (making / "package-lock.json").read_text()
    env = prepare(tmp_path, pipeline, **{"package.json": script, "package-lock.json": lock})
    draw = random.Random(SEED)  # noqa: S311 - when it is killed can be repeated
    for _ in range(3):
        assert at_once(tmp_path, env, draw.uniform(1, 5))[1:] == [0] * (TOGETHER - 1), said(tmp_path)
        for modules in tmp_path.glob("run*/node_modules"):
            shutil.rmtree(modules)
    assert at_once(tmp_path, env) == [0] * TOGETHER, said(tmp_path)
    kept = [path for path in (tmp_path / "cache" / "npm" / "modules").iterdir() if path.is_dir() and not path.suffix]
    assert len(kept) == 1
    whole = {str(path.relative_to(kept[0])) for path in kept[0].rglob("*")}
    for modules in tmp_path.glob("run*/node_modules"):
        assert {str(path.relative_to(modules)) for path in modules.rglob("*")} == whole
