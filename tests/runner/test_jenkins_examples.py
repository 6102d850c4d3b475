"""`examples/jenkins/`: what it shows works as it stands there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.program import PIPE, host

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples/jenkins"
GROOVY = "5.0.8"


def documents(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def shell_steps(text: str) -> list[str]:
    """What the `sh` steps of a Jenkinsfile run."""
    return [long or short for long, short in re.findall(r"\bsh '''(.*?)'''|\bsh '([^']+)'", text, re.DOTALL)]


def test_the_jenkinsfile_has_five_lines_and_one_shell_step() -> None:
    text = (EXAMPLES / "Jenkinsfile").read_text()
    assert len(text.splitlines()) == 5
    assert shell_steps(text) == ["pipe run examples/shangyitong.pipeline.yaml"]


@pytest.mark.parametrize("name", ["Jenkinsfile", "kubesphere.yaml"])
def test_a_jenkinsfile_runs_a_file_that_is_there_and_binds_every_secret_of_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    found = re.search(r"pipe run (\S+\.yaml)", shell_steps(text)[0])
    assert found
    wanted = {"login": ("_USERNAME", "_PASSWORD"), "file": ("_FILE",), "text": ("",), "ssh": ("_FILE",)}
    for secret, kind in yaml.safe_load((ROOT / found[1]).read_text())["secrets"].items():
        for ending in wanted[kind]:
            assert f"PIPE_SECRET_{secret.upper()}{ending}" in text


def test_the_pod_s_engine_answers_its_own_pod_alone() -> None:
    pod = documents("pod.yaml")
    agent, engine = pod["spec"]["containers"]
    assert agent["name"] == "jnlp"
    assert {each["name"]: each["value"] for each in agent["env"]}["DOCKER_HOST"] == "tcp://localhost:2375"
    assert "--host=tcp://127.0.0.1:2375" in engine["args"]


def test_a_kubeconfig_of_kubesphere_is_neither_traced_nor_left_behind(tmp_path: Path) -> None:
    (script,) = shell_steps(documents("kubesphere.yaml")["spec"]["pipeline"]["jenkinsfile"])
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "pipe"
    fake.write_text(
        '#!/bin/sh\nstat -c %a "$PIPE_SECRET_KUBECONFIG_FILE"; env | grep -c "^KUBECONFIG_CONTENT"; exit 7\n'
    )
    fake.chmod(0o755)
    env = host(WORKSPACE_TMP=str(tmp_path), KUBECONFIG_CONTENT="token: hunter2\nb: c")
    env["PATH"] = f"{tools}:{env['PATH']}"
    done = subprocess.run(
        ["sh", "-xe", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, "600\n0\n")
    assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == [tools]


# -- the shared library's step, by Groovy itself --------------------------------------------------------


@pytest.fixture(scope="module")
def groovy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of Groovy, from Maven's own cache or its registry."""
    if not shutil.which("mvn"):
        pytest.skip("needs Maven to get Groovy")
    folder = tmp_path_factory.mktemp("groovy")
    for name in ("groovy", "groovy-json"):
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy"
        words = [f"-Dartifact=org.apache.groovy:{name}:{GROOVY}", f"-DoutputDirectory={folder}"]
        subprocess.run(["mvn", "-q", "-B", plugin, *words], cwd=folder, check=True, capture_output=True, timeout=300)
    return os.pathsep.join(map(str, folder.glob("*.jar")))


FILE = """pipelines:
  backend:
    stages:
      one: {run: "echo ok"}
      two: {needs: one, run: "echo $((6*7)); exit 3"}
      three: {needs: two, run: "true"}
      four: {run: "exit 4", allow_failure: true}
  frontend: {stages: {site: {run: "true"}}}
"""


def steps(groovy: str, folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    env = host(JENKINS_URL="https://ci.example", BUILD_NUMBER="12")
    env["PATH"] = f"{PIPE.parent}:{env['PATH']}"
    harness = ROOT / "tests/support/steps.groovy"
    argv = [
        "java",
        "-cp",
        groovy,
        "groovy.ui.GroovyMain",
        harness,
        EXAMPLES / "vars/pipeRun.groovy",
        json.dumps(options),
    ]
    words = [str(word) for word in argv]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_step_shows_every_stage_as_one_of_jenkins_and_fails_as_the_run_does(groovy: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(FILE)
    done = steps(groovy, tmp_path)
    assert done.returncode == 1, done.stderr
    shown = re.findall(r"^STAGE (.*)\n(FAILURE |UNSTABLE )?(\S+) after", done.stdout, re.MULTILINE)
    assert shown == [
        ("backend one", "", "succeeded"),
        ("backend two", "FAILURE ", "failed"),
        ("backend three", "", "skipped"),
        ("backend four", "UNSTABLE ", "failed"),
        ("frontend site", "", "succeeded"),
    ]
    assert "BUILD FAILED pipe run pipeline.yaml ended with exit code 1" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_step_puts_no_name_of_a_file_into_a_script(groovy: str, tmp_path: Path) -> None:
    name = "a'b; touch owned #.yaml"
    (tmp_path / name).write_text("name: demo\nstages: {one: {run: 'true'}}\n")
    done = steps(groovy, tmp_path, file=name)
    assert (done.returncode, (tmp_path / "owned").exists()) == (0, False), done.stdout + done.stderr
    assert "STAGE demo one\nsucceeded" in done.stdout
