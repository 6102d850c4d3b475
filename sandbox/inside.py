"""The first process of a sandbox: furnishes its namespaces, starts the parts, buries the dead, takes orders."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, Thread
from time import monotonic, sleep, time

from sandbox.blueprint import INSIDE, Blueprint
from sandbox.layout import SandboxError, write_atomically
from sandbox.parts import Part, waves

START_LIMIT = 90.0
STOP_LIMIT = 10.0
SHADOWED = ("/etc", "/opt", "/var", "/tmp")  # noqa: S108
PASSED_ON = {"http_proxy", "https_proxy", "pythonpath"}
NOT_PROXIED = "localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local"


@dataclass
class Running:
    """What is known of a part: `state` is running, paused, stopped (by order) or died."""

    part: Part
    pid: int
    since: float
    state: str = "running"
    code: int | None = None


class Keeper:
    """Starts the parts and keeps the book on them, which is a file that the outside reads."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._home = blueprint.folder
        self._parts: dict[str, Running] = {}
        self._known = {part.name: part for wave in waves(blueprint) for part in wave}
        self._waves = waves(blueprint)
        self._lock = RLock()

    def start_all(self) -> None:
        """Start wave after wave; stops at the first part that does not come up, which the book then shows."""
        for wave in self._waves:
            for part in wave:
                self._spawn(part)
            for part in wave:
                if not self._await(part, part.ready, START_LIMIT):
                    return

    def order(self, verb: str, name: str) -> str:
        """Carry out an order on a part and return "ok"; raises SandboxError if that cannot be."""
        verbs = {
            "stop": self._stop,
            "kill": self._kill,
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
        }
        if verb not in verbs or name not in self._known:
            raise SandboxError(f"known are {', '.join(verbs)} of {', '.join(self._known)}")
        verbs[verb](self._known[name])
        return "ok"

    def reap(self) -> None:
        """Bury children, ours and orphans, for ever."""
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                sleep(0.1)
                continue
            with self._lock:
                for one in self._parts.values():
                    if one.pid == pid:
                        one.code = os.waitstatus_to_exitcode(status)
                        self._enter(one, "stopped" if one.state == "stopped" else "died")

    def _spawn(self, part: Part) -> None:
        log = os.open(self._home / "logs" / f"{part.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]  # type: ignore[list-item]
        with self._lock:
            pid = os.posix_spawnp(part.argv[0], part.argv, environment(self._home), file_actions=actions)
            self._enter(Running(part, pid, time()), "running")
        os.close(log)

    def _enter(self, one: Running, state: str) -> None:
        one.state = state
        with self._lock:
            self._parts[one.part.name] = one
            book = {
                name: {"state": one.state, "since": one.since, "code": one.code} for name, one in self._parts.items()
            }
            write_atomically(self._home / "parts.json", json.dumps(book))

    def _await(self, part: Part, condition: Callable[[], bool], limit: float) -> bool:
        deadline = monotonic() + limit
        while monotonic() < deadline and self._parts[part.name].state != "died":
            if condition():
                return True
            sleep(0.05)
        return False

    def _start(self, part: Part) -> None:
        if self._parts[part.name].state in {"running", "paused"}:
            raise SandboxError(f"{part.name} runs already")
        self._spawn(part)
        if not self._await(part, part.ready, START_LIMIT):
            raise SandboxError(f"{part.name} did not come up, see its log")

    def _stop(self, part: Part) -> None:
        one = self._parts[part.name]
        if one.code is not None:
            return
        with self._lock:
            self._enter(one, "stopped")
            for number in (signal.SIGTERM, signal.SIGCONT):
                os.kill(one.pid, number)
        if not self._await(part, lambda: one.code is not None, STOP_LIMIT):
            self._kill(part)

    def _kill(self, part: Part) -> None:
        one = self._parts[part.name]
        if one.code is not None:
            return
        with self._lock:
            self._enter(one, "stopped")
            os.kill(one.pid, signal.SIGKILL)
        self._await(part, lambda: one.code is not None, STOP_LIMIT)

    def _pause(self, part: Part) -> None:
        self._signal(part, signal.SIGSTOP, "running", "paused")

    def _resume(self, part: Part) -> None:
        self._signal(part, signal.SIGCONT, "paused", "running")

    def _signal(self, part: Part, number: int, before: str, after: str) -> None:
        with self._lock:
            one = self._parts[part.name]
            if one.state != before:
                raise SandboxError(f"{part.name} is {one.state}, not {before}")
            os.kill(one.pid, number)
            self._enter(one, after)


def environment(home: Path) -> dict[str, str]:
    """Return the variables of every part: of the caller's only how to find programs and the way out."""
    kept = {name: value for name, value in os.environ.items() if name.lower() in PASSED_ON}
    return {"PATH": os.environ["PATH"], "HOME": str(home / "home"), "NO_PROXY": NOT_PROXIED, **kept}


def furnish(blueprint: Blueprint, state: Path, sockets: Path) -> None:
    """Give the mount and network namespaces their content, so that no part writes to the machine's own folders."""
    staging = state / "run"
    staging.mkdir(exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(staging))
    home = staging / INSIDE.name
    for folder in (home, staging / "lock"):
        folder.mkdir()
    _call("mount", "--bind", str(state), str(home))
    _call("mount", "--bind", str(sockets), str(home / "sockets"))
    _call("mount", "--rbind", str(staging), "/run")
    for shadowed in SHADOWED:
        _shadow(shadowed)
    _furnish_files()
    _furnish_network(blueprint)


def _shadow(folder: str) -> None:
    """Let `folder` be read as it is and written to in memory, but for other file systems that are mounted below it."""
    original, upper, work = (Path(f"/run/shadow{folder}-{kind}") for kind in ("original", "upper", "work"))
    for one in (original, upper, work):
        one.mkdir(parents=True)
    upper.chmod(Path(folder).stat().st_mode & 0o7777)
    layers = f"lowerdir={folder},upperdir={upper},workdir={work}"
    below = mounted_below(folder, Path("/proc/self/mounts").read_text())
    _call("mount", "--rbind", folder, str(original))
    _call("mount", "-t", "overlay", "-o", layers, "overlay", folder)
    for place in below:
        _call("mount", "--rbind", str(original / place.relative_to(folder)), str(place))


def mounted_below(folder: str, mounts: str) -> list[Path]:
    """Return where something is mounted directly below `folder`, by the kernel's list of mounts."""
    places = [line.split()[1].encode().decode("unicode_escape") for line in mounts.splitlines()]
    inner = sorted({Path(place) for place in places if place.startswith(f"{folder}/")})
    return [place for place in inner if not any(other in place.parents for other in inner)]


def _furnish_files() -> None:
    volumes = Path("/tmp/hostpath_pv")  # noqa: S108 - where the controller manager makes volumes
    volumes.mkdir(exist_ok=True)
    _call("mount", "--bind", str(INSIDE / "volumes"), str(volumes))
    # It is often a link into /run, which is ours now.
    resolver = Path("/etc/resolv.conf")
    resolver.unlink(missing_ok=True)
    resolver.write_text((INSIDE / "etc/resolv.conf").read_text())


def _furnish_network(blueprint: Blueprint) -> None:
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "address", "add", f"{blueprint.node}/30", "dev", "eth0")
    _call("ip", "link", "set", "eth0", "up")
    _call("ip", "route", "add", "default", "via", str(blueprint.gateway))
    for setting in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        # Without the second, a pod that calls a Service whose pod is on the same bridge hangs.
        Path(f"/proc/sys/net/{setting}").write_text("1")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)


def take_orders(keeper: Keeper, path: Path) -> None:
    """Answer on the Unix socket `path`, a line an order, for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        while True:
            client, _ = server.accept()
            with client, client.makefile("rw") as stream:
                verb, _, name = stream.readline().strip().partition(" ")
                try:
                    answer = keeper.order(verb, name)
                except (SandboxError, OSError) as problem:
                    answer = str(problem)
                print(answer, file=stream)


def die_with_maker() -> None:
    """End everything if standard input does before it said "complete"."""
    if sys.stdin.readline() != "complete\n":
        os.killpg(0, signal.SIGKILL)
        # The first process of a namespace is immune to its own signals.
        os._exit(1)


def main() -> None:
    """Run as `python -m sandbox.inside STATE SOCKETS`; the line "go" says that our link to the outside is there."""
    state, sockets = (Path(argument) for argument in sys.argv[1:3])
    if sys.stdin.readline() != "go\n":
        return
    blueprint = Blueprint.load(state / "blueprint.json")
    if blueprint.isolated:
        furnish(blueprint, state, sockets)
        sockets = INSIDE / "sockets"
    keeper = Keeper(blueprint)
    Thread(target=take_orders, args=(keeper, sockets / "control.sock"), daemon=True).start()
    Thread(target=keeper.start_all, daemon=True).start()
    Thread(target=die_with_maker, daemon=True).start()
    keeper.reap()


if __name__ == "__main__":
    main()
