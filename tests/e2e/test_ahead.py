"""Looking ahead through the whole program: in seconds, before anything is built, and nothing is left anywhere."""

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.publish import publish, sources
from tests.e2e.conftest import World
from tests.support.program import events_of, pipe

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(300)]

BACKEND = Path(__file__).parent.parent.parent / "examples" / "backend.yaml"
LIMIT = 10.0

FILE = """\
name: shop
secrets: {kubeconfig: file}
stages:
  compile: {run: touch compiled}
  deploy:
    needs: compile
    uses: deploy
    with: {manifests: [deploy/*.yml], namespace: NAMESPACE, secret: kubeconfig, wait: 1m}
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: COLOUR}\n"


def everything(world: World) -> list[str]:
    """All that a look could have left in the cluster and in the registry."""
    kinds = "namespaces,deployments,services,secrets,configmaps,pods,replicasets,serviceaccounts,persistentvolumeclaims"
    objects = world.kubectl("get", kinds, "-A", "-o", "json")
    items: list[dict[str, Any]] = json.loads(objects)["items"]
    named = [f"{item['kind']} {item['metadata'].get('namespace', '')} {item['metadata']['name']}" for item in items]
    repositories = world.registry("_catalog?n=1000")["repositories"] or []
    return sorted(named) + sorted(repositories)


@pytest.fixture
def folder(tmp_path: Path, namespace: str) -> Path:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "settings.yml").write_text(CONFIG.replace("COLOUR", "red"))
    (tmp_path / "pipeline.yaml").write_text(FILE.replace("NAMESPACE", namespace))
    return tmp_path


def test_the_whole_back_end_is_looked_at_within_ten_seconds_and_all_is_well(tmp_path: Path, world: World) -> None:
    for source in sources():
        publish(source)
    before, began = everything(world), time.monotonic()
    done = pipe(tmp_path, "plan", "--live", "--json", BACKEND, env=world.env(PIPE_CACHE=str(tmp_path / "cache")))
    assert time.monotonic() - began < LIMIT
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["findings"] == []
    looked = {checked["stage"].partition("[")[0] for checked in found["checked"]}
    assert looked == {"checkout", "compile", "image", "push", "deploy", "mail"}
    assert len(found["checked"]) > 40
    assert everything(world) == before


def test_a_cluster_that_is_down_ends_the_run_before_it_compiles(folder: Path, world: World, tmp_path: Path) -> None:
    config = world.sandbox.kubeconfig.read_text().replace(world.sandbox.node, "127.0.0.1").replace(":6443", ":1")
    (tmp_path / "down.yaml").write_text(config)
    env = world.env(PIPE_SECRET_KUBECONFIG_FILE=str(tmp_path / "down.yaml"))
    began = time.monotonic()
    done = pipe(folder, "run", "pipeline.yaml", env=env)
    assert time.monotonic() - began < LIMIT
    assert (done.returncode, (folder / "compiled").exists()) == (1, False)
    ends = {event["stage"]: event for event in events_of(folder, "shop") if event["type"] == "stage.finished"}
    assert ends["deploy"]["outcome"] == "errored"
    assert ends["deploy"]["cause"]["kind"] == "infra"
    assert "https://127.0.0.1:1 cannot be reached" in ends["deploy"]["cause"]["message"]


def test_a_cluster_that_takes_connections_and_never_answers_is_an_outage_within_the_limit(
    folder: Path, world: World
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        config = world.sandbox.kubeconfig.read_text().replace(f"{world.sandbox.node}:6443", address)
        (folder / "deaf.yaml").write_text(config)
        env = world.env(PIPE_SECRET_KUBECONFIG_FILE=str(folder / "deaf.yaml"))
        done = pipe(folder, "plan", "--live", "--json", "pipeline.yaml", env=env)
    found = json.loads(done.stdout)
    assert [(finding["severity"], finding["kind"]) for finding in found["findings"]] == [("will fail", "infra")]
    assert f"https://{address} cannot be reached" in found["findings"][0]["message"]
    assert found["seconds"] < LIMIT - 1


def test_a_missing_right_ends_the_run_before_it_compiles(folder: Path, world: World, namespace: str) -> None:
    world.kubectl("create", "namespace", namespace)
    world.kubectl("-n", namespace, "create", "serviceaccount", "clerk")
    world.kubectl("-n", namespace, "create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps")
    world.kubectl(
        "-n", namespace, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:clerk"
    )
    token = world.kubectl("-n", namespace, "create", "token", "clerk").strip()
    path = folder / "clerk.yaml"
    path.write_text(world.sandbox.kubeconfig.read_text())
    for words in (
        ["unset", "users"],
        ["set-credentials", "clerk", f"--token={token}"],
        ["set-context", "--current", "--user=clerk"],
    ):
        subprocess.run(["kubectl", f"--kubeconfig={path}", "config", *words], check=True, capture_output=True)
    done = pipe(folder, "run", "pipeline.yaml", env=world.env(PIPE_SECRET_KUBECONFIG_FILE=str(path)))
    assert (done.returncode, (folder / "compiled").exists()) == (1, False)
    assert f"may not patch configmaps in the namespace {namespace}" in done.stdout
    assert "way out: give the account of this kubeconfig that right" in done.stdout
    assert token not in done.stdout


def test_a_saved_plan_is_refused_when_an_object_that_it_would_change_is_not_as_it_was(
    folder: Path, world: World, namespace: str
) -> None:
    assert pipe(folder, "run", "pipeline.yaml", env=world.env()).returncode == 0
    (folder / "deploy" / "settings.yml").write_text(CONFIG.replace("COLOUR", "green"))
    assert pipe(folder, "plan", "--save", "p.json", "pipeline.yaml", env=world.env()).returncode == 0
    world.kubectl("-n", namespace, "patch", "configmap", "settings", "-p", '{"data": {"colour": "blue"}}')
    refused = pipe(folder, "run", "--plan", "p.json", env=world.env())
    assert refused.returncode == 2
    assert f"shop: ConfigMap {namespace}/settings at " in refused.stderr
    world.kubectl("-n", namespace, "delete", "configmap", "settings")
    gone = pipe(folder, "run", "--plan", "p.json", env=world.env())
    assert "and is absent" in gone.stderr
    assert pipe(folder, "plan", "--save", "p.json", "pipeline.yaml", env=world.env()).returncode == 0
    done = pipe(folder, "run", "--plan", "p.json", env=world.env())
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.objects(namespace, "configmaps")[-1]["data"] == {"colour": "green"}
