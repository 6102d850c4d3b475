"""Heavy modules of kinds, loaded before they are needed, and never two at once."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

import anyio.to_thread

from runner.attempt import World

__all__ = ["load", "load_heavy_modules"]

_LOADING = threading.Lock()
"""Python breaks a deadlock of two imports by giving one of them a module that is half made."""


async def load_heavy_modules(world: World) -> None:
    """Load what the kinds of a plan will import, while its first stages work."""
    kinds = {leaf.uses: world.kind(leaf.uses) for leaf in world.plan.leaves if not leaf.never}
    await load(module for kind in kinds.values() for module in kind.heavy)


async def load(modules: Iterable[str]) -> None:
    """Load modules one after the other; one that cannot be is told by the stage that needs it."""
    for name in dict.fromkeys(modules):
        await anyio.to_thread.run_sync(_load, name, abandon_on_cancel=True)


def _load(name: str) -> None:
    with _LOADING, suppress(Exception):
        import_module(name)
