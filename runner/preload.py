"""Heavy modules of later stages, loaded while the first ones work."""

from contextlib import suppress
from importlib import import_module

import anyio.to_thread

from runner.attempt import World

__all__ = ["load_heavy_modules"]


async def load_heavy_modules(world: World) -> None:
    """Load what the kinds of a plan will import; a module that cannot be is told by the stage that needs it."""
    kinds = {leaf.uses: world.kind(leaf.uses) for leaf in world.plan.leaves if not leaf.never}
    for name in dict.fromkeys(module for kind in kinds.values() for module in kind.heavy):
        with suppress(Exception):
            await anyio.to_thread.run_sync(import_module, name, abandon_on_cancel=True)
