"""What a sandbox puts into the machine's own network: one link, firewall rules with its mark, and forwarding."""

import json
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sandbox.layout import ADDRESSES, Layout, SandboxError

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# In a folder that a reboot empties, as it resets the setting.
SWITCHED = Path("/run/pipe-ci-forwarding")
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def choose(layout: Layout, taken: list[IPv4Network]) -> IPv4Network:
    """Return the first free network of four addresses, counted from one that depends on the checkout's path."""
    candidates = list(ADDRESSES.subnets(new_prefix=30))
    first = int(layout.identity, 16) % len(candidates)
    for candidate in candidates[first:] + candidates[:first]:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise SandboxError(f"no free network is left in {ADDRESSES}")


def taken() -> list[IPv4Network]:
    """Return the networks that this machine has a route to, but for the default route."""
    routes = json.loads(_output("ip", "-json", "-4", "route", "show", "table", "all"))
    return [IPv4Network(one["dst"], strict=False) for one in routes if one["dst"] != "default"]


def nameservers() -> tuple[str, ...]:
    """Return the machine's name servers that can be asked from another network namespace."""
    file = next((file for file in RESOLVERS if file.exists()), None)
    lines = [line.split() for line in (file.read_text().splitlines() if file else [])]
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]]
    return tuple(server for server in servers if not IPv4Address(server).is_loopback)


def connect(layout: Layout, network: IPv4Network, pid: int) -> None:
    """Make the link into the network namespace of process `pid`, and the way out."""
    outer, _ = network.hosts()
    _output("ip", "link", "add", layout.mark, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _output("ip", "address", "add", f"{outer}/30", "dev", layout.mark)
    _output("ip", "link", "set", layout.mark, "up")
    if FORWARDING.read_text().strip() == "0":
        SWITCHED.touch()
        FORWARDING.write_text("1")
    for rule in _rules(layout, network):
        _output("iptables", "-w", "10", *rule)


def disconnect(layout: Layout) -> None:
    """Remove what `connect` made, whatever of it is there."""
    if Path("/sys/class/net", layout.mark).exists():
        # The link may vanish on its own, with the namespace at its other end.
        subprocess.run(["ip", "link", "delete", layout.mark], capture_output=True, check=False, timeout=30)
    if shutil.which("iptables"):
        for table in ("nat", "filter"):
            for rule in marked_rules(layout, table):
                _output("iptables", "-w", "10", "-t", table, "-D", *rule.split()[1:])
    if SWITCHED.exists() and not _someone_forwards():
        FORWARDING.write_text("0")
        SWITCHED.unlink()


def marked_rules(layout: Layout, table: str) -> list[str]:
    """Return the firewall rules of this sandbox, in the words of `iptables -S`."""
    rules = _output("iptables", "-w", "10", "-t", table, "-S").splitlines()
    return [rule for rule in rules if f"--comment {layout.mark}" in rule]


def _rules(layout: Layout, network: IPv4Network) -> list[list[str]]:
    comment = ["-m", "comment", "--comment", layout.mark]
    rules = [
        ["-t", "nat", "-A", "POSTROUTING", "-s", str(network), "!", "-d", str(network), *comment, "-j", "MASQUERADE"]
    ]
    if "-P FORWARD DROP" in _output("iptables", "-w", "10", "-S", "FORWARD"):
        rules += [["-I", "FORWARD", way, layout.mark, *comment, "-j", "ACCEPT"] for way in ("-i", "-o")]
    return rules


def _someone_forwards() -> bool:
    others = any(path.name.startswith("pipe-") for path in Path("/sys/class/net").iterdir())
    return others or _output("iptables", "-w", "10", "-S", "FORWARD").splitlines() != ["-P FORWARD ACCEPT"]


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise SandboxError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
