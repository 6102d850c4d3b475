"""What the machine must have, and how the sandbox gets what can be installed."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox import images
from sandbox.given import Given
from sandbox.kubernetes_binary import KUBERNETES
from sandbox.layout import CACHE, Layout, SandboxError
from sandbox.progress import activity, say

POLICY = Path("/usr/sbin/policy-rc.d")
POSTGRESQL = Path("/usr/lib/postgresql")
APT_LIMIT = 1800
# Programs, and the Debian packages that have them.
WORLD = {
    "ip": "iproute2",
    "iptables": "iptables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
CONTAINERS = {"containerd": "containerd", "runc": "runc", str(images.BUSYBOX): "busybox-static"}
REGISTRY = {"docker-registry": "docker-registry", "htpasswd": "apache2-utils"}
CLUSTER = {"/usr/lib/cni/bridge": "containernetworking-plugins", "conntrack": "conntrack"}
OWN = """Or bring your own, all three or some of them:
  DOCKER_HOST      a docker engine, e.g. unix:///var/run/docker.sock
  PIPE_KUBECONFIG  a kubeconfig file; the cluster of its current context is used, no other file is ever read
  PIPE_REGISTRY    a registry, with PIPE_REGISTRY_USER and PIPE_REGISTRY_PASSWORD
With all three, neither root nor Linux namespaces are needed."""


class Lacking(SandboxError):
    """The machine cannot hold a sandbox; the message lists all reasons."""


def check(layout: Layout, given: Given) -> None:
    """Raise Lacking with everything that is missing and cannot be installed."""
    lacks = [] if given.everything else list(_lacks(layout, given))
    if lacks:
        listed = "\n".join(f"  - {lack}" for lack in lacks)
        raise Lacking(f"The sandbox cannot run here. It lacks:\n{listed}\n{OWN}")


def missing_packages(given: Given) -> list[str]:
    """Return the Debian packages whose programs are not there, for the parts that are not given."""
    cases = (
        (True, {"git": "git"}),
        (not given.everything, WORLD),
        (not (given.engine and given.kubeconfig), CONTAINERS),
        (not given.engine, {"dockerd": "docker.io"}),
        (not given.engine and not images.cached().exists(), {"mmdebstrap": "mmdebstrap", "npm": "npm"}),
        (not given.registry, REGISTRY),
        (not given.kubeconfig, CLUSTER),
        (not given.kubeconfig and not KUBERNETES.cached().exists(), {"go": "golang-go"}),
    )
    return _missing({program: package for applies, case in cases if applies for program, package in case.items()})


def install_for_tests() -> None:
    """Install what tests start themselves; of what cannot be had those that need it are skipped, and that is said."""
    for package in _lacking_for_tests():
        try:
            if os.geteuid() != 0 or not shutil.which("apt-get"):
                raise SandboxError("only root can install packages, and by apt-get")  # noqa: TRY301
            install([package])
        except SandboxError as error:
            say(f"tests that need {package} are skipped: {error}")


def _lacking_for_tests() -> Iterator[str]:
    if not shutil.which("chromium"):
        yield "chromium"
    if not postgresql():
        yield "postgresql"


def postgresql() -> Path | None:
    """The folder of PostgreSQL's own programs; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    places = sorted(POSTGRESQL.glob("*/bin/initdb"), key=lambda each: float(each.parts[-3]))
    return Path(found).resolve().parent if found else places[-1].parent if places else None


def _missing(wanted: Mapping[str, str]) -> list[str]:
    return sorted({package for program, package in wanted.items() if not shutil.which(program)})


def install(packages: list[str]) -> None:
    """Install `packages` without letting any of them start a service; raises SandboxError with apt's last words."""
    if not packages:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    say(f"apt: installing {' '.join(packages)}")
    with activity("apt: installing"), _no_services():
        if _apt("install", *packages):
            _apt("update")
            if _apt("install", *packages):
                log = CACHE / "apt.log"
                tail = "\n".join(log.read_text().splitlines()[-15:])
                raise SandboxError(f"apt could not install {' '.join(packages)}, see {log}:\n{tail}")


def _lacks(layout: Layout, given: Given) -> Iterator[str]:
    if platform.system() != "Linux":
        yield f"Linux (this is {platform.system()})"
        return
    if os.geteuid() != 0:
        yield "root (for network, mount and process namespaces): run it by sudo"
    if platform.machine() not in images.NPM_PACKAGES:
        yield f"a known processor (this is {platform.machine()})"
    if (packages := missing_packages(given)) and not shutil.which("apt-get"):
        yield f"apt-get, to install {', '.join(packages)}"
    if os.geteuid() == 0:
        yield from _kernel_lacks(layout)


def _kernel_lacks(layout: Layout) -> Iterator[str]:
    if shutil.which("modprobe"):
        # Built into many kernels, and then there is nothing to load.
        modules = ["overlay", "br_netfilter", "veth"]
        subprocess.run(["modprobe", "-qa", *modules], capture_output=True, check=False, timeout=30)
    if not _unshared("true"):
        yield "network, mount and process namespaces (unshare is refused here)"
    elif not _overlay_works(layout):
        yield f"overlay mounts in {layout.state}"
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        yield "the kernel module br_netfilter"
    if "cgroup" not in Path("/proc/self/mounts").read_text():
        yield "control groups (nothing is mounted in /sys/fs/cgroup)"


def _unshared(script: str) -> bool:
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def _overlay_works(layout: Layout) -> bool:
    layout.state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="probe-") as name:
        mount = "mount -t overlay -o lowerdir=a,upperdir=b,workdir=c overlay d"
        return _unshared(f"cd '{name}'; mkdir a b c d; {mount}")


def _apt(verb: str, *packages: str) -> int:
    options = ["--yes", "--no-install-recommends"] if verb == "install" else []
    with (CACHE / "apt.log").open("a") as log:
        return subprocess.run(
            ["apt-get", verb, *options, *packages],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
            timeout=APT_LIMIT,
        ).returncode


@contextmanager
def _no_services() -> Iterator[None]:
    """Forbid packages to start services; should we be killed, the ban ends with us."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text(f"#!/bin/sh\nkill -0 {os.getpid()} 2>/dev/null && exit 101\nexit 0\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
