"""The programs of a sandbox: how each is started and how one knows that it is ready."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import images, probes
from sandbox.blueprint import APISERVER_PORT, Blueprint
from sandbox.kubernetes_binary import PROGRAMS
from sandbox.pki import NODE_NAME

PODS = "10.244.0.0/16"
PODS_OF_NODE = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
DOCKER_BRIDGE = "10.245.0.1/24"
DOCKER_NETWORKS = {"base": "10.246.0.0/16", "size": 24}
CONTAINERD = Path("/run/containerd.sock")
FOLDERS = ("bin", "git", "home", "logs", "mail", "sockets", "volumes")
ETCD = "http://127.0.0.1:2379"
ETCD_PEERS = "http://127.0.0.1:2380"


@dataclass(frozen=True)
class Part:
    """A program, and a question that is true once others can use it."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True


def waves(blueprint: Blueprint) -> list[list[Part]]:
    """Return all parts in the order in which they need each other; the parts of a wave start at once."""
    first, second, third = [_git_host(blueprint), _mail_sink(blueprint)], [], []
    if blueprint.registry:
        first.append(_registry(blueprint))
    if blueprint.engine or blueprint.cluster:
        first.append(_containerd(blueprint))
    if blueprint.engine:
        second.append(_dockerd(blueprint))
    if blueprint.cluster:
        first.append(_etcd(blueprint))
        second.append(_apiserver(blueprint))
        third = [
            _controllers(blueprint),
            _scheduler(blueprint),
            _kubelet(blueprint),
            _proxy(blueprint),
            _dns(blueprint),
        ]
    return [first, second, third]


def configure(blueprint: Blueprint, state: Path, kubernetes: Path | None) -> None:
    """Write the configuration of all parts into the folder `state`."""
    etc = state / "etc"
    registry = blueprint.registry_address
    certs = etc / "certs.d" / registry
    for folder in (etc / "cni", certs, *(state / name for name in FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
    (certs / "hosts.toml").write_text(f'server = "http://{registry}"\n[host."http://{registry}"]\n')
    (etc / "containerd.toml").write_text(_containerd_toml(blueprint))
    (etc / "Corefile").write_text(_corefile(blueprint))
    (etc / "resolv.conf").write_text("".join(f"nameserver {one}\n" for one in blueprint.nameservers))
    documents = {
        "docker.json": _docker_json(blueprint),
        "registry.json": _registry_json(blueprint),
        "kubelet.json": _kubelet_json(blueprint),
        "cni/10-sandbox.conflist": _cni(),
    }
    for name, document in documents.items():
        (etc / name).write_text(json.dumps(document, indent=1))
    for program in PROGRAMS if kubernetes else ():
        (state / "bin" / program).symlink_to(kubernetes or "")


def _python(blueprint: Blueprint, module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, blueprint.node, *arguments)


def _git_host(blueprint: Blueprint) -> Part:
    port, folder = blueprint.git_port, blueprint.folder
    argv = _python(blueprint, "sandbox.git_host", str(port), str(folder / "git"), str(folder / "git-password"))
    return Part("git-host", argv, lambda: probes.listening(blueprint.node, port))


def _mail_sink(blueprint: Blueprint) -> Part:
    port = blueprint.smtp_port
    argv = _python(blueprint, "sandbox.mail_sink", str(port), str(blueprint.folder / "mail"))
    return Part("mail-sink", argv, lambda: probes.listening(blueprint.node, port))


def _registry(blueprint: Blueprint) -> Part:
    address, _, port = blueprint.registry_address.partition(":")
    argv = ("docker-registry", "serve", str(blueprint.folder / "etc/registry.json"))
    return Part("registry", argv, lambda: probes.listening(address, int(port)))


def _registry_json(blueprint: Blueprint) -> dict[str, Any]:
    folder = blueprint.folder
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": blueprint.registry_address},
        "auth": {"htpasswd": {"realm": "pipe sandbox", "path": str(folder / "htpasswd")}},
    }


def _containerd(blueprint: Blueprint) -> Part:
    argv = ("containerd", "--config", str(blueprint.folder / "etc/containerd.toml"))
    return Part("containerd", argv, lambda: probes.connectable(CONTAINERD))


def _containerd_toml(blueprint: Blueprint) -> str:
    # A container has no CAP_SYS_RESOURCE to lower its score, hence restrict_oom_score_adj.
    return f"""version = 2
root = "{blueprint.home}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/library/{images.PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{blueprint.home}/etc/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{blueprint.home}/etc/certs.d"
"""


def _cni() -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": PODS_OF_NODE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "sandbox", "plugins": [{**bridge, "ipam": addresses}, ports]}


def _dockerd(blueprint: Blueprint) -> Part:
    socket = blueprint.folder / "sockets/docker.sock"
    argv = ("dockerd", "--config-file", str(blueprint.folder / "etc/docker.json"))
    return Part("dockerd", argv, lambda: probes.connectable(socket))


def _docker_json(blueprint: Blueprint) -> dict[str, Any]:
    return {
        "hosts": [f"unix://{blueprint.home}/sockets/docker.sock"],
        "data-root": f"{blueprint.home}/docker",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "containerd": str(CONTAINERD),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/pipe-{blueprint.identity}",
        "insecure-registries": [blueprint.registry_address],
        "bip": DOCKER_BRIDGE,
        "default-address-pools": [DOCKER_NETWORKS],
    }


def _program(blueprint: Blueprint, name: str, *flags: str) -> tuple[str, ...]:
    return (str(blueprint.folder / "bin" / name), *flags)


def _etcd(blueprint: Blueprint) -> Part:
    flags = [f"--data-dir={blueprint.home}/etcd", "--unsafe-no-fsync", "--log-level=warn"]
    flags += [f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"]
    flags += [f"--listen-peer-urls={ETCD_PEERS}", f"--initial-advertise-peer-urls={ETCD_PEERS}"]
    flags += [f"--initial-cluster=default={ETCD_PEERS}"]
    return Part("etcd", _program(blueprint, "etcd", *flags), lambda: probes.listening("127.0.0.1", 2379))


def _apiserver(blueprint: Blueprint) -> Part:
    pki = blueprint.folder / "pki"
    flags = [f"--etcd-servers={ETCD}", f"--service-cluster-ip-range={SERVICES}", "--allow-privileged=true"]
    flags += [f"--bind-address={blueprint.node}", f"--advertise-address={blueprint.node}"]
    flags += [f"--secure-port={APISERVER_PORT}", "--service-account-issuer=https://kubernetes.default.svc"]
    flags += [f"--client-ca-file={pki}/ca.crt", f"--kubelet-certificate-authority={pki}/ca.crt"]
    flags += [f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"]
    flags += [f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key"]
    flags += [f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key"]
    flags += ["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]
    # Without it, logs and exec try to resolve the node's name.
    flags += ["--kubelet-preferred-address-types=InternalIP"]
    argv = _program(blueprint, "kube-apiserver", *flags)
    return Part("kube-apiserver", argv, lambda: probes.Cluster(blueprint.node, pki).ready())


def _as_admin(blueprint: Blueprint, name: str, *flags: str) -> Part:
    return Part(name, _program(blueprint, name, f"--kubeconfig={blueprint.home}/kubeconfig", *flags))


def _controllers(blueprint: Blueprint) -> Part:
    pki = blueprint.folder / "pki"
    flags = [f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/sa.key"]
    flags += [f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"]
    flags += ["--allocate-node-cidrs=true", f"--cluster-cidr={PODS}", "--use-service-account-credentials=true"]
    flags += ["--kube-api-qps=500", "--kube-api-burst=1000"]
    flags += ["--leader-elect=false", "--enable-hostpath-provisioner=true", "--bind-address=127.0.0.1"]
    return _as_admin(blueprint, "kube-controller-manager", *flags)


def _scheduler(blueprint: Blueprint) -> Part:
    return _as_admin(blueprint, "kube-scheduler", "--leader-elect=false", "--bind-address=127.0.0.1")


def _proxy(blueprint: Blueprint) -> Part:
    flags = [f"--cluster-cidr={PODS}", f"--hostname-override={NODE_NAME}", "--proxy-mode=iptables"]
    flags += ["--conntrack-max-per-core=0", "--healthz-bind-address=127.0.0.1", "--iptables-min-sync-period=100ms"]
    return _as_admin(blueprint, "kube-proxy", *flags)


def _kubelet(blueprint: Blueprint) -> Part:
    flags = [f"--config={blueprint.home}/etc/kubelet.json", f"--kubeconfig={blueprint.home}/kubelet.conf"]
    flags += [f"--hostname-override={NODE_NAME}", f"--node-ip={blueprint.node}", f"--root-dir={blueprint.home}/kubelet"]
    return Part("kubelet", _program(blueprint, "kubelet", *flags))


def _kubelet_json(blueprint: Blueprint) -> dict[str, Any]:
    home = blueprint.home
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": f"{home}/pki/ca.crt"},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{home}/pki/kubelet.crt",
        "tlsPrivateKeyFile": f"{home}/pki/kubelet.key",
        "address": blueprint.node,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "podLogsDir": f"{home}/pod-logs",
        "volumePluginDir": f"{home}/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/pipe-{blueprint.identity}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "clusterDNS": [blueprint.node],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{home}/etc/resolv.conf",
        "evictionHard": dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "1%"),
        # A developer's full disk must not make the kubelet collect the pause image, which nobody could pull again.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    }


def _dns(blueprint: Blueprint) -> Part:
    argv = _program(blueprint, "coredns", "-conf", f"{blueprint.home}/etc/Corefile")
    return Part("coredns", argv, lambda: probes.listening(blueprint.node, 53))


def _corefile(blueprint: Blueprint) -> str:
    lines = [f"bind {blueprint.node}", "errors", "cache 5"]
    lines += ["kubernetes cluster.local {", f"  kubeconfig {blueprint.home}/kubeconfig", "}"]
    if blueprint.nameservers:
        lines.append(f"forward . {' '.join(blueprint.nameservers)}")
    return "\n".join([".:53 {", *(f"  {line}" for line in lines), "}", ""])
