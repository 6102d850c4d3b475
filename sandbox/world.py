"""Make and unmake a sandbox: its namespaces, its link to the machine, its processes, its files."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TextIO, cast

from sandbox import cgroups, git_host, network, parts, pki, probes
from sandbox.blueprint import INSIDE, Blueprint
from sandbox.given import Given
from sandbox.layout import CACHE, Layout, SandboxError, locked, write_atomically
from sandbox.progress import activity

USER = git_host.USER
GIT_PORT = 8080
SMTP_PORT = 2525
CHILD_LIMIT = 10.0
READY_LIMIT = 180.0
END_LIMIT = 30.0
LOOPBACK = "127.0.0.1"
NAMESPACES = ("unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "--")
# What a sandbox leaves for its user to read after it has gone.
KEPT = {"logs", "lock", "READY.txt"}
STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/host-path",
}


def record(layout: Layout) -> dict[str, Any]:
    """Return what was written down of the first process, empty if it is gone (or another has its number now)."""
    for file in layout.records:
        if file.exists():
            known: dict[str, Any] = json.loads(file.read_text())
            if birth(known["pid"]) == known["birth"]:
                return known
    return {}


def birth(pid: int) -> str:
    """Return the start of a process in clock ticks since boot, empty if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def blueprint(layout: Layout) -> Blueprint:
    """Return what the sandbox of `layout` consists of."""
    return Blueprint.load(layout.state / "blueprint.json")


def book(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return what the first process knows about its parts."""
    known: dict[str, dict[str, Any]] = json.loads(layout.parts_file.read_text()) if layout.parts_file.exists() else {}
    return known


def problems(layout: Layout) -> list[str]:
    """Return what keeps the sandbox from being healthy, a line each."""
    if not record(layout):
        return ["it does not run"]
    if not (layout.state / "blueprint.json").exists():
        return [f"it runs, but {layout.state} was deleted"]
    found = [
        f"{name} {one['state']}{_exit_code(one)}, see {layout.log(name)}"
        for name, one in book(layout).items()
        if one["state"] != "running"
    ]
    silent = [
        name for name, works in probes.outside(blueprint(layout), layout.state, layout.sockets).items() if not works()
    ]
    return found + [f"{name} does not answer, see {layout.log(name)}" for name in silent if name not in "".join(found)]


def healthy(layout: Layout) -> bool:
    """Whether a complete sandbox runs."""
    return bool(record(layout).get("complete")) and not problems(layout)


def destroy(layout: Layout) -> None:
    """End every process of the sandbox and remove all it left, however far it had come."""
    if known := record(layout):
        _end(known)
    if os.geteuid() == 0 and shutil.which("ip"):
        with locked(CACHE / "network.lock"):
            network.disconnect(layout)
        cgroups.remove(layout.mark)
    shutil.rmtree(layout.sockets, ignore_errors=True)
    for path in layout.state.iterdir() if layout.state.exists() else ():
        if path.name not in KEPT:
            _remove(path)


def create(layout: Layout, given: Given, kubernetes: Path | None) -> TextIO:
    """Start a sandbox, whose parts come up on their own, see `await_ready`.

    Returns its lifeline: until `complete` it ends as soon as that is closed, by us or by our death.
    """
    layout.state.mkdir(exist_ok=True)
    shutil.rmtree(layout.state / "logs", ignore_errors=True)
    layout.sockets.mkdir(mode=0o700)
    if given.everything:
        return _launch(layout, given, _on_loopback(layout), kubernetes, None)
    with locked(CACHE / "network.lock"):
        chosen = network.choose(layout, network.taken())
        return _launch(layout, given, _in_namespaces(layout, given, chosen), kubernetes, chosen)


def await_ready(layout: Layout) -> None:
    """Wait until everything answers; raises SandboxError with the end of the log of the part that does not."""
    with activity("sandbox: starting") as news:
        deadline = monotonic() + READY_LIMIT
        plan = blueprint(layout)
        waiting = probes.outside(plan, layout.state, layout.sockets)
        if plan.cluster:
            waiting["kube-controller-manager"] = lambda: _cluster_furnished(plan, layout)
        while waiting:
            waiting = {name: works for name, works in waiting.items() if not works()}
            news.note = f"waiting for {', '.join(waiting)}"
            _fail_if_hopeless(layout, list(waiting), late=monotonic() > deadline)
            sleep(0.05)


def await_part(layout: Layout, name: str, works: Callable[[], bool]) -> None:
    """Wait until a part works; raises SandboxError if that cannot be hoped for any more."""
    deadline = monotonic() + READY_LIMIT
    while not works():
        _fail_if_hopeless(layout, [name], late=monotonic() > deadline)
        sleep(0.05)


def complete(layout: Layout, lifeline: TextIO) -> None:
    """Let the sandbox live on without its maker."""
    _remember(layout, {**record(layout), "complete": True})
    lifeline.write("complete\n")


def order(layout: Layout, verb: str, part: str) -> str:
    """Have the first process stop, kill, start, pause or resume a part; returns its answer, "ok" or what is wrong."""
    connection = socket.socket(socket.AF_UNIX)
    with connection, connection.makefile("rw") as stream:
        connection.settimeout(120)
        connection.connect(str(layout.sockets / "control.sock"))
        print(verb, part, file=stream, flush=True)
        return stream.readline().strip()


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"


def _in_namespaces(layout: Layout, given: Given, chosen: IPv4Network) -> Blueprint:
    outer, node = chosen.hosts()
    return Blueprint(
        identity=layout.identity,
        home=str(INSIDE),
        node=str(node),
        gateway=str(outer),
        git_port=GIT_PORT,
        smtp_port=SMTP_PORT,
        nameservers=network.nameservers(),
        engine=not given.engine,
        cluster=not given.kubeconfig,
        registry=not given.registry,
    )


def _on_loopback(layout: Layout) -> Blueprint:
    ports = [port for port in _ports(layout) if not probes.listening(LOOPBACK, port)]
    return Blueprint(
        identity=layout.identity,
        home=str(layout.state),
        node=LOOPBACK,
        gateway=None,
        git_port=ports[0],
        smtp_port=ports[1],
        engine=False,
        cluster=False,
        registry=False,
    )


def _ports(layout: Layout) -> list[int]:
    first = 20000 + int(layout.identity, 16) % 10000
    return list(range(first, first + 20))


def _launch(
    layout: Layout, given: Given, plan: Blueprint, kubernetes: Path | None, chosen: IPv4Network | None
) -> TextIO:
    parts.configure(plan, layout.state, kubernetes if plan.cluster else None)
    plan.save(layout.state / "blueprint.json")
    if plan.cluster:
        pki.create(layout.state / "pki", plan.node)
        for name, file in (("admin", "kubeconfig"), ("kubelet", "kubelet.conf")):
            write_atomically(layout.state / file, pki.kubeconfig(layout.state / "pki", name, plan.node), 0o600)
    _write_env(layout, given, plan)
    return _start(layout, chosen)


def _start(layout: Layout, chosen: IPv4Network | None) -> TextIO:
    command = [sys.executable, "-m", "sandbox.inside", str(layout.state), str(layout.sockets)]
    prefix = NAMESPACES if chosen else ()
    with layout.log("init").open("w") as log:
        outer = subprocess.Popen(
            [*prefix, *command],
            cwd=layout.checkout,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
        )
    lifeline = cast("TextIO", outer.stdin)
    first = _child(outer) if chosen else outer.pid
    _remember(layout, {"pid": first, "birth": birth(first), "outer": outer.pid, "outer_birth": birth(outer.pid)})
    if chosen:
        cgroups.create(layout.mark)
        network.connect(layout, chosen, first)
    print("go", file=lifeline, flush=True)
    # It outlives this process by design, which Popen would complain about.
    outer.returncode = 0
    return lifeline


def _child(outer: subprocess.Popen[str]) -> int:
    deadline = monotonic() + CHILD_LIMIT
    while monotonic() < deadline and outer.poll() is None:
        if children := Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
            return int(children[0])
        sleep(0.01)
    raise SandboxError("no namespaces could be made")


def _remember(layout: Layout, known: dict[str, Any]) -> None:
    for file in layout.records:
        write_atomically(file, json.dumps(known))


def _end(known: dict[str, Any]) -> None:
    pid = known["pid"]
    with activity("sandbox: ending its processes"):
        if pid == known["outer"]:
            # No namespace holds its children together, but they are of its process group.
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        deadline = monotonic() + END_LIMIT
        while birth(pid) == known["birth"] or birth(known["outer"]) == known["outer_birth"]:
            if monotonic() > deadline:
                raise SandboxError(f"process {pid} does not end")
            sleep(0.02)


def _remove(path: Path) -> None:
    """Remove a file or a folder; the mounts of a dead namespace may hold it for another moment."""
    deadline = monotonic() + END_LIMIT
    while path.is_symlink() or path.exists():
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:
            if monotonic() > deadline:
                raise
            sleep(0.1)


def _cluster_furnished(plan: Blueprint, layout: Layout) -> bool:
    """Whether pods can be made: there is a service account for them, and a default class of volumes."""
    cluster = probes.Cluster(plan.node, layout.state / "pki")
    if "metadata" not in cluster.get("/api/v1/namespaces/default/serviceaccounts/default"):
        return False
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    answer = cluster.create(classes, STORAGE_CLASS)
    return bool(answer) and (answer.get("code") in {None, 409})


def _fail_if_hopeless(layout: Layout, waiting: list[str], *, late: bool) -> None:
    if not record(layout):
        raise SandboxError(f"the first process ended, see {layout.log('init')}:\n{tail(layout.log('init'))}")
    for name, one in book(layout).items():
        if one["state"] == "died":
            log = layout.log(name)
            raise SandboxError(f"{name} died{_exit_code(one)}, see {log}:\n{tail(log)}")
    if late and waiting:
        log = layout.log(waiting[0])
        raise SandboxError(f"{', '.join(waiting)} not ready after {READY_LIMIT:.0f} s, see {log}:\n{tail(log)}")


def _exit_code(one: dict[str, Any]) -> str:
    return "" if one["code"] is None else f" with code {one['code']}"


def _write_env(layout: Layout, given: Given, plan: Blueprint) -> None:
    git_password, registry_password = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    write_atomically(layout.state / "git-password", git_password, 0o600)
    if plan.registry:
        _write_htpasswd(layout.state / "htpasswd", registry_password)
    values = {
        "DOCKER_HOST": given.engine or f"unix://{layout.sockets}/docker.sock",
        "PIPE_KUBECONFIG": given.kubeconfig or str(layout.state / "kubeconfig"),
        "PIPE_REGISTRY": given.registry or plan.registry_address,
        "PIPE_REGISTRY_USER": given.registry_user or USER,
        "PIPE_REGISTRY_PASSWORD": given.registry_password or registry_password,
        "PIPE_GIT_URL": f"http://{plan.node}:{plan.git_port}",
        "PIPE_GIT_USER": USER,
        "PIPE_GIT_PASSWORD": git_password,
        "PIPE_SMTP": f"{plan.node}:{plan.smtp_port}",
        "PIPE_MAIL_DIR": str(layout.state / "mail"),
        "PIPE_NODE": plan.node,
        "PIPE_SANDBOX": str(layout.state),
    }
    write_atomically(layout.env_file, "".join(f"{name}={value}\n" for name, value in values.items()), 0o600)


def _write_htpasswd(path: Path, password: str) -> None:
    command = ["htpasswd", "-niB", USER]
    done = subprocess.run(command, input=password, capture_output=True, text=True, check=True, timeout=30)
    write_atomically(path, done.stdout, 0o600)
