"""Build the one binary that is etcd, Kubernetes and CoreDNS, once for all checkouts of this user."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from threading import Timer

from sandbox.cache import bound_to_us, workshop
from sandbox.layout import CACHE, SandboxError
from sandbox.progress import Activity, activity

SOURCE = Path(__file__).parent / "kubernetes"
VERSION = "1.34.4"
_STAMP = "k8s.io/component-base/version.git"
# Without the stamped version clients fail to parse it.
FLAGS = (
    "-mod=mod",
    "-trimpath",
    "-ldflags",
    f"-s -w -X {_STAMP}Version=v{VERSION} -X {_STAMP}Major=1 -X {_STAMP}Minor=34",
)
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
)
OLDEST_GO_THAT_FETCHES_NEWER = (1, 21)
PACKAGES = 2600
COMPILE_LIMIT = 1500.0
TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.24.13"


def cached() -> Path:
    """Return where the binary is, or will be: the name depends on everything that goes into it."""
    digest = hashlib.sha256("\0".join((*FLAGS, platform.machine())).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / name).read_bytes())
    return CACHE / f"kubernetes-{VERSION}-{digest.hexdigest()[:12]}"


def ensure() -> Path:
    """Return the binary, compiling it first if nobody has; raises SandboxError with the compiler's last words."""
    binary = cached()
    if not binary.exists():
        with workshop("kubernetes") as folder:
            if not binary.exists():
                for file in SOURCE.iterdir():
                    shutil.copy(file, folder)
                with activity(f"kubernetes {VERSION}: compiling (first time only, about 5 minutes)") as news:
                    _compile(folder, news)
                (folder / "node").replace(binary)
    return binary


def _compile(folder: Path, news: Activity) -> None:
    log = CACHE / "kubernetes.log"
    command = [_go(folder), "build", "-v", *FLAGS, "-o", "node", "."]
    packages = 0
    with log.open("w") as file, _started(command, folder) as compiler:
        limit = Timer(COMPILE_LIMIT, compiler.kill)
        limit.start()
        for line in compiler.stdout or ():
            file.write(line)
            packages += not line.startswith("go: ")
            news.note = f"{packages} of about {PACKAGES} packages" if packages else line.strip()
        limit.cancel()
    if compiler.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SandboxError(f"go build of Kubernetes failed, see {log}:\n{tail}")


def _started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        bound_to_us(command),
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _environment() -> Mapping[str, str]:
    return {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}


def _go(folder: Path) -> str:
    """Return a go command that can build it: the machine's, or a newer one out of the Go modules."""
    words = _output(["go", "env", "GOVERSION"], folder).removeprefix("go").split(".")
    if (int(words[0]), int(words[1])) >= OLDEST_GO_THAT_FETCHES_NEWER:
        return "go"
    return _newer_go(folder)


def _newer_go(folder: Path) -> str:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    with activity("go: fetching a newer compiler"):
        module = json.loads(_output(["go", "mod", "download", "-json", f"{TOOLCHAIN}.linux-{arch}"], folder.parent))
    tools = Path(module["Dir"])
    # A module's files are stored without their executable bit.
    for program in (*(tools / "bin").iterdir(), *(tools / "pkg" / "tool").rglob("*")):
        program.chmod(0o755)
    return str(tools / "bin" / "go")


def _output(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        bound_to_us(command), cwd=folder, env=_environment(), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SandboxError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout.strip()
