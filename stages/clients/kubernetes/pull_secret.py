"""The login that pods pull their images with: made where it is missing, kept up where it is ours."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.stage import Login, StageContext, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.apply import intent, proof
from stages.clients.kubernetes.images import registry
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import MANAGED_BY, RUN, Object, Ref, dig, pod_specs
from stages.clients.kubernetes.transport import ApiError

__all__ = ["ensure_pull_secrets", "wanted", "with_login"]

_KEY = ".dockerconfigjson"
_TYPE = "kubernetes.io/dockerconfigjson"
# What the kubelet looks for when an image names no registry.
_DOCKER_HUB = "https://index.docker.io/v1/"
_TRIES = 5


def wanted(manifests: Sequence[Manifest], images: Sequence[str]) -> dict[Ref, list[str]]:
    """The pull secrets that pods name and no manifest describes, each with the registries it is for.

    Those are the registries of `images` that the pods use; of all their images only if `images` is empty.
    A login is never written for another registry: the kubelet would send it there.
    """
    described = {each.ref for each in manifests if each.ref.kind == "Secret"}
    found: dict[Ref, list[str]] = {}
    for manifest in manifests:
        for spec in pod_specs(manifest.object):
            for name in _names(spec):
                ref = Ref("v1", "Secret", manifest.ref.namespace, name)
                if ref not in described:
                    found[ref] = sorted({*found.get(ref, ()), *_registries(spec, images)})
    return {ref: registries for ref, registries in found.items() if registries}


def _names(spec: Mapping[str, Any]) -> Iterable[str]:
    return _texts(spec.get("imagePullSecrets"), "name")


def _registries(spec: Mapping[str, Any], images: Sequence[str]) -> set[str]:
    used = [image for key in ("initContainers", "containers") for image in _texts(spec.get(key), "image")]
    return {registry(image) for image in used if not images or image in images}


def _texts(things: object, key: str) -> list[str]:
    """The texts under one key of a list's members; whatever is something else the cluster refuses."""
    found = [dig(each, key) for each in things] if isinstance(things, list) else []
    return [each for each in found if each and isinstance(each, str)]


def with_login(data: Mapping[str, str], registries: Sequence[str], login: Login) -> dict[str, str]:
    """A Secret's data with the login for the registries added to what it has for others."""
    try:
        auths = dict(json.loads(base64.b64decode(data.get(_KEY, "")) or "{}").get("auths") or {})
    except ValueError:
        auths = {}
    both = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    for host in registries:
        key = _DOCKER_HUB if host == "docker.io" else host
        auths[key] = {"username": login.username, "password": login.password, "auth": both}
    return {_KEY: base64.b64encode(json.dumps({"auths": auths}, sort_keys=True).encode()).decode()}


async def ensure_pull_secrets(
    ctx: StageContext, cluster: Cluster, manifests: Sequence[Manifest], images: Sequence[str], login: Login
) -> None:
    """Make the pull secrets that are missing, renew those we made; others' are left alone."""
    secrets = wanted(manifests, images)
    if not secrets:
        ctx.log("pull_secret is not used: no pod of these manifests names an imagePullSecrets that is missing here")
    for ref, registries in secrets.items():
        await _ensure(ctx, cluster, ref, registries, login)


async def _ensure(ctx: StageContext, cluster: Cluster, ref: Ref, registries: Sequence[str], login: Login) -> None:
    for _ in range(_TRIES):
        present = await cluster.get(ref)
        if present is not None and not _ours(present):
            ctx.log(f"{ref} is not ours and is left alone")
            return
        data = with_login((present or {}).get("data") or {}, registries, login)
        if present is not None and present.get("data") == data:
            return
        try:
            async with ctx.effect(f"pull secret {ref.namespace}/{ref.name}", intent(cluster, [ref])) as effect:
                write = cluster.create if present is None else cluster.replace
                effect.proof(proof([await write(_secret(ref, data, present, ctx.run.id))]))
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            ctx.log(f"{ref} {'made' if present is None else 'renewed'}: a login for {', '.join(registries)}")
            return
    raise StageFailed(f"{ref} is being changed by others all the time")


def _ours(secret: Object) -> bool:
    labels = secret["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in MANAGED_BY.items())


def _secret(ref: Ref, data: dict[str, str], present: Object | None, run: str) -> Object:
    metadata: Object = {"name": ref.name, "namespace": ref.namespace}
    metadata |= {"labels": dict(MANAGED_BY), "annotations": {RUN: run}}
    if present is not None:
        metadata["resourceVersion"] = present["metadata"]["resourceVersion"]
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _TYPE, "data": data}
