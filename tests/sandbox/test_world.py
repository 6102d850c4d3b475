"""A real sandbox: everything that is promised of it, in checkouts that are the test's own."""

import base64
import json
import os
import signal
import smtplib
import subprocess
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import docker
import pytest

from sandbox import probes, publish, world
from tests.sandbox.conftest import Copy, command_line, pid_namespace, pids_inside, within

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(1800)]
NODE_PORTS = (32607, 32248, 32070)
WEB = b"FROM busybox:1\nRUN echo hello > /index.html\nCMD httpd -f -p 8080 -h /\n"


def _engine(copy: Copy) -> docker.APIClient:
    return docker.APIClient(base_url=copy.env["DOCKER_HOST"], timeout=120)


def _login(copy: Copy) -> dict[str, str]:
    return {"username": copy.env["PIPE_REGISTRY_USER"], "password": copy.env["PIPE_REGISTRY_PASSWORD"]}


def _registry(copy: Copy, path: str, *, anonymous: bool = False) -> tuple[int, Any]:
    login = base64.b64encode(":".join(_login(copy).values()).encode()).decode()
    connection = HTTPConnection(copy.env["PIPE_REGISTRY"], timeout=10)
    connection.request("GET", path, headers={} if anonymous else {"Authorization": f"Basic {login}"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def _pod(name: str, image: str, *, login: str = "pull", **container: Any) -> dict[str, Any]:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "imagePullSecrets": [{"name": login}],
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "main", "image": image, "volumeMounts": [{"name": "data", "mountPath": "/data"}], **container}
            ],
            "volumes": [volume],
        },
    }


def _status(copy: Copy, pod: str) -> dict[str, Any]:
    status: dict[str, Any] = copy.cluster.get(f"/api/v1/namespaces/default/pods/{pod}").get("status", {})
    return status


def _waiting_for(copy: Copy, pod: str) -> str:
    containers = _status(copy, pod).get("containerStatuses") or [{}]
    return str(containers[0].get("state", {}).get("waiting", {}).get("reason", ""))


@pytest.fixture(scope="module")
def image(world_copy: Copy) -> str:
    """An image that was built and pushed, after the registry was seen to be empty."""
    assert _registry(world_copy, "/v2/_catalog") == (200, {"repositories": []})
    engine, name = _engine(world_copy), f"{world_copy.env['PIPE_REGISTRY']}/web"
    built = list(engine.build(fileobj=BytesIO(WEB), tag=f"{name}:1", decode=True, rm=True))
    assert not [line for line in built if "error" in line]
    pushed = list(engine.push(name, "1", auth_config=_login(world_copy), stream=True, decode=True))
    assert not [line for line in pushed if "error" in line]
    engine.close()
    return f"{name}:1"


@pytest.fixture(scope="module")
def web(world_copy: Copy, image: str) -> str:
    """A pod that answers behind a Service with open node ports, with a volume made for it; its image needs a login."""
    login = base64.b64encode(":".join(_login(world_copy).values()).encode()).decode()
    secret = json.dumps({"auths": {world_copy.env["PIPE_REGISTRY"]: {"auth": login}}})
    ports = [{"name": f"p{port}", "port": port, "targetPort": 8080, "nodePort": port} for port in NODE_PORTS]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    things: dict[str, dict[str, Any]] = {
        "secrets": {
            "metadata": {"name": "pull"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": secret},
        },
        "persistentvolumeclaims": {"metadata": {"name": "data"}, "spec": claim},
        "services": {
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports},
        },
        "pods": _pod("web", image),
    }
    for kind, thing in things.items():
        made = world_copy.cluster.create(f"/api/v1/namespaces/default/{kind}", thing)
        assert "uid" in made["metadata"], made
    assert within(60, lambda: _status(world_copy, "web").get("phase") == "Running"), _status(world_copy, "web")
    return "web"


def test_it_is_healthy_and_a_second_up_returns_at_once(world_copy: Copy) -> None:
    status = world_copy.run("status")
    assert status.returncode == 0, status.stdout
    began = monotonic()
    world_copy.up()
    assert monotonic() - began < 2


def test_the_files_with_secrets_are_the_owners_alone(world_copy: Copy) -> None:
    state = world_copy.layout.state
    for name in ("env", "kubeconfig", "git-password", "htpasswd"):
        assert (state / name).stat().st_mode & 0o077 == 0
    assert world_copy.layout.sockets.stat().st_mode & 0o077 == 0


def test_the_variables_reach_a_command(world_copy: Copy) -> None:
    done = world_copy.run("exec", "--", "sh", "-c", "echo $PIPE_NODE; exit 7")
    assert (done.stdout.strip(), done.returncode) == (world_copy.env["PIPE_NODE"], 7)


def test_base_images_have_the_names_of_dockerfiles(world_copy: Copy) -> None:
    engine = _engine(world_copy)
    names = {tag for one in engine.images(filters={"label": "pipe.sandbox=base"}) for tag in one["RepoTags"]}
    engine.close()
    assert names == {"eclipse-temurin:17-jre", "nginx:1", "node:20-slim", "busybox:1"}


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("eclipse-temurin:17-jre", ["java", "-XshowSettings:properties", "-version"], "java.specification.version"),
        ("nginx:1", ["nginx", "-t"], "test is successful"),
        ("node:20-slim", ["node", "-e", "console.log(process.version)"], "v20."),
        ("busybox:1", ["sh", "-c", "echo $((6*7))"], "42"),
    ],
)
def test_base_images_run(world_copy: Copy, name: str, command: list[str], said: str) -> None:
    engine = _engine(world_copy)
    container = engine.create_container(name, command)
    engine.start(container)
    code = engine.wait(container)["StatusCode"]
    words = engine.logs(container).decode()
    engine.remove_container(container)
    engine.close()
    assert code == 0, words
    assert said in words


def test_the_registry_wants_a_login(world_copy: Copy, image: str) -> None:
    assert _registry(world_copy, "/v2/_catalog", anonymous=True)[0] == 401
    assert _registry(world_copy, "/v2/_catalog") == (200, {"repositories": ["web"]})


def test_the_cluster_pulls_with_a_secret_and_not_without(world_copy: Copy, web: str, image: str) -> None:
    pod = _pod("stranger", image, login="none", imagePullPolicy="Always")
    world_copy.cluster.create("/api/v1/namespaces/default/pods", pod)
    assert within(30, lambda: _waiting_for(world_copy, "stranger") in {"ErrImagePull", "ImagePullBackOff"})


def test_node_ports_answer_from_outside(world_copy: Copy, web: str) -> None:
    for port in NODE_PORTS:
        assert within(
            10,
            lambda port=port: probes.status(HTTPConnection(world_copy.env["PIPE_NODE"], port, timeout=3), "/") == 200,
        )


def test_a_pod_finds_a_service_by_name_and_keeps_data_in_its_volume(world_copy: Copy, web: str, image: str) -> None:
    script = "nslookup web.default.svc.cluster.local && wget -O- http://$WEB_SERVICE_HOST:32607/ && echo x > /data/kept"
    pod = _pod("client", image, command=["sh", "-c", script])
    world_copy.cluster.create("/api/v1/namespaces/default/pods", pod)
    assert within(60, lambda: _status(world_copy, "client").get("phase") in {"Succeeded", "Failed"})
    assert _status(world_copy, "client")["phase"] == "Succeeded"
    assert [path.read_text() for path in world_copy.layout.state.glob("volumes/*/kept")] == ["x\n"]


def test_nothing_is_written_to_the_machines_own_folders(world_copy: Copy, web: str) -> None:
    assert not Path("/tmp/hostpath_pv").exists()
    assert not list(Path("/var/log").glob("pods/default_*"))
    assert not Path("/etc/docker/key.json").exists()


def test_git_over_http_with_the_password_only(
    world_copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "shop"
    source.mkdir()
    (source / "README").write_text("one")
    done = world_copy.run("publish", str(source))
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(publish, "HERE", world_copy.layout)
    assert publish.publish(source) == done.stdout.split()[0]
    plain = f"{world_copy.env['PIPE_GIT_URL']}/shop.git"
    allowed = plain.replace("://", f"://{world_copy.env['PIPE_GIT_USER']}:{world_copy.env['PIPE_GIT_PASSWORD']}@")
    heads = [_ls_remote(url, tmp_path) for url in (plain, allowed)]
    assert heads == ["", f"{done.stdout.split()[0]}\trefs/heads/master"]


def _ls_remote(url: str, home: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "ls-remote", "--heads", url]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=30
    ).stdout.strip()


def test_mail_is_kept_in_a_folder(world_copy: Copy) -> None:
    host, _, port = world_copy.env["PIPE_SMTP"].partition(":")
    with smtplib.SMTP(host, int(port), timeout=5) as client:
        client.sendmail("ci@pipe.invalid", ["team@pipe.invalid"], "Subject: red\r\n\r\nbackend#12 failed\r\n")
    (message,) = Path(world_copy.env["PIPE_MAIL_DIR"]).glob("*.eml")
    assert "backend#12 failed" in message.read_text()


def test_a_part_can_be_paused_and_goes_on(world_copy: Copy) -> None:
    assert world_copy.run("part", "kube-apiserver", "pause").returncode == 0
    assert not world_copy.cluster.ready()
    assert "kube-apiserver paused" in world_copy.run("status").stdout
    assert world_copy.run("part", "kube-apiserver", "resume").returncode == 0
    assert within(20, lambda: world_copy.run("status").returncode == 0)


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_a_part_can_be_ended_and_started_and_keeps_its_data(world_copy: Copy, image: str, verb: str) -> None:
    assert world_copy.run("part", "registry", verb).returncode == 0
    assert not probes.listening(world_copy.env["PIPE_NODE"], 5000)
    assert world_copy.run("part", "registry", "start").returncode == 0
    assert _registry(world_copy, "/v2/_catalog") == (200, {"repositories": ["web"]})
    assert world_copy.run("status").returncode == 0


def test_an_order_that_makes_no_sense_is_explained(world_copy: Copy) -> None:
    done = world_copy.run("part", "toaster", "stop")
    assert done.returncode == 1
    assert "registry" in done.stderr
    assert "is running, not paused" in world_copy.run("part", "registry", "resume").stderr


def test_a_dead_part_is_named_and_up_starts_all_anew(world_copy: Copy) -> None:
    before = world.record(world_copy.layout)["pid"]
    (coredns,) = [pid for pid in pids_inside(pid_namespace(world_copy.layout)) if "coredns" in command_line(pid)]
    os.kill(coredns, signal.SIGKILL)
    assert within(5, lambda: "coredns died with code -9" in world_copy.run("status").stdout)
    world_copy.up()
    assert world_copy.run("status").returncode == 0
    assert world.record(world_copy.layout)["pid"] != before
