"""Where the runs are that a command means: in the store on this machine, or on a server."""

import os
from pathlib import Path

from runner.runs import KeptRuns, Runs

__all__ = ["where"]


def where(server: str) -> Runs:
    """The runs of the server at a URL; of this machine if that is empty."""
    if not server:
        return KeptRuns(os.environ, Path.cwd())
    from runner.remote.connection import connect
    from runner.remote.runs import ServerRuns

    return ServerRuns(connect(server, os.environ))
