"""A real OpenID provider, npm's oidc-provider, for tests that need one."""

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.cache import bound_to_us, workshop
from sandbox.layout import CACHE

__all__ = ["CLIENT", "SECRET", "identity_provider"]

VERSION = "9.13.3"
CLIENT, SECRET = "pipe", "top secret"
_SCRIPT = Path(__file__).parent / "openid" / "provider.mjs"


@contextmanager
def identity_provider(callback: str, groups: Path) -> Iterator[str]:
    """Run a provider that sends people back to `callback`; its issuer. Installed by the first who needs it.

    `groups` is a JSON file, `{"ann": ["dev"]}`, that may change meanwhile.
    """
    folder = _installed()
    script = folder / "provider.mjs"
    script.write_text(_SCRIPT.read_text())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = bound_to_us(["node", str(script), str(port), callback, str(groups)])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def answers(issuer: str) -> bool:
    """Whether it is up."""
    try:
        with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _installed() -> Path:
    folder = CACHE / f"oidc-provider-{VERSION}"
    with workshop("oidc-provider") as building:
        if not folder.exists():
            print(f"sandbox: installing oidc-provider {VERSION}", flush=True)
            words = ["npm", "install", "--no-audit", "--no-fund", "--silent", f"oidc-provider@{VERSION}"]
            (building / "package.json").write_text("{}")
            subprocess.run(bound_to_us(words), cwd=building, check=True, timeout=300)
            shutil.copytree(building, folder, symlinks=True)
    return folder
