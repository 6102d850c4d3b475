"""How often somebody may ask, and how long they wait after wrong passwords; memory is bounded, whoever asks."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import HTTPException

__all__ = ["Bucket", "Delays", "SignIns", "too_many"]

MOST = 10_000
"""Keys that are kept in mind; the one that was not heard of for the longest time goes first."""


def too_many(why: str, wait: float) -> HTTPException:
    """The answer to somebody who has to wait, in seconds."""
    seconds = math.ceil(wait)
    return HTTPException(429, f"{why}: again in {seconds} s", {"Retry-After": str(seconds)})


class Bucket:
    """So many at once, then so many a second, for each key."""

    def __init__(self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one: 0, or for how many seconds there is none."""
        now = self._clock()
        left, at = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._left[key] = (left - 1 if left >= 1 else left), now
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate


@dataclass(frozen=True, slots=True)
class _Tries:
    count: int
    last: float


class Delays:
    """After `free` failures a key waits one second, then two, four, eight, up to `longest`."""

    def __init__(self, free: int, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._free, self._longest, self._clock = free, longest, clock
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def wait(self, key: str) -> float:
        """For how many seconds nothing is tried."""
        tries = self._tries.get(key)
        if tries is None or tries.count < self._free:
            return 0.0
        delay = min(self._longest, 2.0 ** min(tries.count - self._free, 30))
        return max(0.0, tries.last + delay - self._clock())

    def failed(self, key: str) -> None:
        """Count a failure; they are forgotten after a quiet hour."""
        now = self._clock()
        before = self._tries.pop(key, None)
        count = before.count if before and now - before.last < 3600 else 0
        self._tries[key] = _Tries(count + 1, now)
        if len(self._tries) > MOST:
            self._tries.popitem(last=False)

    def passed(self, key: str) -> None:
        """Forget the failures."""
        self._tries.pop(key, None)


class SignIns:
    """Guesses at passwords: by one address at one name, by one address at all, and by everybody at one name.

    The last is mild, or a stranger could keep a person out by guessing at their name.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair = Delays(5, 900, clock)
        self._address = Delays(20, 900, clock)
        self._name = Delays(50, 15, clock)

    def wait(self, name: str, address: str) -> float:
        """For how many seconds no password is looked at."""
        return max(self._pair.wait(f"{address} {name}"), self._address.wait(address), self._name.wait(name))

    def trying(self, name: str, address: str) -> None:
        """Count it as failed before it is looked at, so that many at once are no way around."""
        self._pair.failed(f"{address} {name}")
        self._address.failed(address)
        self._name.failed(name)

    def passed(self, name: str, address: str) -> None:
        """The password was right."""
        self._pair.passed(f"{address} {name}")
        self._name.passed(name)
