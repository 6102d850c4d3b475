"""`vault:MOUNT/PATH`: a key-value engine of HashiCorp Vault or OpenBao; below the path lies a secret by each name."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError
from runner.secret_stores.store import Document

__all__ = ["Vault"]

WITHIN = 10
"""Seconds for each request."""
_POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_WAYS_IN = "set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID, or in a pod VAULT_ROLE; or log in by `vault login`"


class Vault:
    """One folder of secrets, read by the variables that Vault's own command knows (`VAULT_ADDR`, `VAULT_TOKEN`, …)."""

    variables = frozenset({"VAULT_TOKEN", "VAULT_SECRET_ID"})

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        """Raises PipeError when the path or the address of the server is missing."""
        self.address = f"vault:{path}"
        self._mount, _, self._folder = path.strip("/").partition("/")
        self._environ = environ
        if not self._mount:
            raise PipeError("PIPE_SECRETS: write vault:MOUNT/PATH, as in vault:secret/shop")
        if not environ.get("VAULT_ADDR"):
            raise PipeError(f"{self.address}: set VAULT_ADDR to the server's address")

    def read(self, name: str) -> Document | None:
        """The newest version below the path; see the contract."""
        path = "/".join(filter(None, (self._folder, name)))
        found = self._asked(f"reading {path}", self._read, path)
        return None if found is None else {key: _bytes(value) for key, value in found.items()}

    def _read(self, path: str) -> dict[str, Any] | None:
        from hvac.exceptions import InvalidPath

        engine = self._client.secrets.kv
        try:
            if self._versioned:
                asked = {"path": path, "mount_point": self._mount, "raise_on_deleted_version": False}
                answer = engine.v2.read_secret_version(**asked)["data"]
            else:
                answer = engine.v1.read_secret(path=path, mount_point=self._mount)
        except InvalidPath:
            return None
        data: dict[str, Any] | None = answer["data"]
        return data

    @cached_property
    def _versioned(self) -> bool:
        """Whether the engine is of version 2; Vault's own command asks in the same way."""
        answer = self._client.adapter.get(f"/v1/sys/internal/ui/mounts/{self._mount}")
        return bool((answer["data"].get("options") or {}).get("version") == "2")

    @cached_property
    def _client(self) -> Any:
        try:
            import hvac
        except ImportError:
            raise PipeError(f"{self.address}: Vault needs `pip install 'pipe-ci[vault]'`") from None
        env = self._environ
        client = hvac.Client(
            url=env["VAULT_ADDR"],
            token=env.get("VAULT_TOKEN") or _kept_token(env),
            namespace=env.get("VAULT_NAMESPACE"),
            verify=env.get("VAULT_CACERT") or True,
            timeout=WITHIN,
        )
        if not client.token:
            self._log_in(client)
        return client

    def _log_in(self, client: Any) -> None:
        env = self._environ
        if env.get("VAULT_ROLE_ID") and env.get("VAULT_SECRET_ID"):
            client.auth.approle.login(role_id=env["VAULT_ROLE_ID"], secret_id=env["VAULT_SECRET_ID"])
        elif env.get("VAULT_ROLE") and _POD_TOKEN.is_file():
            client.auth.kubernetes.login(role=env["VAULT_ROLE"], jwt=_POD_TOKEN.read_text())
        else:
            raise PipeError(f"{self.address}: nothing says who asks: {_WAYS_IN}")

    def _asked(self, what: str, ask: Any, *words: str) -> Any:
        """What the server answers; its refusals name the server, what was asked, and no value."""
        try:
            return ask(*words)
        except PipeError:
            raise
        except Exception as error:  # hvac and requests share no base
            server = self._environ["VAULT_ADDR"]
            raise PipeError(f"{self.address}: {what} at {server}: {_reason(error)}") from error


def _kept_token(environ: Mapping[str, str]) -> str:
    """The token that `vault login` left."""
    file = Path(environ.get("HOME", "/nonexistent"), ".vault-token")
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _reason(error: Exception) -> str:
    """In one line; requests tells of its own objects before it tells the reason."""
    refused = {"Forbidden": "permission denied", "Unauthorized": "not logged in", "VaultDown": "it is sealed or down"}
    if known := refused.get(type(error).__name__):
        return known
    if type(error).__module__.startswith("requests"):
        return "no answer in time" if "Timeout" in type(error).__name__ else "cannot be reached"
    return " ".join(str(error).split())[:300]
