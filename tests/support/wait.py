"""Waiting for what another process or another machine does, with a limit."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], limit: float = 30) -> None:
    """Return when something holds; fail after `limit` seconds."""
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, f"waited more than {limit} s"
        time.sleep(0.01)
