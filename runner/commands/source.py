"""What a checkout without a url takes: the repository that a file is in, or what the host says started the run."""

from collections.abc import Mapping
from pathlib import Path

from runner.hosts import Host

__all__ = ["source_of"]


def source_of(file: Path, folder: str, host: Host) -> Mapping[str, str]:
    """The variables that tell checkouts so; `folder` is the working tree of `--source`, empty without it."""
    named = {"PIPE_SOURCE": str(file.absolute().parent)}
    if host.name == "server":
        named = host.source()
    if folder:
        named["PIPE_SOURCE_DIR"] = str(Path(folder).absolute())
    return named
