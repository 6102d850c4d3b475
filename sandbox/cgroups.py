"""The control groups of a sandbox, under its mark in every hierarchy that the machine has."""

from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

LIMIT = 5.0


def hierarchies() -> list[tuple[Path, bool]]:
    """Return where control groups are mounted, and whether each is the one of version 2."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [(Path(place), kind == "cgroup2") for _, place, kind, *_ in mounts if kind in {"cgroup", "cgroup2"}]


def create(mark: str) -> None:
    """Make the groups that the kubelet and docker put theirs into."""
    for root, unified in hierarchies():
        if unified and (root / "cgroup.subtree_control").exists():
            _delegate(root)
        group = root / mark
        group.mkdir(exist_ok=True)
        # Version 1 starts a cpuset empty, and nothing can run in an empty one.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not unified and (root / name).exists():
                (group / name).write_text((root / name).read_text())


def remove(mark: str) -> None:
    """Remove the groups, which the kernel allows shortly after the last process in them has ended."""
    deadline = monotonic() + LIMIT
    for root, _ in hierarchies():
        while not _removed(root / mark) and monotonic() < deadline:
            sleep(0.05)


def _delegate(root: Path) -> None:
    controllers = (root / "cgroup.controllers").read_text().split()
    for controller in controllers:
        # Some cannot be delegated on some kernels; a missing one shows when a pod asks for its limit.
        with suppress(OSError):
            (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _removed(group: Path) -> bool:
    folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    try:
        for folder in (*folders, group) if group.exists() else ():
            folder.rmdir()
    except OSError:
        return False
    return True
