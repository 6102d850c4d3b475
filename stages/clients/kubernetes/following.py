"""Following a collection: a watch, whatever comes of it, and again, with pauses that spare the cluster."""

from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from pipeline.stage import StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.objects import Object
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Followed"]

_SHORTEST = 1.0
"""Seconds of a watch; one that ends sooner has told that the cluster, or something in between, is in trouble."""
_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
"""Seconds before the next try, doubled each time that a watch comes to nothing."""
_BELIEVED_AFTER = 15.0
"""Seconds that a refusal of what was allowed before lasts until it is believed: a server that has just been started may
refuse what it has not read its own rules for yet, and a login that has expired is renewed."""
_NEVER_ALLOWED = 3.0
"""The same of what was never allowed."""


@dataclass(slots=True)
class Followed(ABC):
    """A collection as all who follow it in this process know it.

    One at a time, the one whose turn it is, follows it for all; the next goes on from the same version.
    """

    turn: anyio.Lock = field(default_factory=anyio.Lock)
    version: str = ""
    """The newest that was told."""
    begun: bool = False
    """A watch can go on from the version."""
    allowed: bool = False
    refused: ApiError | None = None
    """The refusal, once it is believed."""
    silent: tuple[float, str] | None = None
    """Since when the cluster does not answer, and why."""
    answered: float = field(default_factory=anyio.current_time)
    """When the cluster has last said anything."""
    _doubted: float | None = None
    """Since when it is refused."""
    _vain: int = 0
    """Tries in a row that came to nothing."""

    @abstractmethod
    async def begin(self, cluster: Cluster, what: Collection) -> None:
        """Learn the version that a watch goes on from."""

    @abstractmethod
    def take(self, event: Object) -> None:
        """Take in an event of the watch."""

    @abstractmethod
    def tell_refused(self) -> None:
        """A refusal is believed now."""

    @property
    @abstractmethod
    def period(self) -> float:
        """Seconds of the next watch."""

    @abstractmethod
    def ended(self, *, lived: bool) -> None:
        """A watch has ended without an error; `lived`: after some time."""

    async def follow(self, cluster: Cluster, what: Collection) -> None:
        """Follow it until cancelled, or until a refusal is believed; whoever comes later asks anew."""
        self.refused = None
        async with self.turn:
            while self.refused is None:
                await self._once(cluster, what)

    async def _once(self, cluster: Cluster, what: Collection) -> None:
        """Begin, watch from there, and again: the rule for 410, too.

        https://kubernetes.io/docs/reference/using-api/api-concepts/
        """
        began, failure = None, None
        try:
            if not self.begun:
                await self.begin(cluster, what)
                self._answered()
            began = anyio.current_time()
            await self._watch(cluster, what)
        except (ApiError, StageErrored, StageFailed) as error:
            failure, self.begun = error, False
        lived = began is not None and anyio.current_time() - began >= _SHORTEST
        if lived:
            self._vain, self._doubted = 0, None
        if failure is None:
            self.ended(lived=lived)
        elif isinstance(failure, ApiError) and failure.status in (401, 403):
            self._doubt(failure)
        elif not (isinstance(failure, ApiError) and failure.status == 410):
            # What answers now may not even be the cluster that took the apply; it may come back.
            self._fall_silent(failure)
        if not lived and self.refused is None:
            await self._pause()

    async def _watch(self, cluster: Cluster, what: Collection) -> None:
        async with aclosing(cluster.watch(what, self.version, int(self.period))) as events:
            async for event in events:
                self._answered()
                self._doubted = None
                self.take(event)

    def _answered(self) -> None:
        self.allowed, self.begun, self.silent, self.answered = True, True, None, anyio.current_time()

    def _doubt(self, error: ApiError) -> None:
        now = anyio.current_time()
        self._doubted = now if self._doubted is None else self._doubted
        if now - self._doubted >= (_BELIEVED_AFTER if self.allowed else _NEVER_ALLOWED):
            self.refused, self.silent = error, None
            self.tell_refused()
        elif self.allowed:
            self._fall_silent(error)

    def _fall_silent(self, why: Exception) -> None:
        self.silent = self.silent or (anyio.current_time(), str(why))

    async def _pause(self) -> None:
        seconds = min(_LONGEST_PAUSE, _PAUSE * 2**self._vain)
        self._vain += 1
        await anyio.sleep(seconds)
