"""Control groups of the host, found while others come and go."""

import os
from pathlib import Path

__all__ = ["control_groups"]


def control_groups(name: str) -> list[Path]:
    """The groups of that name, wherever they are; one that vanishes during the look is none."""
    return [Path(place, name) for place, names, _ in os.walk("/sys/fs/cgroup") if name in names]
