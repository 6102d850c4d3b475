"""`kubernetes:NAMESPACE`: Secrets of a cluster, each by its name."""

import base64
from collections.abc import Mapping

import anyio
import anyio.to_thread

from pipeline.errors import PipeError
from pipeline.stage import StageErrored, StageFailed
from runner.secret_stores.store import Document

__all__ = ["KubernetesSecrets"]

WITHIN = 20.0
"""Seconds for one Secret, the cluster's discovery included."""


class KubernetesSecrets:
    """The Secrets of one namespace, in the cluster that `PIPE_KUBECONFIG` names, else in that of the pod we run in."""

    variables: frozenset[str] = frozenset()

    def __init__(self, namespace: str, environ: Mapping[str, str]) -> None:
        """Raises PipeError when no namespace is named."""
        self.address = f"kubernetes:{namespace}"
        self._namespace = namespace
        self._environ = environ
        if not namespace:
            raise PipeError("PIPE_SECRETS: write kubernetes:NAMESPACE")

    def read(self, name: str) -> Document | None:
        """The data of the Secret; see the contract."""
        try:
            return anyio.run(self._read, name)
        except TimeoutError:
            raise PipeError(f"{self.address}: no answer within {WITHIN:g} s") from None
        except (StageFailed, StageErrored) as error:
            raise PipeError(f"{self.address}: {error}") from None

    async def _read(self, name: str) -> Document | None:
        from stages.clients.kubernetes.access import cluster_of
        from stages.clients.kubernetes.objects import Ref
        from stages.clients.kubernetes.transport import ApiError

        with anyio.fail_after(WITHIN):
            async with await anyio.to_thread.run_sync(cluster_of, self._environ) as cluster:
                try:
                    found = await cluster.get(Ref("v1", "Secret", self._namespace, name))
                except ApiError as error:
                    raise PipeError(f"{self.address}: {cluster.transport.credentials}: {error}") from None
        if found is None:
            return None
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
