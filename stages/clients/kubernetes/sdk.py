"""The official client, imported here and nowhere else: two threads that import parts of it at once deadlock.

Its package and `kubernetes.aio.client` import each other. Whoever imports this module waits for who is at it already.
"""

from typing import Any

from kubernetes.aio import client as _client
from kubernetes.aio import config as _config

__all__ = ["client", "config"]

# The official client is typed only in part.
client: Any = _client
config: Any = _config
