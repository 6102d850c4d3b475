"""What every page and every endpoint stands on, and how it comes by that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, HTTPException, Request

from runner.server.copies import RunCopies
from runner.server.database import Database
from runner.server.following import Followers
from runner.server.layout import Layout
from runner.server.openid import Provider
from runner.server.passwords import Passwords
from runner.server.peers import Peers
from runner.server.registry import Registry
from runner.server.throttle import Bucket, SignIns

__all__ = ["UNKNOWN", "Doors", "Here"]

UNKNOWN = HTTPException(404, "there is no such thing, or not for you")


@dataclass(frozen=True, slots=True)
class Doors:
    """What the pages and the API stand on."""

    database: Database
    registry: Registry
    layout: Layout
    came_in: Callable[[], None]
    """Called when a delivery waits for work."""
    started: Callable[[], None]
    """Called when a run waits for its start."""
    url: str = ""
    """How people reach the server."""
    openid: Provider | None = None
    """By whom people can sign in beside their passwords."""
    large: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))
    """How many large bodies are held at once."""
    copies: RunCopies = field(default_factory=RunCopies)
    passwords: Passwords = field(default_factory=Passwords)
    followers: Followers = field(default_factory=Followers)
    """Who follows runs now."""
    sign_ins: SignIns = field(default_factory=SignIns)
    calls: Bucket = field(default_factory=lambda: Bucket(1000, 100))
    """How often one token or session may ask."""
    refusals: Bucket = field(default_factory=lambda: Bucket(500, 1))
    """How many refused deliveries and sign-ins from one address are written down."""

    @property
    def peers(self) -> Peers:
        """The other servers of the database."""
        return Peers(self.database, self.registry.fleet.id)


def _here(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors


Here = Annotated[Doors, Depends(_here)]
