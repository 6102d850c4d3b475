"""How git is called: without prompts, hooks and the host's own settings, and with a login in no list of processes."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from pipeline.stage import Login, Secret, SecretFile, SecretText
from stages.clients.git.address import Address
from stages.clients.unset import unset

__all__ = ["ENVIRONMENT", "askpass", "environment", "git", "without"]

TOKEN_USER = "oauth2"  # noqa: S105 - hosts take any user name beside a token, GitLab documents this one

HARDENED = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.askPass": "",
    "credential.helper": "",
    "protocol.ext.allow": "never",
    "transfer.fsckObjects": "true",
    "http.followRedirects": "initial",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "gc.auto": "0",
    "maintenance.auto": "false",
}

ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
    "LC_ALL": "C",
}
KEPT = {"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_CERT", "GIT_SSL_KEY", "GIT_SSL_NO_VERIFY"}
"""Of the host's own GIT_ variables: all others could redirect git or print what it sends."""

# Answers only for the host of `url`: a redirect or a submodule elsewhere gets no login.
ASKPASS = """#!/bin/sh
case "$1" in
"Username for '$PIPE_GIT_ORIGIN': ") printf '%s\\n' "$PIPE_GIT_USERNAME" ;;
"Password for '${PIPE_GIT_ORIGIN%%://*}://"*"@${PIPE_GIT_ORIGIN#*://}': ") printf '%s\\n' "$PIPE_GIT_PASSWORD" ;;
*) exit 1 ;;
esac
"""

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=10")


def git(folder: Path | None = None) -> list[str]:
    """The first words of every call; `folder` is the repository that may be worked in whoever owns it."""
    settings = {**HARDENED, **({"safe.directory": str(folder)} if folder else {})}
    return ["git", *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]


def environment(address: Address, secret: Secret | None, program: Path) -> dict[str, str]:
    """The variables for calls to one host; `program` is what `askpass` made."""
    key = ["-i", str(secret.path), "-o", "IdentitiesOnly=yes"] if isinstance(secret, SecretFile) else []
    return {
        **ENVIRONMENT,
        "GIT_ALLOW_PROTOCOL": ":".join(sorted({"https", "ssh", address.scheme})),
        "GIT_ASKPASS": str(program),
        "SSH_ASKPASS": str(program),
        "GIT_SSH_COMMAND": shlex.join([*SSH, *key]),
        "GIT_SSH_VARIANT": "ssh",
        **_login(secret, address),
    }


def _login(secret: Secret | None, address: Address) -> dict[str, str]:
    match secret:
        case Login(username, password):
            pass
        case SecretText(password):
            username = TOKEN_USER
        case _:
            return {}
    origin = f"{address.scheme}://{address.host}"
    return {"PIPE_GIT_ORIGIN": origin, "PIPE_GIT_USERNAME": username, "PIPE_GIT_PASSWORD": password}


def askpass(cache: Path) -> Path:
    """The program in `cache` that answers git's questions from its environment, made when it is not there."""
    path = cache / "askpass"
    if not path.exists() or path.read_text() != ASKPASS:
        own = cache / f"askpass.{os.getpid()}.{os.urandom(4).hex()}"
        own.write_text(ASKPASS)
        own.chmod(0o700)
        own.replace(path)
    return path


def without(env: Mapping[str, str]) -> list[str]:
    """The words that take the host's own git settings out of the environment."""
    return unset(name for name in env if name.startswith("GIT_") and name not in KEPT | {"GIT_COMMIT"})
