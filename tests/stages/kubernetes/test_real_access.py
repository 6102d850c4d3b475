"""Clusters that cannot be reached and accounts that may not."""

import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.stage import CauseKind, SecretFile, StageErrored, StageFailed
from stages.clients.kubernetes.transport import Request
from tests.stages.kubernetes.support import World, app, green, kubeconfig, red

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(150, func_only=True)]


async def test_a_cluster_that_refuses_connections_is_an_infrastructure_error_with_its_address(
    world: World, namespace: str, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{unused.getsockname()[1]}"
        given = kubeconfig(world, tmp_path, cluster={"server": address})
        result = await red(world, namespace, app(), secret={"kubeconfig": given})
    assert isinstance(result.error, StageErrored)
    assert result.error.cause.kind is CauseKind.INFRA
    assert address in result.message
    assert "refused" in result.message.lower() or "Connect call failed" in result.message
    assert result.seconds < 10


async def test_a_cluster_that_does_not_answer_is_given_up_in_seconds(
    world: World, namespace: str, tmp_path: Path
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        given = kubeconfig(world, tmp_path, cluster={"server": address})
        result = await red(world, namespace, app(), secret={"kubeconfig": given})
    assert isinstance(result.error, StageErrored)
    assert f"{address} cannot be reached: no answer in time" in result.message
    assert result.seconds < 20


async def test_a_certificate_of_somebody_else_is_a_wrong_kubeconfig(
    world: World, namespace: str, tmp_path: Path
) -> None:
    given = kubeconfig(world, tmp_path, without=["certificate-authority-data"])
    result = await red(world, namespace, app(), secret={"kubeconfig": given})
    assert isinstance(result.error, StageFailed)
    assert result.error.cause.kind is CauseKind.CONFIG
    assert "certificate verify failed" in result.message
    assert "secret 'kubeconfig'" in result.message


async def test_a_wrong_token_is_a_wrong_kubeconfig(world: World, namespace: str, tmp_path: Path) -> None:
    given = kubeconfig(world, tmp_path, user={"token": "not-a-token"})
    result = await red(world, namespace, app(), secret={"kubeconfig": given})
    assert isinstance(result.error, StageFailed)
    assert "does not accept the kubeconfig of secret 'kubeconfig'" in result.message
    assert "not-a-token" not in result.message + result.evidence


@asynccontextmanager
async def restricted(world: World, namespace: str, tmp_path: Path, verbs: list[str]) -> AsyncIterator[SecretFile]:
    """A kubeconfig of a ServiceAccount that may use these verbs in its namespace, and nothing anywhere else."""
    async with world.cluster() as cluster:
        rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}
        meta = {"name": "clerk", "namespace": namespace}
        subject = {"kind": "ServiceAccount", **meta}
        rbac = "rbac.authorization.k8s.io"
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        await cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        await cluster.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
        role = {"apiGroup": rbac, "kind": "Role", "name": "clerk"}
        binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta}
        await cluster.create({**binding, "roleRef": role, "subjects": [subject]})
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/clerk/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = await cluster.transport.send(Request("POST", path, "token", (), body))
        yield kubeconfig(world, tmp_path, user={"token": json.loads(answer.data)["status"]["token"]})


async def test_a_forbidden_namespace_names_account_verb_and_place(world: World, namespace: str, tmp_path: Path) -> None:
    async with restricted(world, namespace, tmp_path, ["*"]) as given:
        result = await red(world, "default", app(), secret={"kubeconfig": given}, pull_secret="")
    assert isinstance(result.error, StageFailed)
    assert result.error.cause.kind is CauseKind.CONFIG
    assert f'"system:serviceaccount:{namespace}:clerk" cannot patch resource "deployments"' in result.message
    assert 'in the namespace "default"' in result.message
    assert result.seconds < 10


async def test_an_account_that_may_not_make_namespaces_is_told_so(world: World, namespace: str, tmp_path: Path) -> None:
    async with restricted(world, namespace, tmp_path, ["*"]) as given:
        missing = f"pipe-test-{secrets.token_hex(4)}"
        result = await red(world, missing, app(), secret={"kubeconfig": given}, pull_secret="")
    assert "cannot" in result.message
    assert missing in result.message


async def test_an_account_of_one_namespace_can_deploy_there(world: World, namespace: str, tmp_path: Path) -> None:
    async with restricted(world, namespace, tmp_path, ["*"]) as given:
        await green(world, namespace, app(), secret={"kubeconfig": given})
