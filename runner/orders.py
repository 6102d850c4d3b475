"""What others want of a running engine: small files dropped into the run's folder, read by its owner alone."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from ulid_transform import ulid_now

__all__ = ["Cancel", "Orders", "obey"]

LOOK_EVERY = 0.5
"""Seconds between two looks for orders."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the run. `superseded`: because the run `by` takes its place."""

    by: str
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders for one run, in `<run>/commands/`, each a JSON file named by a ULID."""

    run: Path

    def give(self, order: Cancel) -> None:
        """Leave an order, whole or not at all.

        Raises:
            OSError: the place cannot be written.
        """
        folder = self._folder
        folder.mkdir(exist_ok=True)
        name = ulid_now()
        part = folder / f".{name}"
        part.write_text(json.dumps({"cancel": {"by": order.by, "superseded": order.superseded}}))
        part.rename(folder / f"{name}.json")

    def take(self) -> Iterator[Cancel]:
        """The orders that came, the oldest first; each is taken once. What is no order is thrown away."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if name.endswith(".json"))  # noqa: PTH208 - asked twice a second
        except OSError:  # mostly there is no such folder; a store on a network may be away for a while
            return
        for name in names:
            file = self._folder / name
            with suppress(OSError, ValueError, TypeError, KeyError):
                yield Cancel(**json.loads(file.read_text())["cancel"])
            with suppress(OSError):
                file.unlink()

    @property
    def _folder(self) -> Path:
        return self.run / "commands"


async def obey(orders: Orders, carry_out: Callable[[Cancel], None]) -> None:
    """Carry out what is ordered; runs until cancelled."""
    while True:
        for order in orders.take():
            carry_out(order)
        await anyio.sleep(LOOK_EVERY)
