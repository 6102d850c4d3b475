"""A docker engine: builds, pushes and old images, by docker-py's low-level API; all of it blocks."""

from stages.clients.docker.build import Build, BuildRequest
from stages.clients.docker.engine import Engine
from stages.clients.docker.prune import Kept, outdated, prune
from stages.clients.docker.push import Push

__all__ = ["Build", "BuildRequest", "Engine", "Kept", "Push", "outdated", "prune"]
