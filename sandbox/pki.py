"""Certificates and kubeconfigs of the cluster."""

import base64
import json
import subprocess
from pathlib import Path

from sandbox.blueprint import APISERVER_PORT
from sandbox.layout import SandboxError

NODE_NAME = "sandbox"
DAYS = "3650"
IDENTITIES = {
    "apiserver": "/CN=kube-apiserver",
    "admin": "/O=system:masters/CN=admin",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE_NAME}",
}


def create(folder: Path, node: str) -> None:
    """Make an authority, a key for service accounts, and the certificates of the cluster at address `node`."""
    folder.mkdir(mode=0o700)
    _key(folder / "ca.key")
    _openssl(
        "req", "-x509", "-new", "-key", "ca.key", "-days", DAYS, "-subj", "/CN=sandbox", "-out", "ca.crt", at=folder
    )
    _key(folder / "sa.key")
    _openssl("pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub", at=folder)
    names = ["DNS:kubernetes.default.svc", f"DNS:{NODE_NAME}", "IP:127.0.0.1", "IP:10.96.0.1", f"IP:{node}"]
    usage = f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={','.join(names)}\n"
    (folder / "usage").write_text(usage)
    for name, subject in IDENTITIES.items():
        _certificate(folder, name, subject)


def kubeconfig(folder: Path, name: str, node: str) -> str:
    """Return a kubeconfig (JSON is YAML) for the identity `name`, with everything embedded."""
    server = f"https://{node}:{APISERVER_PORT}"
    user = {"client-certificate-data": _encoded(folder / f"{name}.crt")}
    user["client-key-data"] = _encoded(folder / f"{name}.key")
    cluster = {"server": server, "certificate-authority-data": _encoded(folder / "ca.crt")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": name}}],
            "current-context": "sandbox",
        },
        indent=1,
    )


def _certificate(folder: Path, name: str, subject: str) -> None:
    _key(folder / f"{name}.key")
    _openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr", at=folder)
    signer = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS, "-extfile", "usage"]
    _openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.crt", at=folder)


def _key(path: Path) -> None:
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    _openssl("genpkey", *curve, "-out", path.name, at=path.parent)


def _openssl(*arguments: str, at: Path) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=at, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise SandboxError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
