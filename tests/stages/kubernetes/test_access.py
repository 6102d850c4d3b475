"""Kubeconfigs, good and bad, without a cluster."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.stage import CauseKind, Login, SecretFile, StageFailed
from stages.clients.kubernetes.access import connect, self_contained
from tests.support.context import FakeContext

GOOD: dict[str, Any] = {
    "current-context": "one",
    "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example:6443"}}],
    "users": [{"name": "u", "user": {"token": "s3cret-token"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u"}},
        {"name": "two", "context": {"cluster": "gone", "user": "u"}},
    ],
}


def given(ctx: FakeContext, config: Any) -> None:
    path = ctx.folder / "kubeconfig"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    ctx.secrets = {"kube": SecretFile(path)}


def user(**fields: Any) -> dict[str, Any]:
    return {**GOOD, "users": [{"name": "u", "user": fields}]}


def cluster(**fields: Any) -> dict[str, Any]:
    return {**GOOD, "clusters": [{"name": "c", "cluster": fields}]}


async def test_a_named_kubeconfig_is_loaded_and_nothing_is_sent(ctx: FakeContext) -> None:
    given(ctx, GOOD)
    async with await connect(ctx, "kube", "") as found:
        assert found.server == "https://cluster.example:6443"
        assert found.transport.context == "one"  # said to programs, whatever is current by then


async def test_without_a_secret_the_variable_names_the_kubeconfig(ctx: FakeContext) -> None:
    given(ctx, GOOD)
    ctx.env["PIPE_KUBECONFIG"] = str(ctx.folder / "kubeconfig")
    async with await connect(ctx, "", "one") as found:
        assert found.transport.credentials == "the kubeconfig that PIPE_KUBECONFIG names"


async def test_the_current_context_of_the_home_folder_is_never_used(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ctx.folder / "home"
    (home / ".kube").mkdir(parents=True)
    (home / ".kube" / "config").write_text(yaml.safe_dump(GOOD))
    for name, value in {"HOME": str(home), "KUBECONFIG": str(home / ".kube" / "config")}.items():
        monkeypatch.setenv(name, value)
        ctx.env[name] = value
    with pytest.raises(StageFailed, match="no cluster is named: give the stage `secret:`"):
        await connect(ctx, "", "")


BAD: list[tuple[Any, str, str]] = [
    ("{", "", "it is no YAML (line 1)"),
    ("token: [s3cret-token", "", "it is no YAML"),
    ("[]", "", "it has no `clusters` and `contexts`"),
    (
        {**GOOD, "current-context": ""},
        "",
        "it has no current-context, so name one with `context:`; contexts: one, two",
    ),
    (GOOD, "three", "there is no context 'three'; contexts: one, two"),
    (GOOD, "two", "Expected object with name gone"),
    (cluster(server="cluster.example"), "", "its server 'cluster.example' is no URL"),
    (cluster(), "", "is no URL"),
    (
        cluster(server="https://c", **{"certificate-authority-data": "%%%"}),
        "",
        "its certificate-authority-data is no",
    ),
    (cluster(server="https://c", **{"certificate-authority": "gone.pem"}), "", "gone.pem"),
    (user(**{"client-certificate-data": "bm8=", "client-key-data": "bm8="}), "", "is wrong"),
    (user(exec={"apiVersion": "client.authentication.k8s.io/v1", "command": "/gone"}), "", "gave no credentials"),
]


@pytest.mark.parametrize(("config", "context", "said"), BAD)
async def test_a_wrong_kubeconfig_is_named_with_its_mistake_and_no_content(
    ctx: FakeContext, config: Any, context: str, said: str
) -> None:
    given(ctx, config)
    with pytest.raises(StageFailed) as caught:
        await connect(ctx, "kube", context)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert str(caught.value).startswith("the kubeconfig of secret 'kube' is wrong: ")
    assert said in str(caught.value)
    assert "s3cret-token" not in str(caught.value)


async def test_a_missing_file_and_a_login_are_no_kubeconfig(ctx: FakeContext) -> None:
    ctx.secrets = {"kube": SecretFile(Path("/nowhere/kubeconfig")), "login": Login("a", "b")}
    with pytest.raises(StageFailed, match="No such file or directory: /nowhere/kubeconfig"):
        await connect(ctx, "kube", "")
    with pytest.raises(StageFailed, match="the secret 'login' is no file"):
        await connect(ctx, "login", "")


def test_embedded_keys_become_private_files_and_paths_absolute(tmp_path: Path) -> None:
    data = base64.b64encode(b"KEY").decode()
    config = user(**{"client-key-data": data, "client-certificate": "certs/me.pem", "tokenFile": "/run/token"})
    found = self_contained(config, Path("/home/me/.kube"), tmp_path)["users"][0]["user"]
    assert Path(found["client-key"]).read_bytes() == b"KEY"
    assert Path(found["client-key"]).parent == tmp_path
    assert found["client-certificate"] == "/home/me/.kube/certs/me.pem"
    assert found["tokenFile"] == "/run/token"
    assert "client-key-data" not in found


def test_a_stage_that_needs_the_client_while_the_engine_loads_it_is_no_deadlock() -> None:
    """Two threads that import the client's package and a module of it at once: one of them gets a `_DeadlockError`."""
    program = """
import threading
from importlib import import_module
from stages.deploy import Deploy
from stages.ticket import Ticket
both = threading.Barrier(2)
failed = []
def load(names):
    both.wait()
    try:
        for name in names:
            import_module(name)
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=load, args=(kind.heavy,)) for kind in (Deploy, Ticket)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
assert {*Deploy.heavy, *Ticket.heavy} == {"stages.clients.kubernetes.sdk"}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
