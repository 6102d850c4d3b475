"""`PIPE_SECRETS`: the stores that this host names, in the order in which they are asked."""

import shlex
from collections.abc import Callable, Mapping

from pipeline.errors import PipeError
from runner.secret_stores.kubernetes import KubernetesSecrets
from runner.secret_stores.sops import Sops
from runner.secret_stores.store import SecretStore
from runner.secret_stores.vault import Vault

__all__ = ["VARIABLE", "named_stores"]

VARIABLE = "PIPE_SECRETS"

_SCHEMES: Mapping[str, Callable[[str, Mapping[str, str]], SecretStore]] = {
    "sops": Sops,
    "vault": Vault,
    "kubernetes": KubernetesSecrets,
}


def named_stores(environ: Mapping[str, str]) -> list[SecretStore]:
    """The stores in `PIPE_SECRETS`, by words as in a shell: `sops:secrets.yaml vault:secret/shop kubernetes:ci`.

    Nothing is asked yet.

    Raises:
        PipeError: one is of no known sort, or lacks what it needs.
    """
    return [_store(word, environ) for word in _words(environ.get(VARIABLE, ""))]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise PipeError(f"{VARIABLE}: {error}") from None


def _store(word: str, environ: Mapping[str, str]) -> SecretStore:
    scheme, colon, rest = word.partition(":")
    make = _SCHEMES.get(scheme)
    if not (make and colon):
        known = ", ".join(f"{name}:…" for name in _SCHEMES)
        raise PipeError(f"{VARIABLE}: '{word}' is no place of secrets; there are {known}")
    return make(rest, environ)
