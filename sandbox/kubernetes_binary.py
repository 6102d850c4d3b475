"""The one binary that is etcd, Kubernetes and CoreDNS."""

from pathlib import Path

from sandbox.go_program import GoProgram

VERSION = "1.34.4"
PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
)
_STAMP = "k8s.io/component-base/version.git"

KUBERNETES = GoProgram(
    name="kubernetes",
    version=VERSION,
    source=Path(__file__).parent / "kubernetes",
    package=".",
    # Without the stamped version clients fail to parse it.
    flags=(
        "-mod=mod",
        "-trimpath",
        "-ldflags",
        f"-s -w -X {_STAMP}Version=v{VERSION} -X {_STAMP}Major=1 -X {_STAMP}Minor=34",
    ),
    packages=2600,
    minutes=5,
    toolchain="1.24.13",
)
