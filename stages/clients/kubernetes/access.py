"""Which cluster, and by which credentials: a kubeconfig that somebody named, or the pod we run in.

The current context of `~/.kube/config` is never used: it is whatever its owner looked at last.
"""

import asyncio
import base64
import binascii
import hashlib
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import yaml

from pipeline.stage import CauseKind, SecretFile, StageFailed, Surroundings
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.transport import Transport

__all__ = ["cluster_at", "cluster_of", "connect", "kubeconfig_of"]

_VARIABLE = "PIPE_KUBECONFIG"
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_PLUGIN_SECONDS = 30
# Fields of a kubeconfig that hold base64 or a path, by the name of the path's field.
_FILES = ("certificate-authority", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True)
class _Source:
    """A kubeconfig and how messages call it; no path means the service account of the pod we run in."""

    path: Path | None
    label: str


async def connect(ctx: Surroundings, secret: str, context: str, path: str = "") -> Cluster:
    """A client for the cluster that the stage names. Nothing is sent yet.

    Args:
        ctx: whose secret or variable holds the kubeconfig.
        secret: the secret with the kubeconfig; empty: `PIPE_KUBECONFIG`, else the pod's service account.
        context: the kubeconfig's context; empty: its current one.
        path: the kubeconfig itself, whatever secret or variable there is; empty: as said above.

    Raises:
        StageFailed: (config) no kubeconfig is named, or it is wrong.
    """
    source = _Source(Path(path), f"the kubeconfig {path}") if path else _source(ctx, secret)
    return await ctx.call(_cluster, source, context, ctx.call)


def kubeconfig_of(ctx: Surroundings, secret: str) -> Path | None:
    """The kubeconfig that `connect` would use, for a program of its own; None: the service account of the pod.

    Raises StageFailed (config) if none is named.
    """
    return _source(ctx, secret).path


def cluster_at(path: Path, label: str, context: str = "") -> Cluster:
    """A client for the cluster of a kubeconfig, for commands that no stage runs; blocks.

    `label` is what messages call the kubeconfig. Raises StageFailed if it is wrong.
    """
    return _at_once(_Source(path, label), context)


def cluster_of(environ: Mapping[str, str]) -> Cluster:
    """A client for the cluster that `PIPE_KUBECONFIG` names, else for that of the pod we run in; blocks.

    Raises StageFailed if there is neither, or it is wrong.
    """
    source = _source_of_host(environ)
    if source is None:
        raise _nothing_names("set")
    return _at_once(source, "")


def _source(ctx: Surroundings, secret: str) -> _Source:
    if secret:
        value = ctx.secret(secret)
        if not isinstance(value, SecretFile):
            raise StageFailed(f"the secret '{secret}' is no file, so it is no kubeconfig", kind=CauseKind.CONFIG)
        return _Source(value.path, f"the kubeconfig of secret '{secret}'")
    source = _source_of_host(ctx.env)
    if source is None:
        raise _nothing_names("give the stage `secret:` with a kubeconfig, or set")
    return source


def _source_of_host(environ: Mapping[str, str]) -> _Source | None:
    named = environ.get(_VARIABLE)
    if named:
        return _Source(Path(named).expanduser(), f"the kubeconfig that {_VARIABLE} names")
    if "KUBERNETES_SERVICE_HOST" in os.environ and _IN_CLUSTER.exists():
        return _Source(None, "the service account of this pod")
    return None


def _nothing_names(way_out: str) -> StageFailed:
    return StageFailed(
        f"no cluster is named: {way_out} {_VARIABLE} to the path of one"
        " (the current context of ~/.kube/config is never used by accident)",
        kind=CauseKind.CONFIG,
    )


def _at_once(source: _Source, context: str) -> Cluster:
    return _cluster(source, context, anyio.to_thread.run_sync)


def _cluster(source: _Source, context: str, aside: Callable[[Callable[[], Any]], Awaitable[Any]]) -> Cluster:
    """`aside` runs what blocks, when credentials are to be loaded again."""
    chosen = _chosen(source, context)
    client, account = _client(source, chosen), _account(source, context)
    again = partial(aside, partial(_client, source, chosen))
    return Cluster(Transport(client, client.configuration.host, source.label, account, again=again, context=chosen))


def _chosen(source: _Source, context: str) -> str:
    """The context that holds from now on, whatever is current later. The kubeconfig is judged by who loads it."""
    if source.path is None:
        return ""
    if context:
        return context
    with suppress(OSError, ValueError):
        return str(_parse(source.path).get("current-context") or "")
    return ""


def _client(source: _Source, context: str) -> Any:
    """Load the client and the credentials; blocks for the import, for files and for a plug-in."""
    from stages.clients.kubernetes.sdk import client as clients
    from stages.clients.kubernetes.sdk import config as configs

    configuration = clients.Configuration()
    # Strict checks refuse authorities without key identifiers, which many clusters have and kubectl takes.
    configuration.disable_strict_ssl_verification = True
    try:
        with tempfile.TemporaryDirectory(prefix="pipe-kube-") as private:
            if source.path is None:
                configs.load_incluster_config(configuration)
            else:
                config = _config(source.path, context, Path(private))
                _load(config, configs.load_kube_config_from_dict, configuration)
            client = clients.ApiClient(configuration)
    except (configs.ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError, TimeoutError) as error:
        raise StageFailed(f"{source.label} is wrong: {_reason(error)}", kind=CauseKind.CONFIG) from error
    client.user_agent = "pipe"
    return client


def _account(source: _Source, context: str) -> str:
    config = source.path.read_bytes() if source.path else b"the pod"
    return hashlib.sha256(config + b"\0" + context.encode()).hexdigest()


def _config(path: Path, context: str, private: Path) -> dict[str, Any]:
    """The kubeconfig, its context chosen."""
    config = self_contained(_parse(path), path.resolve().parent, private)
    chosen = context or config.get("current-context")
    known = [each.get("name") for each in config["contexts"]]
    if chosen not in known:
        said = f"there is no context '{chosen}'" if chosen else "it has no current-context, so name one with `context:`"
        raise ValueError(f"{said}; contexts: {', '.join(map(str, known)) or 'none'}")
    return {**config, "current-context": chosen}


def _load(config: dict[str, Any], load: Any, configuration: Any) -> None:
    # A loop of its own: this is a thread, and only a credential plug-in really waits in there.
    asyncio.run(asyncio.wait_for(load(config, client_configuration=configuration), _PLUGIN_SECONDS))
    if not configuration.host or "://" not in configuration.host:
        raise ValueError(f"its server '{configuration.host}' is no URL")
    if not (configuration.api_key or configuration.cert_file) and _has_plugin(config):
        raise ValueError(f"the credential plug-in of context '{config['current-context']}' gave no credentials")


def _parse(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_bytes())
    except yaml.MarkedYAMLError as error:
        # The error's own text quotes the file, which is a secret.
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"it is no YAML{line}") from None
    except yaml.YAMLError:
        raise ValueError("it is no YAML") from None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), list) for key in ("clusters", "contexts")):
        raise ValueError("it has no `clusters` and `contexts`")
    return config


def self_contained(config: Mapping[str, Any], folder: Path, private: Path) -> dict[str, Any]:
    """A kubeconfig whose paths are absolute and whose embedded keys are files in `private`.

    The client would leave those keys in the system's temporary folder until the process ends.
    """
    number = itertools.count()

    def place(section: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(section)
        for name in _FILES:
            data = result.pop(f"{name}-data", None)
            if data:
                target = private / str(next(number))
                target.write_bytes(_decode(name, data))
                result[name] = str(target)
        paths = {name: str(folder / result[name]) for name in (*_FILES, "tokenFile") if result.get(name)}
        return result | paths

    def places(plural: str, singular: str) -> list[dict[str, Any]]:
        return [{**each, singular: place(each.get(singular) or {})} for each in config.get(plural) or ()]

    return {**config, "clusters": places("clusters", "cluster"), "users": places("users", "user")}


def _decode(name: str, data: object) -> bytes:
    try:
        return base64.b64decode(str(data), validate=True)
    except binascii.Error:
        raise ValueError(f"its {name}-data is no base64") from None


def _has_plugin(config: Mapping[str, Any]) -> bool:
    chosen = config["current-context"]
    user = next((each["context"].get("user") for each in config["contexts"] if each.get("name") == chosen), None)
    return any("exec" in each["user"] for each in config["users"] if each.get("name") == user)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"its credential plug-in did not answer in {_PLUGIN_SECONDS} s"
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error) or type(error).__name__
