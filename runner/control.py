"""Stopping one leaf: the reason first, then the cancel, and time for an effect that has begun."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from pipeline.stage import Cause, Outcome

__all__ = ["EFFECT_TIME", "Control", "Interrupt"]

EFFECT_TIME = 8.0
"""Seconds that an effect which has begun may still take after a cancel or time-out."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Why a leaf was ended from outside."""

    outcome: Outcome
    cause: Cause


class Control:
    """Handle on one leaf, kept by the engine."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.interrupt: Interrupt | None = None
        self.expired = ""
        """Which limit of the attempt ended it, if that was not its timeout."""
        self.signalled = False
        """A program of the attempt was ended by SIGTERM or SIGINT, and not by us."""
        self._attempt = anyio.CancelScope()
        self._deadline = math.inf
        self._effect_deadline = math.inf
        self._expiry = math.inf
        """When effects of an attempt that expired are cut; a later attempt starts anew."""
        self._effects: set[anyio.CancelScope] = set()

    def stop(self, interrupt: Interrupt) -> None:
        """End the leaf; the first reason given is the one that is told."""
        self.interrupt = self.interrupt or interrupt
        self.bound_effects()
        self.scope.cancel()

    def expect(self, interrupt: Interrupt, seconds: float) -> None:
        """Let the leaf end by itself; after so many seconds it is ended, effects and all."""
        self.interrupt = interrupt
        self.scope.deadline = anyio.current_time() + seconds
        self.bound_effects(seconds)

    def cut(self) -> None:
        """End even an effect that has begun: nobody can say then what became of it."""
        self.bound_effects(0)

    @contextmanager
    def attempt(self, seconds: float) -> Iterator[anyio.CancelScope]:
        """Bound one attempt: when its time is over it is cancelled, which the scope's `cancelled_caught` tells."""
        self.expired, self._expiry, self.signalled = "", math.inf, False
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope:
            self._attempt, self._deadline = scope, scope.deadline
            yield scope

    def expire(self, limit: str) -> None:
        """End the attempt as if its time were over, for another limit of it."""
        self.expired = limit
        self._expiry = anyio.current_time() + EFFECT_TIME
        self._bound_running(self._expiry)
        self._attempt.cancel()

    @contextmanager
    def effect(self) -> Iterator[anyio.CancelScope]:
        """Hold off a cancel or time-out, for `EFFECT_TIME` at most."""
        deadline = min(self._deadline + EFFECT_TIME, self._effect_deadline, self._expiry)
        with anyio.CancelScope(shield=True, deadline=deadline) as scope:
            self._effects.add(scope)
            try:
                yield scope
            finally:
                self._effects.discard(scope)

    def bound_effects(self, seconds: float = EFFECT_TIME) -> None:
        """Give effects that have begun no more than this."""
        self._effect_deadline = min(self._effect_deadline, anyio.current_time() + seconds)
        self._bound_running(self._effect_deadline)

    def _bound_running(self, deadline: float) -> None:
        for scope in self._effects:
            scope.deadline = min(scope.deadline, deadline)
